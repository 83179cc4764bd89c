"""What a worker refuses to touch: files outside ``data_roots`` and records that changed since submit."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from pathlib import Path

from labrelay.context import ExportContext
from labrelay.errors import Rejected, Transient
from labrelay.manifest import is_under

#: Destinations of one export start within so many seconds of each other; that long one look at the record counts.
_FRESH = 1.0

#: Where a record is, and what it was when it was submitted.
_Record = tuple[str, str | None]


class RecordGuard:
    """Checks records in threads: one for each record, however many destinations ask for it side by side.

    A share that hangs holds its thread until it answers, and no retry of the export takes another.

    Parameters
    ----------
    data_roots
        Folders that may be read from; empty: any.
    """

    def __init__(self, data_roots: tuple[Path, ...]) -> None:
        self._data_roots = data_roots
        self._running: dict[_Record, asyncio.Task[None]] = {}
        self._unchanged: dict[_Record, float] = {}

    async def require_unchanged(self, context: ExportContext, *, timeout: float) -> None:
        """Check one record, unless it was checked within the last second; see the function of the same name.

        Parameters
        ----------
        context
            Names the record and what it was when it was submitted.
        timeout
            Seconds to wait for its share.

        Raises
        ------
        Rejected
            It must not or cannot be delivered.
        Transient
            It cannot be read at the moment, or its share does not answer.
        """
        key, now = (str(context.xml_file_path), context.xml_sha256), asyncio.get_running_loop().time()
        if now - self._unchanged.get(key, float("-inf")) < _FRESH:
            return
        check = self._running.get(key)
        if check is None:
            check = asyncio.create_task(asyncio.to_thread(require_unchanged, context, self._data_roots))
            self._running[key] = check
            check.add_done_callback(lambda done: self._note(key, now, done))
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(check)
        except TimeoutError:
            text = f"{context.xml_file_path} cannot be read on this worker: its share has not answered for"
            raise Transient(f"{text} {timeout:g} s; the check goes on when it does") from None

    def _note(self, key: _Record, began: float, done: asyncio.Task[None]) -> None:
        del self._running[key]
        # Whoever waited for a failure may have gone: it is looked at, so that nobody logs it as forgotten.
        if done.cancelled() or done.exception() is not None:
            return
        while self._unchanged and began - next(iter(self._unchanged.values())) >= _FRESH:
            del self._unchanged[next(iter(self._unchanged))]
        self._unchanged.pop(key, None)
        self._unchanged[key] = began


def require_unchanged(context: ExportContext, data_roots: tuple[Path, ...]) -> None:
    """Check that every named file may be opened and that the record is the one that was submitted.

    Raises
    ------
    Rejected
        A file lies outside ``data_roots``, or the record has other content by now.
    Transient
        The record cannot be read on this worker at the moment.
    """
    for path in _paths(context) if data_roots else ():
        if not is_under(path, data_roots):
            raise Rejected(f"{path} lies outside data_roots; add its folder to LABRELAY_DATA_ROOTS on the workers")
    if context.xml_sha256 is None:
        return
    try:
        with context.xml_file_path.open("rb") as record:
            found = hashlib.file_digest(record, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Transient(
            f"cannot read {context.xml_file_path} on this worker ({reason}); is its share mounted here?"
        ) from None
    if found != context.xml_sha256:
        raise Rejected(f"{context.xml_file_path} changed since it was submitted; submit it again with --replace")


def _paths(context: ExportContext) -> Iterable[Path]:
    yield context.xml_file_path
    for artifact in context.artifacts:
        yield artifact.path
    for activity in context.activities:
        yield from map(Path, activity.files)
        yield from (preview for preview in activity.previews if preview is not None)
