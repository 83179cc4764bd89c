"""How servers are trusted and how a client proves itself: the same options for every destination that speaks HTTP."""

from __future__ import annotations

import ssl
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from labrelay.errors import Misconfigured


class TlsOptions(BaseModel):
    """How servers are trusted and how this client proves itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ca_file: Path | None = Field(None, description="PEM bundle of the authorities to trust, in place of the system's")
    client_cert: Path | None = Field(None, description="PEM of the client certificate and its key")
    verify: bool = Field(True, description="False accepts any certificate: never outside a test")

    def context(self) -> ssl.SSLContext | bool:
        """Return what aiohttp wants.

        Raises
        ------
        Misconfigured
            A named file cannot be read as certificates, or its key is encrypted.
        """
        if self == TlsOptions():
            return True
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.client_cert is not None:
                context.load_cert_chain(self.client_cert, password=_no_passphrase)
        except (OSError, ssl.SSLError) as error:
            raise Misconfigured(
                f"tls: cannot read the certificates ({error}); correct ca_file or client_cert"
            ) from None
        if not self.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def ssl_context(self) -> ssl.SSLContext:
        """Return the context for connections of our own; raises as `context`."""
        context = self.context()
        if isinstance(context, ssl.SSLContext):
            return context
        return ssl.create_default_context()


def _no_passphrase() -> str:
    # Without an answer from here, the TLS library would ask in the terminal and hold up the whole worker meanwhile.
    raise Misconfigured(
        "tls: the key in client_cert is encrypted, and nobody is there to type its passphrase; give one that is not"
        " (`openssl pkey -in KEY -out PLAIN`), readable by the worker's user alone"
    )
