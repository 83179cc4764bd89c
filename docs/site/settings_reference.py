"""The reference page of the settings, from the models that read them."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from labrelay.settings import ENV_PREFIX, ProducerSettings
from labrelay_worker.backends.registry import backend_registry
from labrelay_worker.destinations.kinds import find_kinds
from labrelay_worker.destinations.making import CommonOptions
from labrelay_worker.settings import BreakerSettings, RetrySettings, Route, WorkerSettings

_HEAD = """# Settings

Where a setting comes from, the first that has it: arguments, the environment (`LABRELAY_NAME`, and
`LABRELAY_TABLE__NAME` for a table's), `.env`, a secrets directory (`LABRELAY_SECRETS_DIR`), and `labrelay.toml`:
here, or in `LABRELAY_HOME`, or where `LABRELAY_CONFIG` points. `labrelay settings` shows those in force, with their
sources.
"""


def page() -> str:
    """Return the page as Markdown."""
    producer = ProducerSettings.model_fields
    worker = {name: field for name, field in WorkerSettings.model_fields.items() if name not in producer}
    parts = [
        _HEAD,
        "## Of producers and workers\n\n" + _table(producer, ENV_PREFIX),
        "## Of workers\n\n" + _table(worker, ENV_PREFIX),
        "## `[retry]`\n\n" + _table(RetrySettings.model_fields, f"{ENV_PREFIX}RETRY__"),
        "## `[breaker]`\n\n" + _table(BreakerSettings.model_fields, f"{ENV_PREFIX}BREAKER__"),
        "## `[[routes]]`\n\n" + _table(Route.model_fields),
        "## `[destinations.NAME]`\n\nOf every type, beside `type`:\n\n" + _table(CommonOptions.model_fields),
    ]
    for name, options in destination_types().items():
        parts.append(f'### `type = "{name}"`\n\n' + _table(options.model_fields))
    parts.append("## `[backends.NAME]`\n\nAlso the options of a destination whose `type` is the backend's.")
    for name, cls in backend_types().items():
        parts.append(f'### `type = "{name}"`\n\n' + _parameters(cls))
    return "\n\n".join(parts) + "\n"


def destination_types() -> dict[str, type[BaseModel]]:
    """Return the options of labrelay's own destination types, by type."""
    kinds, _ = find_kinds(WorkerSettings())
    found = {name: getattr(kind.cls, "Options", None) for name, kind in kinds.items()}
    return {name: options for name, options in sorted(found.items()) if options is not None}


def backend_types() -> dict[str, type[Any]]:
    """Return labrelay's own backends, by type."""
    registry = backend_registry()
    registry.discover()
    return {name: cls for name in registry.names if (cls := registry.class_of(name)) is not None and ":" not in name}


def _table(fields: dict[str, FieldInfo], prefix: str = "") -> str:
    if not fields:
        return "It has no options."
    rows = [f"| `{name}` | {_default(field)} | {_meaning(name, field, prefix)} |" for name, field in fields.items()]
    return "\n".join(["| option | default | meaning |", "|---|---|---|", *rows])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is PydanticUndefined:
        return "`{}`" if field.default_factory is dict else "see `labrelay settings`"
    if field.default is None:
        return "unset"
    return f"`{_cell(str(getattr(field.default, 'value', field.default)))}`"


def _meaning(name: str, field: FieldInfo, prefix: str) -> str:
    said = [f"{_cell(field.description)}." if field.description else ""]
    if "SecretStr" in str(field.annotation):
        said.append("**Secret:** never shown, logged or stored.")
    if prefix:
        said.append(f"`{prefix}{name.upper()}`")
    return " ".join(part for part in said if part)


def _parameters(cls: type[Any]) -> str:
    text = inspect.cleandoc(cls.__doc__ or "")
    signature = inspect.signature(cls)
    if not signature.parameters:
        return f"{text.splitlines()[0]} It has no options."
    rows = [
        f"| `{name}` | {'required' if p.default is p.empty else f'`{_cell(str(p.default))}`'} | {_said(text, name)} |"
        for name, p in signature.parameters.items()
        if p.kind is not p.VAR_KEYWORD
    ]
    return "\n".join([text.splitlines()[0], "", "| option | default | meaning |", "|---|---|---|", *rows])


def _said(docstring: str, name: str) -> str:
    """Return what a numpy-style docstring says of a parameter."""
    lines, found = docstring.splitlines(), list[str]()
    for position, line in enumerate(lines):
        if name in line.split(":")[0].replace(",", " ").split() and not line.startswith(" "):
            for below in lines[position + 1 :]:
                if below and not below.startswith(" "):
                    break
                found.append(below.strip())
            break
    return _cell(" ".join(found))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("[[", r"\[[").replace("``", "`")
