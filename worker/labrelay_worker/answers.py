"""What a plugin answered: a receipt, or the error that its failure means. Nothing of it is taken without a look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labrelay.context import ExportContext
from labrelay.errors import Misconfigured, OutcomeUnknown, Rejected, Transient, Unavailable
from labrelay.redaction import Redactor
from labrelay.results import Receipt, utc_now

_FAILURES = {kind.kind: kind for kind in (Rejected, Misconfigured, Unavailable, OutcomeUnknown)}


def receipt_of(
    answer: Any, context: ExportContext, *, destination: str, redact: Redactor, attempt: int, adopted: bool
) -> Receipt:
    """Return the receipt of an answer, without secrets.

    Raises
    ------
    DeliveryError
        It tells of a failure.
    OutcomeUnknown
        It is no `ExportResult`.
    """
    if isinstance(answer, Receipt):
        return answer
    if not hasattr(answer, "success"):
        # It came back without an error, so trying again as after a failure could make a second object.
        raise OutcomeUnknown(f"it answered {type(answer).__name__} instead of an ExportResult")
    given = getattr(answer, "metadata", None)
    metadata = {str(key): value for key, value in given.items()} if isinstance(given, Mapping) else {}
    if not answer.success:
        text = redact(str(getattr(answer, "error_message", None) or "the destination reported a failure"))
        raise _FAILURES.get(str(metadata.get("error_kind")), Transient)(text)
    return Receipt(
        destination=destination,
        record_id=_text(getattr(answer, "record_id", None)),
        record_url=_text(_clean(getattr(answer, "record_url", None), redact)),
        sha256=context.xml_sha256,
        verified=str(metadata.pop("verified", "")),
        adopted=adopted,
        attempt=attempt,
        at=utc_now(),
        metadata={key: _clean(value, redact) for key, value in metadata.items()},
    )


def _clean(value: Any, redact: Redactor) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _clean(item, redact) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item, redact) for item in value]
    return redact(str(value))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
