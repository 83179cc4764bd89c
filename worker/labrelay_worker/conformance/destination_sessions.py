"""Sessions for conformance tests: records and files on disk, contexts as a worker gets them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from labrelay.context import ExportContext
from labrelay.manifest import make_manifest
from labrelay.nexus_xml import NAMESPACE
from labrelay.results import Receipt
from labrelay.settings import ProducerSettings

_HUNDRED = "0123456789" * 10

#: Names that people and instruments give, by what is odd about them.
ODD_NAMES: Mapping[str, str] = {
    "unicode": "Probe Ω 試料 é 🔬",
    "decomposed": "Å o\N{COMBINING DIAERESIS} e\N{COMBINING ACUTE ACCENT}",
    "long": _HUNDRED * 3,
    "quotes": 'it\'s "quoted" `so` and „so“',
    "separators": "a/b\\c/../d:e|f;g,h",
    "markup": "<script>alert(1)</script> & <b>&amp;</b> ]]> %20 {{x}} ${y}",
    "blanks": "  two  blanks  ",
}
_LONGEST_FILE_NAME = 200
_IMAGE = b"\x00\xff\r\n" * 250


def nexus_record(title: str) -> bytes:
    """Return a small record, valid against the Nexus experiment schema, with CRLF line ends and non-ASCII text."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<Experiment xmlns="{NAMESPACE}">',
        f"  <title>{escape(title)} Å</title>",
        f"  <summary ref={quoteattr(title)}><experimenter>Ω Müller</experimenter></summary>",
        "</Experiment>",
        "",
    ]
    return "\r\n".join(lines).encode()


class Sessions:
    """Writes sessions, each with an instrument and a user of its own unless told otherwise.

    Parameters
    ----------
    folder
        Where records and files go.
    record
        Makes the bytes of a record from a title.
    """

    def __init__(self, folder: Path, record: Callable[[str], bytes] = nexus_record) -> None:
        self._folder, self._record = folder, record
        self._settings = ProducerSettings(home=folder, settle_seconds=0, data_roots=(), path_map={})
        self._count = 0

    def make(
        self,
        *,
        record: bytes | None = None,
        record_name: str = "",
        file: bytes = _IMAGE,
        **fields: Any,
    ) -> ExportContext:
        """Return the context of a new session with one data file.

        Parameters
        ----------
        record
            Its record's bytes; default: one as this object makes them.
        record_name
            Its record's file name; what a file system cannot hold is replaced.
        file
            Content of its data file.
        fields
            Fields of the context that differ from an ordinary one.
        """
        self._count += 1
        number = self._count
        folder = self._folder / f"session-{number}"
        folder.mkdir(parents=True)
        path = folder / _file_name(record_name or f"record-{number}.xml")
        path.write_bytes(self._record(f"Session {number}") if record is None else record)
        data = folder / "image 1.raw"
        data.write_bytes(file)
        user = f"user{number}"
        return self._completed(
            {
                "xml_file_path": str(path),
                "session_identifier": f"session-{number}",
                "instrument_pid": f"Instrument-{number}",
                "dt_from": "2026-11-20T10:00:00+01:00",
                "dt_to": "2026-11-20T11:00:00+01:00",
                "user": user,
                "reservation_event": {"username": user, "user_full_name": f"Å {user}"},
                "activities": [{"files": [str(data)], "previews": []}],
                **fields,
            }
        )

    def odd(self, name: str) -> ExportContext:
        """Return a session that has such a name wherever people give names; logins are given by machines."""
        return self.make(
            record_name=name,
            session_identifier=name,
            instrument_pid=name,
            user=name,
            reservation_event={"username": "user0", "user_full_name": name, "experiment_title": name},
        )

    def next_revision(self, context: ExportContext, receipt: Receipt | None) -> ExportContext:
        """Change the record of a session, and return its next revision."""
        revision = context.revision + 1
        context.xml_file_path.write_bytes(self._record(f"{context.session_identifier}, revision {revision}"))
        previous = {} if receipt is None else {receipt.destination: receipt}
        return make_manifest(context, self._settings).context.of_revision(revision, previous)

    def _completed(self, document: dict[str, Any]) -> ExportContext:
        return make_manifest(ExportContext.parse(document), self._settings).context


def _file_name(name: str) -> str:
    safe = name.replace("/", "_").encode()[:_LONGEST_FILE_NAME].decode(errors="ignore")
    return safe if safe.endswith(".xml") else f"{safe}.xml"
