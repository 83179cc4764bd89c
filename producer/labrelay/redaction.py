"""Take secrets out of anything that may be kept or shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

MASK = "[redacted]"

_SENSITIVE = (
    r"(?:pass(?:word|wd|phrase)?|secret|token|api[_-]?key|access[_-]?key|credential|signature|sig|akid|uid|auth)"
)
_SECRET_NAME = re.compile(_SENSITIVE, re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^/\s@]*@")
_HEADER = re.compile(r"(?i)\b(authorization|x-api-key|cookie|set-cookie)(['\"]?\s*[:=]\s*['\"]?)[^\r\n'\",}]+")
_BEARER = re.compile(r"(?i)\b(bearer|basic|token)\s+[A-Za-z0-9._~+/=-]{8,}")
_PAIR = re.compile(
    rf"(?i)([?&;\s,{{(]|^)(['\"]?[\w-]*{_SENSITIVE}[\w-]*['\"]?\s*[=:]\s*['\"]?)(?!{re.escape(MASK)})[^\s&;'\",}})]+"
)
_LONGEST_TEXT = 2000


class Redactor:
    """Masks known secret values, and whatever looks like a credential.

    Parameters
    ----------
    secrets
        Values from the settings; those shorter than four characters are left to the patterns, because
        masking them would make every text unreadable.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = sorted({s for s in secrets if len(s) >= 4}, key=len, reverse=True)  # noqa: PLR2004

    def __call__(self, text: str) -> str:
        """Return the text without secrets, shortened to 2000 characters."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        text = _USERINFO.sub(f"{MASK}@", text)
        text = _HEADER.sub(rf"\1\2{MASK}", text)
        text = _BEARER.sub(rf"\1 {MASK}", text)
        text = _PAIR.sub(rf"\1\2{MASK}", text)
        return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + " …"


redact = Redactor()


def mask_table(value: Any) -> Any:
    """Return settings with the values of secret-looking names masked, however deep they lie."""
    if isinstance(value, Mapping):
        return {
            key: MASK if _SECRET_NAME.search(str(key)) and not isinstance(item, Mapping) else mask_table(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [mask_table(item) for item in value]
    return _USERINFO.sub(f"{MASK}@", value) if isinstance(value, str) else value
