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
from labrelay_worker.guests import default_limits

_FAULTS_SHOWN = 5
_MEMBERS = ("name", "priority", "enabled", "validate_config", "export")


class CommonOptions(Options):
    """What every ``[destinations.NAME]`` table may say, whatever its type."""

    type: str = ""
    enabled: bool = True
    priority: int = Field(0, ge=0, le=1000)
    waits_for: tuple[str, ...] = ()
    per_second: float | None = Field(None, gt=0)
    concurrent: int | None = Field(None, ge=1)
    requests_per_second: float | None = Field(None, gt=0)
    limit_account: str | None = None

    @field_validator("waits_for", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return split_list(value, paths=False)


def destination_classes(plugin: object) -> Iterable[type[Any]]:
    """Return the classes of a plugin that have the seed's five members.

    Raises
    ------
    InvalidInput
        It is neither a module nor such a class.
    """
    if inspect.isclass(plugin):
        if hasattr(plugin, "_backend_type"):
            return []  # it registered itself when it was defined
        if missing := [member for member in _MEMBERS if not getattr(plugin, member, None)]:
            text = f"is no destination: it has no {', '.join(missing)}"
            raise InvalidInput(plugin.__name__, text, f"A destination has {', '.join(_MEMBERS)}")
        return [plugin]
    if not isinstance(plugin, ModuleType):
        text = f"is no destination but a {type(plugin).__name__}"
        raise InvalidInput(getattr(plugin, "__name__", repr(plugin)), text, "Name a class or a module")
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
    declared = getattr(destination, "limits", None) or default_limits(destination) or Limits()
    return Limits(
        account=common.limit_account or declared.account,
        per_second=common.per_second or declared.per_second,
        concurrent=common.concurrent or declared.concurrent,
        requests_per_second=common.requests_per_second or declared.requests_per_second,
    )


def fault_text(error: Exception) -> str:
    """Return what is wrong, on one line; of refused settings the names, never the values."""
    if isinstance(error, ValidationError):
        faults = error.errors(include_url=False, include_input=False)
        listed = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:_FAULTS_SHOWN])
        more = len(faults) - _FAULTS_SHOWN
        return f"option {listed}" + (f" (and {more} more)" if more > 0 else "")
    return " ".join(f"{type(error).__name__}: {error}".split())


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
