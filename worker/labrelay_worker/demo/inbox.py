"""What the demo receiver has received: each key once, with the misbehaviour that a test scripted."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from labrelay_worker.demo.posted import Posted

#: Status of a request that got no answer.
NO_ANSWER = 0


@dataclass(frozen=True)
class Answer:
    """How the next request to a path is answered, once; what is not given stays as it would be.

    Parameters
    ----------
    status
        Status instead of the normal one. Under 400 the delivery is accepted first, otherwise it is not.
    headers
        Further headers.
    body
        Body instead of the normal one.
    drop
        Accept, then close the connection without answering: the sender cannot know.
    delay
        Seconds to wait between accepting and answering.
    accept
        Whether the delivery is stored, where that shall differ from what the status says.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | str | None = None
    drop: bool = False
    delay: float = 0.0
    accept: bool | None = None

    @property
    def accepts(self) -> bool:
        """Whether a delivery answered so is stored."""
        return (self.status is None or self.status < 400) if self.accept is None else self.accept  # noqa: PLR2004


@dataclass(frozen=True)
class Delivery:
    """One POST as it was received; ``accepted`` is False for a repetition and for what was refused."""

    key: str | None
    path: str
    export_id: str | None
    session: str | None
    content_type: str
    record_name: str | None
    record_sha256: str | None
    record_bytes: bytes = field(repr=False)
    accepted: bool
    status: int


@dataclass(frozen=True)
class Stored:
    """One accepted delivery and where it can be read back."""

    record_id: str
    url: str
    key: str | None
    path: str
    posted: Posted

    def summary(self) -> dict[str, Any]:
        """Return what the receiver says of it; id and url are the same however often it is asked."""
        return {
            "id": self.record_id,
            "url": self.url,
            "key": self.key,
            "path": self.path,
            "session": self.posted.session,
            "record": self.posted.record_name,
            "sha256": sha256_of(self.posted.record),
            "bytes": len(self.posted.record or b""),
        }


class Inbox:
    """Thread-safe memory of the receiver, and its optional files.

    Parameters
    ----------
    folder
        Where records are saved too.
    count_file
        Gets one JSON line per request; appended atomically, so that killed processes can be counted.
    on_accepted
        Called with the summary of each accepted delivery.
    """

    def __init__(
        self,
        *,
        folder: Path | None = None,
        count_file: Path | None = None,
        on_accepted: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self._folder, self._count_file, self._on_accepted = folder, count_file, on_accepted
        self._lock = threading.Lock()
        self._deliveries: list[Delivery] = []
        self._stored: dict[str, Stored] = {}
        self._scripts: dict[tuple[str, str], deque[Answer]] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def deliveries(self) -> list[Delivery]:
        """Every POST so far, in the order of arrival; a copy."""
        with self._lock:
            return list(self._deliveries)

    def script(self, path: str, answers: Iterable[Answer], *, method: str = "POST") -> None:
        """Line up answers for the next requests of one method to a path."""
        with self._lock:
            self._scripts.setdefault((method, path), deque()).extend(answers)

    def next_answer(self, method: str, path: str) -> Answer:
        """Take the next scripted answer; without one, requests are answered normally."""
        with self._lock:
            script = self._scripts.get((method, path))
            return script.popleft() if script else Answer()

    def accept(self, path: str, key: str | None, posted: Posted, base_url: str) -> tuple[Stored, bool]:
        """Store a delivery unless its key is known on this path; the flag says whether it is new."""
        record_id = uuid.uuid4().hex if key is None else hashlib.sha256(f"{path}\n{key}".encode()).hexdigest()[:32]
        with self._lock:
            known = self._stored.get(record_id)
            if known is not None:
                return known, False
            stored = Stored(record_id, f"{base_url}/records/{record_id}", key, path, posted)
            if self._folder is not None and posted.record is not None:
                _save(self._folder / f"{record_id}-{_safe_name(posted.record_name)}", posted.record)
            self._stored[record_id] = stored
            if self._on_accepted is not None:  # under the lock, so that lines do not mix
                self._on_accepted(stored.summary())
            return stored, True

    def note(self, delivery: Delivery) -> None:
        """Remember a POST."""
        with self._lock:
            self._deliveries.append(delivery)

    def count(self, method: str, path: str, key: str | None, status: int) -> None:
        """Append a request to the count file."""
        if self._count_file is None:
            return
        line = json.dumps({"method": method, "key": key, "path": path, "status": status}) + "\n"
        descriptor = os.open(self._count_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def stored(self, record_id: str) -> Stored | None:
        """Return an accepted delivery by its id."""
        with self._lock:
            return self._stored.get(record_id)

    def find(self, key: str, path: str | None = None) -> Stored | None:
        """Return the accepted delivery of a key, on one path or on any."""
        with self._lock:
            matching = (s for s in self._stored.values() if s.key == key and path in {None, s.path})
            return next(matching, None)


def sha256_of(record: bytes | None) -> str | None:
    """Return the checksum of a record, None when there is none."""
    return None if record is None else hashlib.sha256(record).hexdigest()


def _safe_name(name: str | None) -> str:
    """Return the last part of a sender's file name: it must not lead out of the folder."""
    last = PureWindowsPath(name or "").name.replace("\0", "").replace(":", "_")
    return last[-100:] or "record"


def _save(path: Path, record: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_bytes(record)
    unfinished.replace(path)
