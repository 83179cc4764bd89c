"""The server is shared: the first user of a folder starts it, the last one to let go shuts it down."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from labrelay.errors import BootError
from labrelay_worker.embedded.locks import is_running, locked, open_lock, try_exclusive, wait_until
from labrelay_worker.embedded.server import STOP_SECONDS, address, forget, launch, read, shut_down, why_no_answer

_START_SECONDS = 60.0
_LOG_LINES = 8


class EmbeddedRedis:
    """One user's hold on the embedded server of a folder; the last one to let go shuts it down.

    Parameters
    ----------
    folder
        Where the server keeps its append-only file, log, locks and ``url`` (``settings.embedded_folder``).
    patience
        Seconds to wait for a server that starts or still loads its data.

    Examples
    --------
    >>> with EmbeddedRedis(settings.embedded_folder) as url:  # doctest: +SKIP
    ...     client = redis.Redis.from_url(url)
    """

    def __init__(self, folder: Path, *, patience: float = _START_SECONDS) -> None:
        self.folder = folder.absolute()
        self._patience = patience
        self._hold: IO[bytes] | None = None
        self._owner = 0

    def __enter__(self) -> str:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> str:
        """Start the server of this folder, or join the one that runs, and return its address.

        Calling it again is harmless, and brings back a server that was killed meanwhile.

        Raises
        ------
        BootError
            There is no ``redis-server``, the folder cannot be used, or the server does not come up.
        """
        with locked(self.folder, self._patience + 2 * STOP_SECONDS):
            hold = open_lock(self.folder, "users")
            try:
                fcntl.flock(hold, fcntl.LOCK_SH)
                url = self._join_or_launch()
            except BaseException:
                hold.close()
                raise
            if self._hold is not None:
                self._hold.close()
            self._hold, self._owner = hold, os.getpid()
            return url

    def stop(self) -> None:
        """Let go of the server; without other users it is shut down, with its data on disk.

        Raises
        ------
        LabrelayError
            The server did not end in time; the text names its process.
        """
        hold, self._hold = self._hold, None
        if hold is None:
            return
        with hold:
            if self._owner != os.getpid():
                return  # a forked copy: the hold belongs to the process that took it
            # Closing alone would leave the hold with processes forked meanwhile.
            fcntl.flock(hold, fcntl.LOCK_UN)
        stop_embedded(self.folder)

    def _join_or_launch(self) -> str:
        url = address(self.folder)
        refusal = self._await_answer(url)
        # Two servers on one append-only file would destroy it, so the lock decides, not the silence.
        if refusal is not None and not is_running(self.folder):
            url = launch(self.folder)
            refusal = self._await_answer(url)
        if refusal is not None:
            raise BootError(self._explain(refusal))
        fresh = self.folder / "url.new"
        fresh.write_text(f"{url}\n")
        fresh.replace(self.folder / "url")
        return url

    def _await_answer(self, url: str) -> str | None:
        """Return None once the server answers, or why it does not when it ended or took too long."""
        refusal: str | None = None

        def settled() -> bool:
            nonlocal refusal
            refusal = why_no_answer(url)
            return refusal is None or not is_running(self.folder)

        wait_until(settled, self._patience)
        return refusal

    def _explain(self, refusal: str) -> str:
        log = self.folder / "redis.log"
        last = "\n  ".join([f"Last lines of {log}:", *read(log).splitlines()[-_LOG_LINES:]])
        if not is_running(self.folder):
            return f"the embedded Redis ended while starting. {last}"
        pid = read(self.folder / "pid") or "unknown"
        return (
            f"the embedded Redis (process {pid}) does not answer after {self._patience:g} s ({refusal}). If it is "
            f"loading its data, start again later; else end it with `kill {pid}`, it keeps its data. {last}"
        )


def stop_embedded(folder: Path) -> bool:
    """Shut the server of a folder down unless somebody uses it.

    Returns
    -------
    bool
        Whether no server runs any more; False means that other users remain.

    Raises
    ------
    LabrelayError
        The server did not end in time; the text names its process.
    """
    if not folder.is_dir():
        return True
    with locked(folder, _START_SECONDS + 2 * STOP_SECONDS), open_lock(folder, "users") as users:
        if not try_exclusive(users):
            return False
        if is_running(folder):
            shut_down(folder)
        forget(folder)
        return True
