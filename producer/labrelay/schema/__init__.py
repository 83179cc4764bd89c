"""The published JSON Schema of the wire form: ``python -m labrelay.schema`` prints it."""

from __future__ import annotations

import json

from labrelay.context import ExportContext

#: What the file beside this module is called; it is generated, and a test compares it with the code.
FILE = "export_context.json"


def schema_text() -> str:
    """Return the JSON Schema of an export context, as it is published."""
    return json.dumps(ExportContext.model_json_schema(by_alias=True), indent=2, ensure_ascii=False) + "\n"
