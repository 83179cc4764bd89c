"""Checks that Redis answers, and keeps what it is given."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from labrelay.doctor.findings import Finding, error, warning
from labrelay.errors import LedgerUnavailable
from labrelay.ledger import connect
from labrelay.redaction import redact

if TYPE_CHECKING:
    from labrelay.doctor.examining import Patient

OLDEST = (6, 2)
_SKEW_SECONDS = 5.0
_NEARLY = 0.9
_CONF = "deploy/redis.conf has all that is needed"


@dataclass(frozen=True)
class RedisFacts:
    """What a server says of itself; what it does not tell this user is missing.

    Parameters
    ----------
    where
        Its address without credentials.
    info
        The fields of INFO.
    save
        The setting ``save``; None: not told.
    skew
        Seconds that this machine's clock is ahead of the server's.
    is_open
        Whether it is on another machine and asks for no password.
    """

    where: str
    info: Mapping[str, str] = field(default_factory=dict)
    save: str | None = None
    skew: float = 0.0
    is_open: bool = False


def check(patient: Patient) -> Iterator[Finding]:
    """Ask the server."""
    import redis  # noqa: PLC0415  `import labrelay` must not load it

    try:
        url = patient.settings.resolve_redis_url()
    except LedgerUnavailable:
        problem = "none is configured, and the embedded one does not run: producers use their outbox"
        yield error("redis.none", "Redis", problem, "Run `labrelay up`, or set LABRELAY_REDIS_URL")
        return
    where = redact(url)
    client = connect(patient.settings)
    try:
        client.ping()
        yield from judge(_facts(client, where, is_open=is_open(url)))
    except (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError) as trouble:
        problem = f"it refuses this user or password ({redact(str(trouble))})"
        yield error("redis.refused", where, problem, "Correct user and password in LABRELAY_REDIS_URL")
    except (redis.exceptions.RedisError, OSError) as trouble:
        problem = f"it does not answer ({redact(str(trouble))}): producers use their outbox, nothing is delivered"
        yield error("redis.unreachable", where, problem, "Start it, or correct LABRELAY_REDIS_URL")
    finally:
        client.close()


def judge(facts: RedisFacts) -> Iterator[Finding]:
    """Find what makes a server lose, refuse or tell too much."""
    yield from _version(facts)
    yield from _persistence(facts)
    yield from _memory(facts)
    if facts.info.get("role", "master") != "master":
        problem = "it is a replica: it refuses every write"
        yield error("redis.replica", facts.where, problem, "Name the primary in LABRELAY_REDIS_URL")
    if abs(facts.skew) > _SKEW_SECONDS:
        direction = "ahead of" if facts.skew > 0 else "behind"
        yield warning(
            "clock.skew",
            facts.where,
            f"this machine's clock is {abs(facts.skew):.0f} s {direction} that of Redis: times in logs and records "
            "mislead, signed requests (LabArchives, S3) and certificates may be refused",
            "Have both machines keep time by NTP (chronyd or systemd-timesyncd)",
        )
    if facts.is_open:
        problem = "it asks for no password: whoever reaches it can read and change every export"
        repair = "Set up users (deploy/users.acl) and name one in LABRELAY_REDIS_URL"
        yield warning("redis.open", facts.where, problem, repair)


def is_open(url: str) -> bool:
    """Return whether an address leads to another machine without a password."""
    parts = urlsplit(url)
    local = parts.scheme == "unix" or parts.hostname in {"localhost", "::1"} or (parts.hostname or "")[:4] == "127."
    return not local and not parts.password


def _version(facts: RedisFacts) -> Iterator[Finding]:
    said = facts.info.get("redis_version", "")
    numbers = tuple(map(int, re.findall(r"\d+", said)[:2]))
    if numbers and numbers < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        problem = f"it is version {said}; Celery and the ledger's scripts need {oldest}"
        yield error("redis.old", facts.where, problem, f"Install Redis {oldest} or newer; it reads the old data")


def _persistence(facts: RedisFacts) -> Iterator[Finding]:
    if "aof_enabled" in facts.info and facts.info["aof_enabled"] != "1":
        repair = f"Run CONFIG SET appendonly yes, and write it into its configuration ({_CONF})"
        if facts.save:
            problem = f"it has snapshots alone (save {facts.save}): a crash loses what came after the last"
        else:
            problem = "it keeps nothing on disk: a restart loses every export"
        yield error("redis.forgets", facts.where, problem, repair)
    failing = [name for name in _WRITES if facts.info.get(name, "ok") != "ok"]
    if failing:
        problem = f"it cannot write its data to disk ({', '.join(failing)}): a restart loses exports"
        yield error("redis.disk", facts.where, problem, "Free space on its disk and look into its log")


_WRITES = ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")


def _memory(facts: RedisFacts) -> Iterator[Finding]:
    policy, limit = facts.info.get("maxmemory_policy", "noeviction"), int(facts.info.get("maxmemory", "0"))
    if policy != "noeviction":
        problem = f"maxmemory-policy is {policy}: a full server deletes exports and wake-ups without a word"
        repair = f"Run CONFIG SET maxmemory-policy noeviction, and write it into its configuration ({_CONF})"
        yield error("redis.evicts", facts.where, problem, repair)
    used = int(facts.info.get("used_memory", "0"))
    if limit and used >= limit * _NEARLY:
        problem = f"it uses {used / limit:.0%} of maxmemory: then it refuses every submit and every receipt"
        yield error("redis.full", facts.where, problem, "Raise maxmemory, or lower LABRELAY_RETENTION_DAYS")


def _facts(client: redis.Redis, where: str, *, is_open: bool) -> RedisFacts:  # type: ignore[name-defined]  # noqa: F821
    import redis  # noqa: PLC0415

    info: dict[str, str] = {}
    save: str | None = None
    before = time.time()
    seconds, microseconds = cast("tuple[int, int]", client.time())
    skew = (before + time.time()) / 2 - (seconds + microseconds / 1e6)
    try:
        info = {str(name): str(value) for name, value in cast("dict[str, object]", client.info()).items()}
        save = str(cast("dict[str, object]", client.config_get("save")).get("save", ""))
    except redis.exceptions.ResponseError:
        pass  # not told to this user: the least rights do not need it
    return RedisFacts(where, info, save, skew, is_open)
