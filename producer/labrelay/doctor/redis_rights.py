"""Checks that this user of Redis may do what labrelay needs, on a key of its own that is gone afterwards."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from labrelay.doctor.findings import Finding, error, note
from labrelay.ledger import connect
from labrelay.names import Keys
from labrelay.redaction import redact
from labrelay.settings import ProducerSettings

if TYPE_CHECKING:
    from labrelay.doctor.examining import Patient

#: What a submit, a status and a cancel need; `{}` is a hash that exists while it is tried. Calls that would leave
#: something behind are wrong on purpose: the right to make a call is asked for before its arguments are looked at.
PRODUCER_NEEDS: Mapping[str, Sequence[str]] = {
    "HDEL": ("{}", "nothing"),
    "HSET": ("{}", "probe", "1"),
    "HINCRBY": ("{}", "probe", "1"),
    "HGET": ("{}", "probe"),
    "HMGET": ("{}", "probe"),
    "HGETALL": ("{}",),
    "HKEYS": ("{}",),
    "HEXISTS": ("{}", "probe"),
    "ZADD": ("{}", "no number", "probe"),
    "ZREM": ("{}", "probe"),
    "ZCARD": ("{}",),
    "ZREVRANGE": ("{}", "0", "1"),
    "ZRANGEBYSCORE": ("{}", "0", "1"),
    "RPUSH": ("{}", "probe"),
    "LPUSH": ("{}", "probe"),
    "LRANGE": ("{}", "0", "1"),
    "LTRIM": ("{}", "0", "1"),
    "TIME": (),
}

#: Of what anybody needs: these change nothing, so they are tried before anything else.
_READS = frozenset({
    "GET", "HEXISTS", "HGET", "HGETALL", "HKEYS", "HMGET", "LLEN", "LRANGE", "TIME", "ZCARD", "ZCOUNT",
    "ZRANGEBYSCORE", "ZREVRANGE", "ZREVRANGEBYSCORE", "ZSCORE",
})  # fmt: skip

#: HDEL comes first of what writes: without it nothing is written that could not be taken away again. A user who may
#: only read a key may not name it to EVAL; then it comes among the arguments.
_SCRIPT = """
local refused, key = {}, KEYS[1] or ARGV[2]
local function named() return key end
for line in string.gmatch(ARGV[1], '[^\\n]+') do
  local call = {}
  for word in string.gmatch(line, '[^\\t]+') do call[#call + 1] = string.gsub(word, '{}', named) end
  if not (refused['HDEL'] and call[1] ~= 'HDEL') then
    local answer = redis.pcall(unpack(call))
    if type(answer) == 'table' and answer.err then refused[call[1]] = answer.err end
  end
end
if not refused['HDEL'] then redis.pcall('HDEL', key, 'probe') end
local told = {}
for name, why in pairs(refused) do told[#told + 1] = name .. '\\t' .. why end
return told
"""
_NO_COMMAND = re.compile(r"can't run|no permissions to run|unknown command", re.IGNORECASE)
_NO_KEY = re.compile(r"can't access at least one of the keys|no permissions to access", re.IGNORECASE)


def check(patient: Patient) -> Iterator[Finding]:
    """Try what a producer needs."""
    yield from find_missing(patient.settings, PRODUCER_NEEDS, "submit")


def find_missing(settings: ProducerSettings, needs: Mapping[str, Sequence[str]], purpose: str) -> Iterator[Finding]:
    """Try commands as the user of the settings.

    Raises
    ------
    LedgerUnavailable
        There is no Redis.
    """
    import redis  # noqa: PLC0415  `import labrelay` must not load it

    with connect(settings) as client:
        reads_first = sorted(needs.items(), key=lambda need: need[0] not in _READS)
        lines = "\n".join("\t".join([name, *arguments]) for name, arguments in reads_first)
        key = Keys(settings.key_prefix).export(f"doctor-{uuid.uuid4()}")
        try:
            told = _try(client, lines, key)
        except (redis.exceptions.AuthenticationError, redis.exceptions.ConnectionError, OSError):
            return  # the check of the server says so
        except redis.exceptions.TimeoutError:
            return
        user = user_of(client)
    yield from judge(user, settings.key_prefix, [line.partition("\t")[::2] for line in told], purpose)


def _try(client: redis.Redis, lines: str, key: str) -> list[str]:  # type: ignore[name-defined]  # noqa: F821
    import redis  # noqa: PLC0415

    try:
        return cast("list[str]", client.eval(_SCRIPT, 1, key, lines))
    except redis.exceptions.NoPermissionError as trouble:
        said = str(trouble)  # redis-py takes the code off the text, and may put words of its own there
        if not _NO_KEY.search(said):
            return ["EVAL\tno permissions to run it"]
        return [f"EVAL\t{said}", *cast("list[str]", client.eval(_SCRIPT, 0, lines, key))]


def judge(user: str, prefix: str, refused: Iterable[tuple[str, str]], purpose: str) -> Iterator[Finding]:
    """Find commands and keys that a user may not use; other refusals are meant.

    Whoever may read all keys and write none is one for monitoring, which is no fault.
    """
    answers = [(name, why) for name, why in refused if _NO_COMMAND.search(why) or _NO_KEY.search(why)]
    if any(name == "EVAL" and _NO_KEY.search(why) for name, why in answers) and not _READS & dict(answers).keys():
        problem = f"user {user} may read the ledger and change nothing: it can neither submit nor run a worker"
        repair = "For monitoring that is right; elsewhere name the user of a producer or worker in LABRELAY_REDIS_URL"
        yield note("redis.read-only", user, problem, repair)
        return
    commands = sorted(name for name, why in answers if _NO_COMMAND.search(why))
    if commands:
        allow = " ".join(f"+{name.lower()}" for name in commands)
        problem = f"user {user} may not run {', '.join(commands)}, which it takes to {purpose}"
        repair = f"Run ACL SETUSER {user} {allow}, or take the users of deploy/users.acl"
        yield error("redis.rights", user, problem, repair)
    if any(_NO_KEY.search(why) for _, why in answers):
        problem = f"user {user} may not use the keys {prefix}*, which hold the ledger"
        repair = f"Run ACL SETUSER {user} ~{prefix}*, or correct LABRELAY_KEY_PREFIX"
        yield error("redis.keys", user, problem, repair)


def user_of(client: redis.Redis) -> str:  # type: ignore[name-defined]  # noqa: F821
    """Return who the server takes this client for."""
    import redis  # noqa: PLC0415

    try:
        return redact(str(client.acl_whoami()))
    except redis.exceptions.RedisError:
        return str(client.connection_pool.connection_kwargs.get("username") or "default")
