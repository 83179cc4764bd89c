"""Checks that what scripts wrote is still there after a restart of the server."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from labrelay.doctor.findings import Finding, error, note
from labrelay.doctor.redis_rights import user_of
from labrelay.errors import LedgerUnavailable
from labrelay.ledger import connect
from labrelay.redaction import redact

if TYPE_CHECKING:
    from labrelay.doctor.examining import Patient

#: These versions check, as they read their append-only file, whether the user `default` may do what a script or a
#: transaction wrote (redis/redis #14541). 6.2.14 does not, 7.0.15 does (both tried); the repair, #14545, was merged
#: after 8.4 had been branched off.
_FROM, _REPAIRED = (7, 0), (8, 6)
#: One command for each kind of data that a script of the ledger writes.
_WRITES = (
    ("HSET", "probe", "1"),
    ("ZADD", "1", "probe"),
    ("LPUSH", "probe"),
    ("SADD", "probe"),
    ("SET", "1"),
    ("DEL",),
)


@dataclass(frozen=True)
class RestartFacts:
    """What a server says of how it would read its file.

    Parameters
    ----------
    where
        Its address without credentials.
    user
        Who asked.
    info
        The fields of INFO; empty: not told to this user.
    refused
        What ``default`` may not do, in the server's words; "" if it may do all. None: not told to this user.
    """

    where: str
    user: str
    info: Mapping[str, str]
    refused: str | None


def check(patient: Patient) -> Iterator[Finding]:
    """Ask the server what its default user may do; nothing is run for that."""
    import redis  # noqa: PLC0415  `import labrelay` must not load it

    settings = patient.settings
    try:
        where = redact(settings.resolve_redis_url())
        with connect(settings) as client:
            info = {str(name): str(value) for name, value in cast("dict[str, object]", client.info()).items()}
            facts = RestartFacts(where, user_of(client), info, _refused(client, f"{settings.key_prefix}probe"))
    except (LedgerUnavailable, redis.exceptions.RedisError, OSError):
        return  # the check of the server says so, or INFO is not for this user
    yield from judge(facts)


def judge(facts: RestartFacts) -> Iterator[Finding]:
    """Find a default user for whose lack of rights the server would drop exports."""
    numbers = tuple(map(int, re.findall(r"\d+", facts.info.get("redis_version", ""))[:2]))
    if facts.info.get("aof_enabled") != "1" or not _FROM <= numbers < _REPAIRED:
        return
    drops = "this version drops, without a word, what scripts wrote when it is restarted: every export"
    allow = "ACL SETUSER default resetpass ~* &* +@all"
    if facts.refused:
        problem = f"its user default may not do everything ({facts.refused}); so {drops}"
        repair = f"Before the next restart run {allow} (with `off` nobody can log in as it), and put it into its file"
        yield error("redis.drops", facts.where, problem, repair)
    elif facts.refused is None and facts.user != "default":
        problem = f"user {facts.user} may not see whether default may do everything; if not, {drops}"
        repair = f"Run ACL SETUSER {facts.user} +acl|dryrun, or look with ACL GETUSER default as an administrator"
        yield note("redis.drops-unseen", facts.where, problem, repair)


def _refused(client: redis.Redis, key: str) -> str | None:  # type: ignore[name-defined]  # noqa: F821
    import redis  # noqa: PLC0415

    try:
        for command, *arguments in _WRITES:
            said = str(client.execute_command("ACL DRYRUN", "default", command, key, *arguments))
            if said != "OK":
                return redact(said)
    except redis.exceptions.ResponseError:
        return None  # an older server, or no right to ask
    return ""
