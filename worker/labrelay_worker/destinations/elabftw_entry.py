"""What an experiment should be: rendered from a context, and compared with what the server has.

An experiment is recognised by the extra field `KEY_FIELD`, which is part of the request that makes it.
`REVISION_FIELD` and `RECORD_FIELD` are changed last, so they tell what the whole experiment holds.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from labrelay.context import ExportContext
from labrelay.errors import Rejected, Transient
from labrelay_worker.destinations.elabftw_answers import Attachment, Entry, JsonObject, Upload
from labrelay_worker.destinations.notebook_html import (
    file_list,
    is_web_address,
    link_list,
    previews,
    session_table,
)

KEY_FIELD, REVISION_FIELD, RECORD_FIELD = "labrelay key", "labrelay revision", "Record sha256"
RECORD_COMMENT, PREVIEW_COMMENT = "NexusLIMS XML record", "NexusLIMS preview"
KEPT_BELOW = "Written by labrelay; what is below this line is kept when the session is delivered again."

#: The server refuses more (4,120,000); some room is left for its own escaping.
LONGEST_BODY = 4_000_000
_LONGEST_TITLE = _LONGEST_TAG = 255
_GROUPS = ("Session", "labrelay")
_UNNAMEABLE = re.compile(r'[\x00-\x1f\x7f"/\\]')


@dataclass(frozen=True)
class Wanted:
    """One revision of a session as an experiment."""

    key: str
    title: str
    body: str
    #: Without the names of the files, for an experiment with very long notes.
    short_body: str
    tags: tuple[str, ...]
    fields: Mapping[str, JsonObject]
    links: Mapping[str, JsonObject]
    #: Destinations that delivered and have no address that could be linked to.
    unlinkable: frozenset[str]
    record: Attachment
    previews: tuple[Attachment, ...]
    revision: int
    #: Beginnings of the comments of uploads that are labrelay's to keep in order.
    kinds: tuple[str, ...]

    @property
    def files(self) -> tuple[Attachment, ...]:
        """What is to be attached."""
        return (self.record, *self.previews)

    @property
    def metadata(self) -> JsonObject:
        """The metadata of a new experiment."""
        return merged({}, {**self.fields, **self.links})


def key_of(context: ExportContext, destination: str) -> str:
    """Return what an experiment is recognised by: the same for every revision, another for every destination."""
    return uuid.uuid5(uuid.UUID(context.export_id), destination).hex


def wanted(
    context: ExportContext,
    destination: str,
    *,
    links_to: Sequence[str],
    title_prefix: str,
    attach_previews: bool,
    max_upload: int,
) -> Wanted:
    """Return what the experiment of a context should be. Blocking: asks for the sizes of files.

    Raises
    ------
    Rejected
        The record is larger than the server takes. Previews that are so stay away: the record names them.
    Transient
        A file cannot be read on this worker at the moment.
    """
    key = key_of(context, destination)
    record = _attachment(context.xml_file_path, context.xml_size, context.xml_sha256, RECORD_COMMENT)
    if record.size > max_upload:
        raise Rejected(f"{record.path} has {record.size} bytes, max_upload is {max_upload}: nothing was sent")
    sizes = {artifact.path: artifact.size for artifact in context.artifacts}
    shown = previews(context) if attach_previews else []
    images = [_attachment(path, sizes.get(path), sha256, PREVIEW_COMMENT) for path, sha256 in shown]
    kept = {(image.name, image.sha256): image for image in images if image.size <= max_upload}
    return Wanted(
        key=key,
        title=f"{title_prefix}{context.xml_file_path.stem}"[:_LONGEST_TITLE],
        body=body_of(context, links_to),
        short_body=body_of(context, links_to, longest=0),
        tags=clean_tags(["NexusLIMS", context.instrument_pid, context.user or ""]),
        fields=_fields(context, key, record),
        links=_links(context, links_to),
        unlinkable=frozenset(n for n, r in context.previous_results.items() if r.success and not r.record_url),
        record=record,
        previews=tuple(kept.values()),
        revision=context.revision,
        kinds=(RECORD_COMMENT, PREVIEW_COMMENT) if attach_previews else (RECORD_COMMENT,),
    )


def body_of(context: ExportContext, links_to: Sequence[str], *, longest: int = LONGEST_BODY) -> str:
    """Return the main text, ending with the line below which people's notes are kept."""
    end = f"<hr><p>{KEPT_BELOW}</p>"
    head = session_table(context) + link_list(context, only=links_to)
    whole = head + file_list(context) + end
    if len(whole.encode()) <= longest:
        return whole
    return f"{head}<p>The record lists the files; their names are too many to stand here.</p>{end}"


def with_notes_of(stored: str, want: Wanted) -> str:
    """Return a new main text with what people wrote below the line of the stored one.

    Where the line is gone, the whole stored text is kept: a text too many is better than a note lost.
    """
    _, line, below = stored.partition(KEPT_BELOW)
    notes = re.sub(r"^\s*</p>", "", below) if line else stored
    together = f"{want.body}{notes}"
    return together if len(together.encode()) <= LONGEST_BODY else f"{want.short_body}{notes}"


def link_field(name: str) -> str:
    """Return the extra field that holds the link to a destination's record."""
    return "CDCS Record" if name == "cdcs" else f"Record at {name}"


def _links(context: ExportContext, links_to: Iterable[str]) -> dict[str, JsonObject]:
    results = {name: context.get_result(name) for name in links_to}
    return {
        link_field(name): _address(r.record_url, f"the session's record in {name}")
        for name, r in results.items()
        if r is not None and r.success and r.record_url
    }


def unlinked(entry: Entry, want: Wanted, links_to: Iterable[str]) -> list[str]:
    """Return the destinations whose link an experiment lacks and may get."""
    possible = (name for name in links_to if name not in want.unlinkable)
    return [name for name in possible if not value_of(entry.metadata, link_field(name))]


def merged(stored: JsonObject, fields: Mapping[str, JsonObject], *, without: Iterable[str] = ()) -> JsonObject:
    """Return metadata with our fields set, those in `without` taken out, and everything else as it was.

    A field that is there keeps its place, group and description, which people may have changed; it gets the value.
    """
    present = {k: v for k, v in _object(stored.get("extra_fields")).items() if k not in set(without)}
    own = _object(stored.get("elabftw"))
    groups = list(own.get("extra_fields_groups") or [])
    ids = {str(group.get("name")): group.get("id") for group in groups if isinstance(group, dict)}
    for name in _GROUPS:
        if name not in ids:
            ids[name] = 1 + max((i for i in ids.values() if isinstance(i, int)), default=0)
            groups.append({"id": ids[name], "name": name})
    for position, (name, field) in enumerate(fields.items(), start=1):
        old = present.get(name)
        if isinstance(old, dict):
            present[name] = old | {"type": field["type"], "value": field["value"]}
        else:
            group = "labrelay" if name in (KEY_FIELD, REVISION_FIELD, RECORD_FIELD) else "Session"
            present[name] = {**field, "group_id": ids[group], "position": position}
    elabftw = {"display_main_text": True, **own, "extra_fields_groups": groups}
    return {**stored, "elabftw": elabftw, "extra_fields": present}


def value_of(metadata: JsonObject, field: str) -> str:
    """Return the value of an extra field as text; empty if there is none."""
    value = _object(_object(metadata.get("extra_fields")).get(field)).get("value")
    return "" if value is None else str(value)


def revision_of(entry: Entry) -> int:
    """Return the revision that an experiment says it holds; 0: it does not say."""
    text = value_of(entry.metadata, REVISION_FIELD)
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0


def is_current(entry: Entry, want: Wanted) -> bool:
    """Return whether title, text and metadata are those of this revision."""
    same_record = value_of(entry.metadata, RECORD_FIELD) == want.record.sha256
    return revision_of(entry) == want.revision and same_record


def missing_files(entry: Entry, want: Wanted) -> list[Attachment]:
    """Return what is still to be attached."""
    return [file for file in want.files if not any(upload.holds(file) for upload in entry.uploads)]


def superseded(entry: Entry, want: Wanted) -> list[Upload]:
    """Return the uploads of ours that nothing needs: earlier revisions, broken ones, second copies."""
    needed = {next((upload.id for upload in entry.uploads if upload.holds(file)), "") for file in want.files}
    return [up for up in entry.uploads if up.comment.startswith(want.kinds) and up.id not in needed]


def is_whole(entry: Entry, want: Wanted) -> bool:
    """Return whether an experiment holds this very revision and nothing is left to do."""
    return is_current(entry, want) and not missing_files(entry, want) and not superseded(entry, want)


def clean_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return tags as the server keeps them (``TagParam``): no backslash, no bar; each once, none empty."""
    plain = (re.sub(r"[\x00-\x1f\x7f|]", " ", tag.replace("\\", "")) for tag in tags)
    cleaned = (tag.strip()[:_LONGEST_TAG].strip() for tag in plain)
    return tuple({folded(tag): tag for tag in cleaned if tag}.values())


def missing_tags(entry: Entry, want: Wanted) -> list[str]:
    """Return the tags an experiment lacks; case and accents do not count, for the server folds them."""
    present = {folded(tag) for tag in entry.tags}
    return [tag for tag in want.tags if folded(tag) not in present]


def folded(tag: str) -> str:
    """Return a tag as the server compares it."""
    decomposed = unicodedata.normalize("NFKD", tag.casefold())
    return "".join(char for char in decomposed if not unicodedata.combining(char))


def _fields(context: ExportContext, key: str, record: Attachment) -> dict[str, JsonObject]:
    offsets = dict.fromkeys([_offset(context.dt_from), _offset(context.dt_to)])
    machine: JsonObject = {"readonly": True, "blank_value_on_duplicate": True}
    fields = {
        "Session ID": _address(context.session_identifier, "as the reservation system knows the session"),
        "Instrument": _field("text", context.instrument_pid, "persistent identifier"),
        "Start Time": _field("datetime-local", _wall_clock(context.dt_from), "when the session began"),
        "End Time": _field("datetime-local", _wall_clock(context.dt_to), "when the session ended"),
        # The type datetime-local knows no time zone.
        "UTC Offset": _field("text", ", ".join(offsets), "of start and end time"),
    }
    if context.user:
        fields["User"] = _field("text", context.user, "who measured")
    return {
        **fields,
        KEY_FIELD: _field("text", key, "how labrelay finds this entry") | machine,
        REVISION_FIELD: _field("number", str(context.revision), "of the session, as it was delivered") | machine,
        RECORD_FIELD: _field("text", record.sha256, "of the attached record") | machine,
    }


def _field(kind: str, value: str, description: str) -> JsonObject:
    return {"type": kind, "value": value, "description": description}


def _address(text: str, description: str) -> JsonObject:
    return _field("url" if is_web_address(text) else "text", text, description)


def _wall_clock(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="seconds")


def _offset(moment: datetime) -> str:
    return moment.isoformat()[len(moment.replace(tzinfo=None).isoformat()) :]


def _attachment(path: Path, size: int | None, sha256: str | None, comment: str) -> Attachment:
    try:
        if size is None:
            size = path.stat().st_size
        if sha256 is None:  # not hashed at submit
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        text = f"cannot read {path} on this worker ({error.strerror}); is its share mounted here?"
        raise Transient(text) from None
    return Attachment(path, _UNNAMEABLE.sub("_", path.name), size, sha256, f"{comment} (sha256 {sha256})")


def _object(value: object) -> JsonObject:
    return dict(value) if isinstance(value, dict) else {}
