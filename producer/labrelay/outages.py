"""Which errors of Redis say that it serves nobody for now: the call may be repeated, and succeeds when it is back."""

from __future__ import annotations

import re

from labrelay.redaction import redact

#: Codes of a server that serves nobody for now. A script's error carries the code in the middle of its text, or has
#: lost it to the class, by the age of the server.
_CODES = re.compile(r"\b(OOM|LOADING|READONLY|UNBLOCKED|MASTERDOWN|MISCONF|NOREPLICAS|CLUSTERDOWN|TRYAGAIN|BUSY)\b")


def said(error: Exception) -> str:
    """Return what Redis said; a pipeline's error begins with the whole command, and so with the context."""
    return str(error).rpartition("of pipeline caused error: ")[2]


def is_full(error: Exception) -> bool:
    """Return whether Redis refuses writes because its memory is full.

    redis-py takes the code OOM off the text of Redis 7 and makes it a class; Redis 6 wraps it in the script's error.
    """
    import redis  # noqa: PLC0415  `import labrelay` must not load it

    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return True
    return isinstance(error, redis.exceptions.ResponseError) and "-OOM " in said(error)


def is_demoted(error: Exception) -> bool:
    """Return whether this server is a replica by now: another one takes writes, and new connections lead there."""
    import redis  # noqa: PLC0415

    if isinstance(error, redis.exceptions.ReadOnlyError):
        return True
    return isinstance(error, redis.exceptions.ResponseError) and "READONLY" in said(error)


def is_outage(error: Exception) -> bool:
    """Return whether Redis is away, silent, loading, full, demoted, or cannot write to its disk."""
    from redis import exceptions  # noqa: PLC0415

    by_class = (
        exceptions.ConnectionError,
        exceptions.TimeoutError,
        exceptions.OutOfMemoryError,
        exceptions.ReadOnlyError,
        exceptions.ClusterDownError,
        exceptions.TryAgainError,
    )
    if isinstance(error, by_class):
        return True
    return isinstance(error, exceptions.ResponseError) and _CODES.search(said(error)) is not None


def is_forbidden(error: Exception) -> bool:
    """Return whether this user of Redis may not do that."""
    from redis.exceptions import NoPermissionError  # noqa: PLC0415

    # Of a script, Redis 7 says it in words of its own.
    words = said(error)
    return isinstance(error, NoPermissionError) or "NOPERM" in words or "The user executing the script" in words


def explain(error: Exception) -> tuple[str, str]:
    """Return why Redis serves nobody, and the cure."""
    if is_full(error):
        return "its memory is full", "free memory or raise maxmemory"
    if is_demoted(error):
        reason = "it was made a replica, and another server takes the writes"
        return reason, "if this goes on, let LABRELAY_REDIS_URL lead there"
    if "MISCONF" in said(error):
        return "it cannot write to its disk", "free space there; its log says more"
    return redact(said(error)), "start it or correct LABRELAY_REDIS_URL"
