"""TLS on real TLS servers, whose certificates an authority of the test's own has signed."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from repositories import Cdcs, Elabftw, LabArchives, Repository

from labrelay.context import ExportContext
from labrelay.errors import DeliveryError, Misconfigured
from labrelay_worker.conformance.destination_sessions import Sessions
from labrelay_worker.destinations.account import OwnAccount
from labrelay_worker.tls import TlsOptions

pytestmark = pytest.mark.integration

REPOSITORIES = [Cdcs, Elabftw, LabArchives]


class Site:
    """A facility with an authority of its own, and a repository behind its TLS."""

    def __init__(self, folder: Path, repository: Repository) -> None:
        self.repository, self.url = repository, ""
        self.authority = trustme.CA()
        self.ca_file, self.client_cert = folder / "ca.pem", folder / "labrelay.pem"
        self.authority.cert_pem.write_to_path(self.ca_file)
        self.authority.issue_cert("labrelay@example.org").private_key_and_cert_chain_pem.write_to_path(
            self.client_cert
        )

    def tls(self, *, name: str = "127.0.0.1", asks: bool = False) -> ssl.SSLContext:
        """Return how the server proves itself, and whether it asks the same of its clients."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert(name).configure_cert(context)
        if asks:
            context.verify_mode = ssl.CERT_REQUIRED
            self.authority.configure_trust(context)
        return context

    def call(self, do: Callable[[Any], Awaitable[Any]], **tls: Any) -> Any:
        """Return what one call of a destination with these options answers."""

        async def once() -> Any:
            destination = self.repository.destination(self.url, timeout=10, tls=tls)
            destination.account = OwnAccount()
            try:
                return await do(destination)
            finally:
                await destination.close()

        return asyncio.run(once())

    def check(self, **tls: Any) -> tuple[bool, str | None]:
        """Return what the destination says of its own settings."""
        answer: tuple[bool, str | None] = self.repository.destination(self.url, timeout=10, tls=tls).validate_config()
        return answer


@pytest.fixture(params=REPOSITORIES, ids=lambda kind: kind.__name__)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return Site(tmp_path, request.param())


@pytest.fixture
def served(site: Site, request: pytest.FixtureRequest) -> Iterator[Site]:
    options = getattr(request, "param", {})
    assert site.repository.server is not None
    with site.repository.server.thread(tls=site.tls(**options)) as thread:
        site.url = thread.url
        yield site


@pytest.fixture
def session(tmp_path: Path) -> ExportContext:
    return Sessions(tmp_path / "sessions").make()


def test_a_server_of_a_private_authority_is_trusted_by_its_ca_file(served: Site, session: ExportContext) -> None:
    # Given the authority's certificate in the settings
    tls = {"ca_file": str(served.ca_file)}
    assert served.check(**tls) == (True, None)
    # When a session is delivered, then it is there
    assert served.call(lambda destination: destination.export(session), **tls).success
    (kept,) = served.repository.kept(session)
    assert kept.record == session.xml_file_path.read_bytes()


@pytest.mark.parametrize(
    ("served", "knows", "reason"),
    [({}, False, "certificate"), ({"name": "other.example.org"}, True, "not valid for '127.0.0.1'")],
    indirect=["served"],
    ids=["unknown authority", "another name"],
)
def test_a_server_that_cannot_prove_itself_gets_nothing(
    served: Site, session: ExportContext, knows: bool, reason: str
) -> None:
    # Given a server whose authority is not known, or whose certificate is another server's
    tls = {"ca_file": str(served.ca_file)} if knows else {}
    # When it is checked, then it says what is wrong and what to do
    valid, text = served.check(**tls)
    assert not valid
    assert reason in (text or "")
    assert "tls.ca_file" in (text or "")
    # When a session is to be delivered, then the destination pauses, and no request was made
    with pytest.raises(Misconfigured, match="is not trusted"):
        served.call(lambda destination: destination.export(session), **tls)
    assert served.repository.server is not None
    assert served.repository.server.faults.seen == []


@pytest.mark.parametrize("served", [{"asks": True}], indirect=True, ids=["asks for certificates"])
@pytest.mark.parametrize("verify", [True, False])
def test_a_client_certificate_proves_labrelay(served: Site, session: ExportContext, verify: bool) -> None:
    # Given a server that takes requests only with a certificate of the authority
    tls = {"ca_file": str(served.ca_file), "verify": verify}
    # When there is none, then nothing comes through
    assert not served.check(**tls)[0]
    with pytest.raises(DeliveryError):
        served.call(lambda destination: destination.export(session), **tls)
    # When there is one, then the session arrives
    tls["client_cert"] = str(served.client_cert)
    assert served.check(**tls) == (True, None)
    assert served.call(lambda destination: destination.export(session), **tls).success


def test_nobody_is_asked_for_the_passphrase_of_an_encrypted_key(tmp_path: Path) -> None:
    # Given a client certificate whose key is encrypted
    issued = trustme.CA().issue_cert("labrelay@example.org")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), password=None)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    encrypted = key.private_bytes(*form, serialization.BestAvailableEncryption(b"passphrase"))
    client_cert = tmp_path / "labrelay.pem"
    client_cert.write_bytes(encrypted + b"".join(part.bytes() for part in issued.cert_chain_pems))
    # When it is to be used, then the text says what is wrong with it and what to do
    with pytest.raises(Misconfigured, match=r"key in client_cert is encrypted.*openssl pkey"):
        TlsOptions(client_cert=client_cert).context()


def test_verification_can_be_switched_off_and_says_so_loudly(
    served: Site, session: ExportContext, caplog: pytest.LogCaptureFixture
) -> None:
    # Given an authority that nobody knows, when verification is off
    with caplog.at_level(logging.WARNING):
        assert served.call(lambda destination: destination.export(session), verify=False).success
    # Then the session arrives, and the log says what that means and what to do instead
    (warning,) = [one.getMessage() for one in caplog.records if "verify = false" in one.getMessage()]
    assert "read and change" in warning
    assert "ca_file" in warning
