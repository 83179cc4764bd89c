"""The bulk of a delivered export as one compressed text, so that years of them fit into memory. Pure.

The row keeps what scripts ask for; context, deliveries, receipts and trail are ``base64(zlib(JSON))``: text, because
every client decodes what Redis answers, and readable without labrelay. A replacement keeps the text of the revision
before as ``earlier``, whose receipts are the new revision's previous ones.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from labrelay.errors import InvalidInput
from labrelay.names import (
    FIELD_CONTEXT,
    FIELD_DELIVERY,
    FIELD_EARLIER,
    FIELD_PACKED,
    FIELD_PREVIOUS_RECEIPT,
    FIELD_RECEIPT,
    PACKED_SCHEMA,
)

_KINDS = (FIELD_DELIVERY, FIELD_RECEIPT, FIELD_PREVIOUS_RECEIPT)


class _Packed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_version: Literal["labrelay.packed_export/1"] = Field(default=PACKED_SCHEMA, alias="schema")
    fields: dict[str, str]
    trail: tuple[str, ...] = ()


def pack(row: Mapping[str, str], trail: Sequence[str]) -> str:
    """Return the bulk of a whole row and its trail."""
    bulk = {field: value for field, value in row.items() if field == FIELD_CONTEXT or field.startswith(_KINDS)}
    return _text(_Packed(fields=bulk, trail=tuple(trail)))


def pack_receipts(row: Mapping[str, str]) -> str:
    """Return what a tombstone keeps of a whole row: the latest receipt of each destination; empty without any."""
    kept = {
        field: value
        for field, value in row.items()
        if field.startswith(FIELD_RECEIPT)
        or (field.startswith(FIELD_PREVIOUS_RECEIPT) and FIELD_RECEIPT + _destination(field) not in row)
    }
    return _text(_Packed(fields=kept)) if kept else ""


def with_packed(row: Mapping[str, str], packed: str | None) -> Mapping[str, str]:
    """Return a row as it is read: with what is packed beside it, if anything is."""
    return row if packed is None else {**row, FIELD_PACKED: packed}


def whole_row(row: Mapping[str, str]) -> Mapping[str, str]:
    """Return a row with what is packed beside it (``packed``) and what it has from before (``earlier``).

    Raises
    ------
    InvalidInput
        The packed text is damaged.
    """
    if FIELD_PACKED not in row and FIELD_EARLIER not in row:
        return row
    fields: dict[str, str] = {}
    if FIELD_EARLIER in row:
        fields |= _as_previous(_unpack(row[FIELD_EARLIER]).fields)
    if FIELD_PACKED in row:
        fields |= _unpack(row[FIELD_PACKED]).fields
    return fields | {f: v for f, v in row.items() if f not in (FIELD_PACKED, FIELD_EARLIER)}


def whole_trail(row: Mapping[str, str], lines: Sequence[str]) -> list[str]:
    """Return the trail of a row, oldest first: what is packed, then what was written since."""
    texts = [row[field] for field in (FIELD_EARLIER, FIELD_PACKED) if field in row]
    return [*(line for text in texts for line in _unpack(text).trail), *lines]


def whole_export(answer: tuple[Sequence[str], Sequence[str], str]) -> tuple[Mapping[str, str], list[str]]:
    """Return row and trail as they were before they were packed, from one answer of ``whole.lua``."""
    fields, lines, packed = answer
    row = with_packed(dict(zip(fields[::2], fields[1::2], strict=True)), packed or None)
    return whole_row(row), whole_trail(row, lines)


def _as_previous(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the receipts of a revision as those that came before the next."""
    previous = {field: value for field, value in fields.items() if field.startswith(FIELD_PREVIOUS_RECEIPT)}
    latest = {
        FIELD_PREVIOUS_RECEIPT + _destination(field): value
        for field, value in fields.items()
        if field.startswith(FIELD_RECEIPT)
    }
    return previous | latest


def _destination(field: str) -> str:
    return field[2:]


def _text(packed: _Packed) -> str:
    return base64.b64encode(zlib.compress(packed.model_dump_json(by_alias=True).encode())).decode()


def _unpack(text: str) -> _Packed:
    try:
        return _Packed.model_validate_json(zlib.decompress(base64.b64decode(text, validate=True)))
    except (binascii.Error, zlib.error, ValidationError) as error:
        raise InvalidInput(
            "packed export",
            f"damaged, or of a newer labrelay ({type(error).__name__})",
            "Upgrade this side; else take the export from a backup of Redis",
        ) from None
