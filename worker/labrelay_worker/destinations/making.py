"""Make one destination from its class and its ``[destinations.NAME]`` table."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator

from labrelay.errors import InvalidInput
from labrelay.settings import split_list
from labrelay_worker.destinations.base import Destination, Limits, Options

_MEMBERS = ("name", "priority", "enabled", "validate_config", "export")


class CommonOptions(Options):
    """What every ``[destinations.NAME]`` table may say, whatever its type."""

    type: str = ""
    enabled: bool = True
    priority: int = Field(0, ge=0, le=1000)
    waits_for: tuple[str, ...] = ()
    per_second: float | None = Field(None, gt=0)
    concurrent: int | None = Field(None, ge=1)
    limit_account: str | None = None

    @field_validator("waits_for", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return split_list(value, paths=False)


def destination_classes(plugin: object) -> Iterable[type[Any]]:
    """Return the classes of a plugin that have the seed's five members."""
    if inspect.isclass(plugin):
        return [plugin]
    if not isinstance(plugin, ModuleType):
        return []
    members: list[tuple[str, type[Any]]] = inspect.getmembers(plugin, inspect.isclass)
    classes = [cls for _, cls in members if cls.__module__ == plugin.__name__]
    return [cls for cls in classes if all(hasattr(cls, member) for member in _MEMBERS) and cls.name]


def construct(cls: type[Any], name: str, options: dict[str, Any]) -> Any:
    """Return an instance of a destination class, with the options of its table."""
    if issubclass(cls, Destination):
        return cls(name, cls.Options.model_validate(options))
    if options:
        raise InvalidInput(f"destinations.{name}", f"{cls.__name__} takes no options", f"Remove {', '.join(options)}")
    destination = cls()
    if destination.name != name:
        destination.name = name
    return destination


def limits_of(destination: Any, common: CommonOptions) -> Limits:
    """Return the limits of the class with the options of the table put over them."""
    declared = getattr(destination, "limits", None) or Limits()
    return Limits(
        account=common.limit_account or declared.account,
        per_second=common.per_second or declared.per_second,
        concurrent=common.concurrent or declared.concurrent,
    )


def validation_text(error: ValidationError) -> str:
    """Return the first fault of a table without the value given, which may be a secret."""
    first = error.errors(include_url=False, include_input=False)[0]
    option = ".".join(str(part) for part in first["loc"])
    return f"option {option}: {first['msg']}"


def secrets_of(value: Any) -> Iterable[str]:
    """Return every secret value of a destination's options, however deep."""
    return (item.get_secret_value() for item in _leaves(value) if isinstance(item, SecretStr))


def texts_of(value: Any) -> Iterable[str]:
    """Return every text of a table, however deep."""
    return (item for item in _leaves(value) if isinstance(item, str))


def _leaves(value: Any) -> Iterable[Any]:
    if isinstance(value, BaseModel):
        value = dict(value)
    if not isinstance(value, Mapping | list | tuple):
        return [value]
    return (leaf for item in (value.values() if isinstance(value, Mapping) else value) for leaf in _leaves(item))
