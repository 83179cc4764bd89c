"""Requests held against eLabFTW's own OpenAPI document, where it is at hand."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

DOCUMENT = Path(__file__).parents[3] / "shared" / "data" / "elabftw-openapi.yaml"


class RequestSchemas:
    """The request schemas of a document; the document itself is not fully valid, so only these parts are used."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = _plain(document)
        self._paths = [
            (re.compile(re.sub(r"\{\w+\}", r"[^/]+", path) + "$"), item)
            # A fixed path wins over one with a parameter: /users/me is not /users/{id} only by luck.
            for path, item in sorted(self._document["paths"].items(), key=lambda pair: pair[0].count("{"))
        ]

    def fault(self, method: str, path: str, query: list[tuple[str, str]], kind: str, body: Any) -> str | None:
        """Return how a request contradicts the document; None if it does not.

        Parameters
        ----------
        path
            Below ``/api/v2``.
        kind
            Content type of the body, without parameters; empty: no body.
        body
            Its JSON, or of a form the field names.
        """
        item = next((item for pattern, item in self._paths if pattern.match(path)), None)
        operation = (item or {}).get(method.lower())
        if item is None or operation is None:
            return f"{method} {path} is not in the document"
        known = {
            p["name"]: p for p in map(self._resolved, [*item.get("parameters", []), *operation.get("parameters", [])])
        }
        for name, value in query:
            parameter = known.get(name)
            if parameter is None or parameter["in"] != "query":
                return f"{method} {path} has no parameter {name}"
            number = parameter["schema"].get("type") == "integer"
            given = int(value) if number and re.fullmatch(r"-?\d+", value) else value
            if fault := self._against(parameter["schema"], given):
                return f"parameter {name}: {fault}"
        request = operation.get("requestBody")
        if request is None:
            return f"{method} {path} takes no body" if kind else None
        content = self._resolved(request)["content"]
        if kind not in content:
            return f"{method} {path} takes {', '.join(content)}, not {kind or 'nothing'}"
        return self._against(content[kind]["schema"], body)

    def _resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in node:
            target: Any = self._document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            node = target
        return node

    def _against(self, schema: dict[str, Any], value: Any) -> str | None:
        validator = Draft202012Validator({**schema, "components": self._document["components"]})
        error = best_match(validator.iter_errors(value))
        return None if error is None else f"{error.json_path}: {error.message[:200]}"


@cache
def request_schemas() -> RequestSchemas | None:
    """Return the schemas, or None where the document is not at hand."""
    return RequestSchemas(yaml.safe_load(DOCUMENT.read_text())) if DOCUMENT.exists() else None


def as_documented(method: str, body: Any) -> Any:
    """Return a body with the one thing changed in which the document is known to be wrong.

    It says that the metadata of a PATCH are an object; the server wants their JSON as a text.
    """
    if method != "PATCH" or not isinstance(body, dict):
        return body
    texts = {k: json.loads(v) for k, v in body.items() if k in ("metadata", "metadatamerge") and isinstance(v, str)}
    return body | texts


def _plain(node: Any) -> Any:
    """Return OpenAPI 3.0's schema dialect as JSON Schema: ``nullable`` becomes a type."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {key: _plain(value) for key, value in node.items()}
    if plain.pop("nullable", False) is True and isinstance(plain.get("type"), str):
        plain["type"] = [plain["type"], "null"]
        if "enum" in plain:
            plain["enum"] = [*plain["enum"], None]
    return plain
