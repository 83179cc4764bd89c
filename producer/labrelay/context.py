"""The export context: what is to be exported, and the wire contract between producers and workers.

Field names are those of NexusLIMS's ``ExportContext`` so that its destination classes run unchanged.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from labrelay.explaining import explain
from labrelay.names import CONTEXT_SCHEMA
from labrelay.results import ExportResult, Receipt

#: Namespace of export ids; changing it would make every session a new export.
_EXPORT_IDS = uuid.UUID("6f0d4c36-5c5c-5a7e-9d0f-2f6f5b1c7a10")
_SHA1_OF_NAMESPACE = hashlib.sha1(_EXPORT_IDS.bytes, usedforsecurity=False)


#: What NexusLIMS's ``AcquisitionActivity`` knows beside files and times; kept in ``extra`` under these names.
ACTIVITY_DETAILS = ("unique_params", "setup_params", "unique_meta", "warnings")


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


@lru_cache(maxsize=4096)  # asked for several times in every delivery
def export_id_of(instrument_pid: str, session_identifier: str) -> str:
    """Return the id of a session's export, whether or not it was submitted."""
    # `uuid.uuid5`, which hashes the namespace each time, and makes an object that is a text again at once.
    sha1 = _SHA1_OF_NAMESPACE.copy()
    sha1.update(f"{instrument_pid}\n{session_identifier}".encode())
    hexed = sha1.hexdigest()
    variant = "89ab"[int(hexed[16], 16) & 3]
    return f"{hexed[:8]}-{hexed[8:12]}-5{hexed[13:16]}-{variant}{hexed[17:20]}-{hexed[20:32]}"


class Artifact(_Wire):
    """One file of the session with what is known of its content."""

    path: Path
    role: Literal["raw", "preview", "derived"] = "raw"
    media_type: str | None = None
    size: int | None = Field(None, ge=0, description="bytes")
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    mtime_ns: int | None = Field(None, description="fingerprint of a file too large to hash at submit")
    backend: str | None = None


class Activity(_Wire):
    """One acquisition activity: its files and their previews."""

    start: AwareDatetime | None = None
    end: AwareDatetime | None = None
    mode: str | None = None
    files: tuple[str, ...] = Field((), description="absolute; a file of several signals is listed once per signal")
    previews: tuple[Path | None, ...] = Field((), description="parallel to files; may be shorter")
    extra: dict[str, Any] = Field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        """Return what ``extra`` has of NexusLIMS's other attributes, so that its activity can be read as it is."""
        if name in ACTIVITY_DETAILS:
            empty: Any = {} if name == "setup_params" else []
            return self.extra.get(name, empty)
        if name == "meta":  # each file's whole metadata: what all share, and what is its own
            return [{**self.setup_params, **own} for own in self.unique_meta]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class ReservationEvent(_Wire):
    """The reservation behind a session, as NexusLIMS's harvester knows it."""

    experiment_title: str | None = None
    instrument: str | None = None
    last_updated: AwareDatetime | None = None
    username: str | None = None
    user_full_name: str | None = None
    user_email: str | None = None
    user_first_name: str | None = None
    user_last_name: str | None = None
    created_by: str | None = None
    created_by_full_name: str | None = None
    start_time: AwareDatetime | None = None
    end_time: AwareDatetime | None = None
    reservation_type: str | None = None
    experiment_purpose: str | None = None
    sample_details: tuple[str | None, ...] | None = None
    sample_pid: tuple[str | None, ...] | None = None
    sample_name: tuple[str | None, ...] | None = None
    sample_elements: tuple[tuple[str, ...] | None, ...] | None = None
    project_name: tuple[str | None, ...] | None = None
    project_id: tuple[str | None, ...] | None = None
    project_ref: tuple[str | None, ...] | None = None
    internal_id: str | None = None
    division: str | None = None
    group: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class _InLedger:
    """What the ledger alone knows of a context, so no part of the wire form."""

    revision: int
    previous_receipts: dict[str, Receipt]


class ExportContext(_Wire):
    """Everything a destination may need to know about one finished session.

    Raises
    ------
    InvalidInput
        From `parse` and `from_nexus_record`: names the field and the cure.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_version: Literal["labrelay.export_context/1"] = Field(default=CONTEXT_SCHEMA, alias="schema")
    xml_file_path: Path = Field(description="the record; its stem is the title at some destinations")
    xml_size: int | None = Field(None, ge=0, description="bytes")
    xml_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    session_identifier: str = Field(min_length=1, max_length=500)
    instrument_pid: str = Field(min_length=1, max_length=500)
    dt_from: AwareDatetime
    dt_to: AwareDatetime
    user: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    previous_results: dict[str, ExportResult] = Field(default_factory=dict)
    activities: tuple[Activity, ...] = ()
    reservation_event: ReservationEvent | None = None
    artifacts: tuple[Artifact, ...] = Field((), description="filled by the manifest at submit")

    @field_validator("dt_to")
    @classmethod
    def _ends_after_it_starts(cls, dt_to: datetime, info: ValidationInfo) -> datetime:
        if "dt_from" in info.data and dt_to < info.data["dt_from"]:
            msg = "lies before dt_from"
            raise ValueError(msg)
        return dt_to

    @property
    def export_id(self) -> str:
        """Deterministic id: one session of one instrument is one export, however often it is submitted."""
        return export_id_of(self.instrument_pid, self.session_identifier)

    @property
    def revision(self) -> int:
        """How often this session was submitted with new content."""
        return self._in_ledger.revision

    @property
    def previous_receipts(self) -> dict[str, Receipt]:
        """Receipts of the revision before, by destination."""
        return self._in_ledger.previous_receipts

    @property
    def delivery_key(self) -> str:
        """The same for every try of one revision: what receivers recognise a repetition by."""
        return f"{self.export_id}.{self.revision}"

    @property
    def _in_ledger(self) -> _InLedger:
        # A private attribute in all but the time that pydantic takes to make one whenever a context is read.
        known: _InLedger | None = (self.__pydantic_private__ or {}).get("in_ledger")
        return known or _InLedger(1, {})

    def of_revision(self, revision: int, previous_receipts: dict[str, Receipt]) -> ExportContext:
        """Return the context as the ledger numbers it, for a worker to deliver."""
        return self.model_copy()._number(revision, previous_receipts)

    def _number(self, revision: int, previous_receipts: dict[str, Receipt]) -> ExportContext:
        object.__setattr__(self, "__pydantic_private__", {"in_ledger": _InLedger(revision, previous_receipts)})
        return self

    def with_results(self, results: dict[str, ExportResult]) -> ExportContext:
        """Return the context with what other destinations answered, beside what the submitter knew."""
        return self.with_fields(previous_results={**self.previous_results, **results})

    def with_fields(self, **fields: Any) -> ExportContext:
        """Return the context with other values, which are not checked."""
        # What `model_copy` does, without its half of a dozen checks: this is made for every delivery.
        changed = self.__class__.__new__(self.__class__)
        object.__setattr__(changed, "__dict__", {**self.__dict__, **fields})
        object.__setattr__(changed, "__pydantic_fields_set__", self.__pydantic_fields_set__ | fields.keys())
        object.__setattr__(changed, "__pydantic_extra__", None)
        object.__setattr__(changed, "__pydantic_private__", self.__pydantic_private__)
        return changed

    def get_result(self, destination_name: str) -> ExportResult | None:
        """Return the result of a destination that has run, else None."""
        return self.previous_results.get(destination_name)

    def add_result(self, destination_name: str, result: ExportResult) -> None:
        """Add or update the result of a destination."""
        self.previous_results[destination_name] = result

    def has_successful_export(self, destination_name: str) -> bool:
        """Return whether a destination has run and succeeded."""
        result = self.get_result(destination_name)
        return result is not None and result.success

    @classmethod
    def parse(cls, document: str | bytes | dict[str, Any], *, source: str = "context") -> ExportContext:
        """Validate a context from JSON text or a dictionary, with one-line errors that name field and cure."""
        try:
            if isinstance(document, dict):
                return cls.model_validate(document)
            return cls.model_validate_json(document)
        except ValidationError as error:
            raise explain(error, source) from None

    @classmethod
    def from_nexus_record(
        cls,
        path: str | Path,
        *,
        session_identifier: str | None = None,
        instrument_root: str | Path | None = None,
        preview_root: str | Path | None = None,
    ) -> ExportContext:
        """Build a context from a Nexus experiment record.

        Parameters
        ----------
        path
            The XML record.
        session_identifier
            The session it belongs to; default: the record's file stem.
        instrument_root
            Folder that the record's URL-encoded dataset locations are relative to.
        preview_root
            The same for its previews; without it no previews are named.
        """
        from labrelay.nexus_record import read_nexus_record  # noqa: PLC0415  pulls the XML parser on demand

        return cls.parse(
            read_nexus_record(
                Path(path),
                session_identifier=session_identifier,
                instrument_root=None if instrument_root is None else Path(instrument_root),
                preview_root=None if preview_root is None else Path(preview_root),
            ),
            source=str(path),
        )

    def to_json(self) -> str:
        """Return the wire form."""
        return self.model_dump_json(by_alias=True, exclude_none=True)
