"""How requests to LabArchives are signed. Pure.

The query carries ``akid``, ``expires`` (the time in milliseconds: a clock, not an expiry) and ``sig``, the base64
HMAC-SHA-512 with the access password over akid + method + expires. The method is named without its class; parameters
and body are not signed (LabArchives API, "Call authentication").
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote


@dataclass(frozen=True)
class Credentials:
    """Who signs. `user_id` belongs to `access_key_id` alone; empty while logging in."""

    access_key_id: str = field(repr=False)
    access_password: str = field(repr=False)
    user_id: str = field(default="", repr=False)

    def signature(self, method: str, expires: int) -> str:
        """Return the base64 signature of a method at a time, milliseconds since 1970."""
        message = f"{self.access_key_id}{method}{expires}".encode()
        digest = hmac.new(self.access_password.encode(), message, hashlib.sha512).digest()
        return base64.b64encode(digest).decode()

    def query(self, method: str, expires: int, parameters: Mapping[str, str]) -> str:
        """Return the signed query, each value percent-encoded once."""
        who = {"uid": self.user_id} if self.user_id else {}
        sig = self.signature(method, expires)
        return encoded({**who, **parameters, "akid": self.access_key_id, "expires": str(expires), "sig": sig})


def encoded(parameters: Mapping[str, str]) -> str:
    """Return a query, each value percent-encoded once."""
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
