"""Where a viewer is found: its note with endpoint and token, its lock, its socket. All in one private folder.

The lock says whether a viewer of this name lives; the note may be that of a killed one. Nothing here ends a process.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from labrelay.errors import InvalidInput, LabrelayError
from labrelay.names import VIEWER_SCHEMA
from labrelay.settings import ProducerSettings, load_settings
from labrelay_worker.private_folders import NotPrivate, make_private, socket_path

_LOCK_TRIES, _LOCK_PAUSE = 5, 0.02
_NAME = re.compile(r"[A-Za-z0-9][\w-]{0,40}")


class ViewerAway(LabrelayError):
    """No viewer of ours can be talked to; the text says why and what to do. Nothing was harmed."""

    exit_code = 3


class ViewerRuns(LabrelayError):
    """A viewer of this name runs already."""

    exit_code = 6


@dataclass(frozen=True)
class Note:
    """What a running viewer says of itself to those who may read its folder."""

    endpoint: str
    token: str
    viewer: str
    pid: int
    schema: str = VIEWER_SCHEMA


@dataclass(frozen=True)
class Place:
    """The files of one viewer name.

    Parameters
    ----------
    name
        The viewer's name, e.g. "napari".
    folder
        The viewers' folder, default ``LABRELAY_HOME/viewers``.
    """

    name: str
    folder: Path

    @classmethod
    def of(cls, name: str, home: str | Path | None = None) -> Place:
        """Return the place of a name. Raises InvalidInput for a name that is no plain word."""
        if not _NAME.fullmatch(name):
            raise InvalidInput("viewer", f"{name!r} is no name for a viewer", "Use letters, digits, - and _")
        base = Path(home).expanduser().absolute() if home else load_settings(ProducerSettings).home
        return cls(name, base / "viewers")

    @property
    def note_file(self) -> Path:
        """The note."""
        return self.folder / f"{self.name}.json"

    @property
    def log_file(self) -> Path:
        """Where a viewer that a worker started writes its log."""
        return self.folder / f"{self.name}.log"

    def socket_endpoint(self) -> str:
        """Return the ZeroMQ address of the private Unix socket."""
        with _private_or_away():
            return f"ipc://{socket_path(self.folder, f'{self.name}.sock')}"

    def new_note(self, endpoint: str, viewer: str) -> Note:
        """Return a note with a fresh token."""
        return Note(endpoint, secrets.token_hex(32), viewer, os.getpid())

    def write(self, note: Note) -> None:
        """Write the note, readable by this user only, at once."""
        partial = self.folder / f".{self.name}.{os.getpid()}.partial"
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(note), file)
        partial.replace(self.note_file)

    def read(self) -> Note:
        """Return the note of the last viewer of this name.

        Raises
        ------
        ViewerAway
            There is none, or others could have read or written it.
        """
        try:
            descriptor = os.open(self.note_file, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise ViewerAway(f"no viewer {self.name!r} runs for this user; {self.start_hint()}") from None
        except OSError as error:
            raise ViewerAway(f"{self.note_file} cannot be read ({error.strerror}); {self.start_hint()}") from None
        with os.fdopen(descriptor) as file:
            status = os.fstat(descriptor)
            if status.st_uid != os.geteuid() or status.st_mode & 0o077:
                raise ViewerAway(
                    f"{self.note_file} is not private to this user; remove it and start the viewer again"
                )
            try:
                fields = json.load(file)
                note = Note(**fields)
            except (ValueError, TypeError) as error:
                raise ViewerAway(f"{self.note_file} is damaged; start the viewer again") from error
        if note.schema != VIEWER_SCHEMA:
            raise ViewerAway(f"the viewer {self.name!r} is of another version of labrelay; start it again")
        return note

    def start_hint(self) -> str:
        """Return how a viewer of this name is started."""
        kind = self.name if self.name in ("napari", "imagej") else f"napari|imagej --name {self.name}"
        return f"start one with `labrelay viewer {kind}`"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the one viewer of this name; note and socket go with it.

        Raises
        ------
        ViewerRuns
            There is one already.
        """
        make_viewer_folder(self.folder)
        descriptor = os.open(self.folder / f"{self.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _lock(descriptor):
                raise ViewerRuns(f"a viewer {self.name!r} runs already; use --name for a second one")
            # A killed viewer leaves both behind; nobody else makes files here.
            self._remove()
            yield
            self._remove()
        finally:
            os.close(descriptor)

    def is_held(self) -> bool:
        """Return whether a viewer of this name lives, be it frozen."""
        try:
            descriptor = os.open(self.folder / f"{self.name}.lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _remove(self) -> None:
        self.note_file.unlink(missing_ok=True)
        with suppress(OSError):
            Path(self.socket_endpoint().removeprefix("ipc://")).unlink(missing_ok=True)


def _lock(descriptor: int) -> bool:
    # `is_held` takes the lock for an instant, too; that must not look like a running viewer.
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE)
        else:
            return True
    return False


def make_viewer_folder(folder: Path) -> None:
    """Make a folder that only this user can enter; raises `ViewerAway` where there is none to be had."""
    with _private_or_away():
        make_private(folder)


@contextmanager
def _private_or_away() -> Iterator[None]:
    try:
        yield
    except NotPrivate as error:
        raise ViewerAway(f"{error}; `chmod 700` it, or set LABRELAY_HOME to a folder of yours") from None
