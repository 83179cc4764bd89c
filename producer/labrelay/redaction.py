"""Take secrets out of anything that may be kept or shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

MASK = "[redacted]"

#: Words that make a name secret wherever it holds them (``clientSecret``, ``access_token``), …
_TELLING = (
    r"pass(?:word|wd|phrase)|secret|token|(?:api|access|private)[_-]?key|credentials?|signature|authorization|cookie"
)
#: … and those that do so only as a word of their own: ``sig``, but neither ``signal`` nor ``design``. A user id is
#: half of a credential at some services.
_SHORT = r"pass|pwd|sig|akid|uid|user[_-]?id|auth"
# Every repetition is bounded: error texts are foreign, and a pattern must not hang on one.
_NAME = (
    rf"(?<![\w-])(?:[\w-]{{0,80}}(?:{_TELLING})|(?:[\w-]{{0,80}}[_-])?(?:{_SHORT}))(?:[_-][\w-]{{0,40}})?(?![\w-])"
)
_SEPARATOR = r"\\?['\"]?\s{0,3}[=:]\s{0,3}\\?['\"]?"
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^/\s'\"]*@")
_HEADER = re.compile(rf"(?i)\b(authorization|x-api-key|cookie|set-cookie)({_SEPARATOR})[^\r\n'\",}}]+")
#: A credential has a digit, capitals inside, or great length; the next word of a sentence has not.
_BEARER = re.compile(
    r"\b((?i:bearer|basic|token))\s{1,3}(?=\S{0,200}\d|\S{0,200}[a-z]\S{0,200}[A-Z]|\S{24})[A-Za-z0-9._~+/=-]{8,}"
)
_PAIR = re.compile(rf"(?i)({_NAME}{_SEPARATOR})(?!{re.escape(MASK)})[^\s&;'\",}})]+")
#: Without any of these no pattern for names and headers matches: a line of a log is looked through in a microsecond
#: instead of sixty.
_HINTS = (
    "pass", "secret", "token", "key", "credential", "signature", "auth", "cookie", "pwd", "sig", "akid", "uid",
    "user", "bearer", "basic",
)  # fmt: skip
#: Beyond ASCII, the letters that equal an ASCII one when case does not matter, in ways that `lower` does not know.
_ALIAS = re.compile("[\u0130\u0131\u017f\u212a]")
_LONGEST_TEXT, _LONGEST_LOOKED_AT = 2000, 20_000


class Redactor:
    """Masks known secret values, and whatever looks like a credential.

    Parameters
    ----------
    secrets
        Values from the settings; those shorter than four characters are left to the patterns, because
        masking them would make every text unreadable.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {s for s in secrets if len(s) >= 4}  # noqa: PLR2004
        self._secrets = sorted(known | {quote(s, safe="") for s in known}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return the text without secrets, shortened to 2000 characters."""
        text = text[:_LONGEST_LOOKED_AT]
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        if "@" in text:
            text = _USERINFO.sub(f"{MASK}@", text)
        if _is_plain(text):
            return _shortened(text)
        text = _HEADER.sub(rf"\1\2{MASK}", text)
        text = _BEARER.sub(rf"\1 {MASK}", text)
        text = _PAIR.sub(rf"\1{MASK}", text)
        return _shortened(text)


def _is_plain(text: str) -> bool:
    # Every line that tells how an export stands has a dot or an arrow that is not ASCII.
    if not text.isascii() and _ALIAS.search(text):
        return False
    folded = text.lower()
    for hint in _HINTS:  # noqa: SIM110  a generator would cost more than all the looks: this is asked for every text
        if hint in folded:
            return False
    return True


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + " …"


redact = Redactor()


def is_secret_name(name: str) -> bool:
    """Return whether what has this name is a secret.

    Examples
    --------
    >>> is_secret_name("NX_CDCS_TOKEN"), is_secret_name("NX_CDCS_URL")
    (True, False)
    """
    return _SECRET_NAME.fullmatch(name) is not None


def mask_table(value: Any) -> Any:
    """Return settings without secrets: values of telling names, all headers, and what looks like one in a text."""
    if isinstance(value, Mapping):
        return {key: _mask_item(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [mask_table(item) for item in value]
    return redact(value) if isinstance(value, str) else value


def _mask_item(key: str, item: Any) -> Any:
    if key.lower() == "headers":
        # An environment variable gives them as one text.
        return dict.fromkeys(item, MASK) if isinstance(item, Mapping) else MASK
    if isinstance(item, Mapping):
        return mask_table(item)
    return MASK if is_secret_name(key) else mask_table(item)
