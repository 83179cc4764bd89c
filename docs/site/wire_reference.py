"""The reference pages of the wire form and of the ledger's keys, from the code that writes them."""

from __future__ import annotations

import inspect
import json
from typing import Any

from labrelay import names
from labrelay.context import ExportContext
from labrelay.names import Keys

_WIRE = """# Wire form

What producers hand over and workers receive, as JSON: the schema `{schema}`. `labrelay submit FILE` takes it from a
file, or one a line. `python -m labrelay.schema` prints the schema.
"""

_LEDGER = """# Names in Redis

Every key begins with the setting `key_prefix` (`labrelay:` unless set). Who writes a key and how long it lives:
[The ledger](../ledger.md).
"""


def wire_page() -> str:
    """Return the page of the wire form as Markdown."""
    schema = ExportContext.model_json_schema(by_alias=True)
    parts = [_WIRE.format(schema=names.CONTEXT_SCHEMA), "## The context", _fields(schema)]
    for name, definition in schema["$defs"].items():
        parts += [f"## {name}", definition.get("description", ""), _fields(definition)]
    parts += ["## JSON Schema", f"```json\n{json.dumps(schema, indent=2, ensure_ascii=False)}\n```"]
    return "\n\n".join(part for part in parts if part) + "\n"


def keys_page() -> str:
    """Return the page of the names in Redis as Markdown."""
    rows = []
    for name, member in keys().items():
        kind, _, holds = (inspect.getdoc(member) or "").partition(": ")
        parameters = list(inspect.signature(member).parameters)[1:] if inspect.isfunction(member) else []
        key = getattr(Keys(""), name)
        text = key(*(f"{{{parameter}}}" for parameter in parameters)) if parameters else key
        rows.append(f"| `{text}` | {kind.lower()} | {holds} |")
    table = "\n".join(["| key | type | holds |", "|---|---|---|", *rows])
    celery = (
        f"## Celery's\n\nThe task is `{names.TASK_EXPORT}`, its queue `{names.QUEUE_EXPORTS}`. One wake-up is"
        f" good for at most {names.EXPORTS_PER_WAKE_UP} exports."
    )
    return "\n\n".join([_LEDGER, table, celery]) + "\n"


def keys() -> dict[str, Any]:
    """Return the members of `Keys` that make keys, by name; properties as their functions."""
    members = {name: member for name, member in vars(Keys).items() if not name.startswith("_")}
    return {name: member for name, member in members.items() if callable(member) or isinstance(member, property)}


def _fields(definition: dict[str, Any]) -> str:
    required = set(definition.get("required", ()))
    rows = [
        f"| `{name}` | {_type(field)} | {'yes' if name in required else ''} | {_cell(field.get('description', ''))} |"
        for name, field in definition.get("properties", {}).items()
    ]
    return "\n".join(["| field | type | required | meaning |", "|---|---|---|---|", *rows]) if rows else ""


def _type(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(each) for each in field["anyOf"]))
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    return str(field.get("format") or field.get("type") or "any")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("``", "`")
