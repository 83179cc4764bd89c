"""How a worker and a viewer prove to each other that they belong together, before a pixel is sent.

Both know the token of the viewer's note (`places`), a file that only this user can read. Neither sends it: each
answers the other's fresh nonce with an HMAC-SHA256 (RFC 2104) that also covers the endpoint, so that a process which
holds another port cannot pass the questions on to the real viewer.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Literal

Side = Literal["viewer", "worker"]
NONCE_BYTES = 16


def new_nonce() -> str:
    """Return a fresh random challenge (hex)."""
    return secrets.token_hex(NONCE_BYTES)


def prove(token: str, side: Side, endpoint: str, worker_nonce: str, viewer_nonce: str) -> str:
    """Return the proof (hex) that this side knows the token.

    Parameters
    ----------
    token
        The secret both sides have read from the viewer's note.
    side
        Who proves; a proof of one side is none of the other.
    endpoint
        Where the viewer listens, as it says itself and as the worker dialled it.
    worker_nonce, viewer_nonce
        The challenges of this conversation.
    """
    text = "\n".join((side, endpoint, worker_nonce, viewer_nonce))
    return hmac.new(token.encode(), text.encode(), "sha256").hexdigest()


def is_proven(given: object, token: str, side: Side, endpoint: str, worker_nonce: str, viewer_nonce: str) -> bool:
    """Return whether a proof is right, in a time that does not depend on how wrong it is."""
    expected = prove(token, side, endpoint, worker_nonce, viewer_nonce)
    return isinstance(given, str) and given.isascii() and hmac.compare_digest(given, expected)
