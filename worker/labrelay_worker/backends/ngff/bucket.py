"""An object store (S3 and its like) as keys and bytes, with the errors of the backends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from labrelay_worker.backends.base import (
    AlreadyExists,
    NotADirectory,
    NotFound,
    OutsideRoot,
    Unavailable,
    Unsupported,
    clean,
)
from labrelay_worker.backends.ngff.codecs import Buffer

_TIMEOUT = "60s"
#: Of a large object: bytes of a part at least, the most parts there may be (Amazon S3 User Guide, "multipart upload
#: limits"), and how many are in memory at a time.
_PART, _MOST_PARTS, _PARTS_AT_ONCE = 8 * 2**20, 10_000, 4
_RETRY: Mapping[str, Any] = {"max_retries": 3}


class Changed(Exception):
    """An object is not the version that was to be replaced."""


class Bucket:
    """Objects below a prefix.

    Parameters
    ----------
    url
        ``s3://bucket/prefix``; also ``gs://``, ``az://`` and ``memory://`` as obstore has them. Credentials come
        from the environment (``AWS_ACCESS_KEY_ID`` …) or from the machine's role, never from options.
    endpoint, region
        Of S3-like services; ``http://`` only where it is written so.
    verify
        Send checksums that the service compares.
    """

    def __init__(
        self, url: str, *, endpoint: str | None = None, region: str | None = None, verify: bool = True
    ) -> None:
        self.url = url.rstrip("/")
        self._options = _options(url, endpoint, region, verify=verify)
        self._made: Any = None

    @property
    def store(self) -> Any:
        """The store of obstore, made on first use: it connects from threads, which no fork survives."""
        if self._made is None:
            from obstore.store import MemoryStore, from_url  # noqa: PLC0415

            with self._translated(""):
                self._made = MemoryStore() if self.url.startswith("memory:") else from_url(self.url, **self._options)
        return self._made

    def close(self) -> None:
        """Let go of connections; the next use makes new ones."""
        if not self.url.startswith("memory:"):
            self._made = None

    def key(self, address: Any) -> str:
        """Return the key of an address; empty: the prefix itself. Raises OutsideRoot, Unsupported."""
        text, parts = clean(address), list[str]()
        for part in text.split("/"):
            if part == "..":
                if not parts:
                    msg = f"{text}: leads out of the root {self.url}; refused"
                    raise OutsideRoot(msg)
                parts.pop()
            elif part not in {"", "."}:
                parts.append(part)
        return "/".join(parts)

    def put(self, key: str, pieces: Sequence[Buffer], *, new: bool = False, version: str | None = None) -> None:
        """Write an object; with `new` only where there is none, with `version` only over that one (Changed)."""
        import obstore  # noqa: PLC0415

        mode: Any = "create" if new else {"e_tag": version} if version else "overwrite"
        content = bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
        with self._translated(key):
            try:
                # In one request: parts would be visible to nobody either, but could not be conditional.
                obstore.put(self.store, key, content, mode=mode, use_multipart=False)
            except obstore.exceptions.PreconditionError as error:
                raise Changed(key) from error
            except obstore.exceptions.AlreadyExistsError as error:
                raise AlreadyExists(f"{key}: there is something here already") from error

    def put_large(self, key: str, pieces: Iterable[bytes], size: int) -> None:
        """Write an object of about so many bytes in parts, over what was there; it is visible when all are there.

        What `pieces` raises is raised here, and nothing was written then.
        """
        import obstore  # noqa: PLC0415

        part = max(_PART, -(-size // (_MOST_PARTS - 1)))
        with self._translated(key):
            obstore.put(self.store, key, pieces, use_multipart=True, chunk_size=part, max_concurrency=_PARTS_AT_ONCE)

    def pieces(self, key: str) -> Iterator[bytes]:
        """Yield an object piece by piece. Raises NotFound."""
        import obstore  # noqa: PLC0415

        with self._translated(key):
            for piece in obstore.get(self.store, key).stream():
                yield bytes(piece)

    def get(self, key: str) -> bytes:
        """Return an object. Raises NotFound."""
        return self.get_version(key)[0]

    def get_version(self, key: str) -> tuple[bytes, str | None]:
        """Return an object and its version. Raises NotFound."""
        import obstore  # noqa: PLC0415

        with self._translated(key):
            found = obstore.get(self.store, key)
            return bytes(found.bytes()), found.meta["e_tag"]

    def spans(self, key: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return parts of an object: offset and length in bytes, a negative offset from the end."""
        import obstore  # noqa: PLC0415

        result = []
        with self._translated(key):
            for start, length in spans:
                if start < 0:
                    found = obstore.get(self.store, key, options={"range": {"suffix": -start}}).bytes()
                else:
                    found = obstore.get_range(self.store, key, start=start, length=length)
                result.append(bytes(found))
        return result

    def size(self, key: str) -> int | None:
        """Return the bytes of an object; None: there is none."""
        import obstore  # noqa: PLC0415

        try:
            with self._translated(key):
                return int(obstore.head(self.store, key)["size"]) if key else None
        except NotFound:
            return None

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return bytes by key, relative to the prefix, of every object below it."""
        import obstore  # noqa: PLC0415

        found: dict[str, int] = {}
        start = len(prefix) + 1 if prefix else 0
        with self._translated(prefix):
            for page in obstore.list(self.store, prefix or None, chunk_size=1000):
                for entry in page:
                    found[entry["path"][start:]] = int(entry["size"])
        return found

    def any_below(self, prefix: str) -> bool:
        """Return whether there is an object below a prefix."""
        import obstore  # noqa: PLC0415

        with self._translated(prefix):
            page = next(iter(obstore.list(self.store, prefix or None, chunk_size=1)), [])
            return len(page) > 0

    def require_folders(self, key: str) -> None:
        """Raise NotADirectory when there is an object where a directory is needed for this key."""
        for parent in PurePosixPath(key).parents:
            if parent.name and self.size(str(parent)) is not None:
                raise file_in_the_way(key)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are gone already do not matter."""
        import obstore  # noqa: PLC0415

        if keys:
            with self._translated(keys[0]):
                obstore.delete(self.store, list(keys))

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the store."""
        import obstore  # noqa: PLC0415

        with self._translated(source):
            obstore.copy(self.store, source, target, overwrite=True)

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            msg = f"{key}: there is nothing at this address"
            raise NotFound(msg) from error
        except ValueError as error:
            msg = f"{key}: an object store cannot hold this name ({_first_line(error)})"
            raise Unsupported(msg) from error
        except Exception as error:
            if not type(error).__module__.startswith("obstore"):
                raise
            refused = type(error).__name__ in {"PermissionDeniedError", "UnauthenticatedError"}
            cure = "give the worker credentials for it" if refused else "it is tried again later"
            msg = f"{self.url}: {_first_line(error)}; {cure}"
            raise Unavailable(msg) from error


def file_in_the_way(key: str) -> NotADirectory:
    """Return the error of a key that has an object in the place of a directory."""
    return NotADirectory(f"{key}: a directory is needed, and a file is in its place")


def retried(step: Callable[[], None], tries: int = 100) -> None:
    """Repeat a read-change-write of one object until nobody came in between. Raises Unavailable."""
    for _ in range(tries):
        try:
            step()
        except (Changed, AlreadyExists):
            continue
        return
    msg = "an object is being changed by other workers all the time; it is tried again later"
    raise Unavailable(msg)


def _options(url: str, endpoint: str | None, region: str | None, *, verify: bool) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if url.startswith("memory:"):
        return options
    if endpoint:
        options["endpoint"] = endpoint
    if region:
        options["region"] = region
    if url.startswith("s3:") and verify:
        options["checksum_algorithm"] = "SHA256"
    allow_http = bool(endpoint and endpoint.startswith("http://"))
    return {**options, "client_options": {"timeout": _TIMEOUT, "allow_http": allow_http}, "retry_config": _RETRY}


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split("Debug source:")[0].split())[:300]
