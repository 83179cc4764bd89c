"""Secrets planted in settings, and every place where one must not come up again."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import redis
from click.testing import CliRunner

from labrelay.cli import main

TOKEN = "tok-5ecret-value-0123456789"
HEADER = "hdr-5ecret-value-0123456789"
IN_URL = "sig-5ecret-value-0123456789"
PASSWORD = "pwd-5ecret-value-0123456789"
SECRETS = (TOKEN, HEADER, IN_URL, PASSWORD)
#: So many characters of a secret in a row give it away.
_TELLING = 12


def everything_in_redis(client: redis.Redis) -> str:
    """Return every key and value of the server as text, and what is packed in them."""
    read = {
        "string": client.get,
        "hash": client.hgetall,
        "list": lambda key: client.lrange(key, 0, -1),
        "zset": lambda key: client.zrange(key, 0, -1),
        "set": client.smembers,
    }
    text = "\n".join(f"{key} {read[client.type(key)](key)}" for key in client.keys("*"))
    return "\n".join([text, *_unpacked(text)])


def _unpacked(text: str) -> Iterator[str]:
    """Yield what compressed texts hold: zlib's, as base64."""
    for packed in re.findall(r"eJ[\w+/]{20,}={0,2}", text):
        with suppress(ValueError, zlib.error):
            yield zlib.decompress(base64.b64decode(packed)).decode()


def everything_in_files(folder: Path) -> str:
    """Return all files below a folder as text."""
    return "\n".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


def said_by_command(line: str, **environment: str) -> str:
    """Return all that a command prints."""
    answer = CliRunner(env=environment).invoke(main, line.split())
    assert answer.exit_code == 0, answer.output
    return answer.output


def leaks(places: Mapping[str, str | None]) -> list[str]:
    """Return where a planted secret can be read; a place that could not be looked at is one too."""
    unread = [f"{place} was not read" for place, text in places.items() if not text]
    return unread + [f"{s} in {place}" for place, text in places.items() for s in SECRETS if text and _shows(text, s)]


def _shows(text: str, secret: str) -> bool:
    # A table may break a secret in two.
    return any(secret[start : start + _TELLING] in text for start in range(len(secret) - _TELLING + 1))
