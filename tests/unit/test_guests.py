"""What a class of the seed did is judged by its requests: nothing is doubled, nothing partial is called delivered."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from aiohttp import web
from tests.servers.base import TestServer
from urllib3.util import Retry, Timeout

from labrelay.context import ExportContext
from labrelay.errors import (
    DeliveryError,
    Misconfigured,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    Transient,
    Unavailable,
)
from labrelay.redaction import MASK, Redactor
from labrelay.results import ExportResult
from labrelay_worker.conformance.faults import Fault
from labrelay_worker.guests import deliver, failure, secrets_it_may_read
from labrelay_worker.http_answers import Answer
from labrelay_worker.watching import Effect, Exchange, effect_of, watching

SECRET = "5ecret-value-0123456789"


def exchange(effect: Effect, status: int | None, *, sent: bool = True, **headers: str) -> Exchange:
    answer = None if status is None else Answer(status, headers, b"")
    return Exchange("POST" if effect is Effect.MAKES else "GET", "h/x", effect, answer, sent)


READS, MAKES, PREPARES = Effect.READS, Effect.MAKES, Effect.PREPARES


@pytest.mark.parametrize(
    ("exchanges", "kind"),
    [
        # nothing was made: the last request says what to do
        ([exchange(READS, None)], Unavailable),
        ([exchange(READS, None, sent=False)], Unavailable),
        ([exchange(READS, 500)], Unavailable),
        ([exchange(READS, 503)], Unavailable),
        ([exchange(READS, 429)], RateLimited),
        ([exchange(READS, 401)], Misconfigured),
        ([exchange(READS, 404)], Misconfigured),
        ([exchange(READS, 200)], Transient),
        ([exchange(READS, 200), exchange(MAKES, None, sent=False)], Unavailable),
        ([exchange(READS, 200), exchange(MAKES, 403)], Misconfigured),
        ([exchange(READS, 200), exchange(MAKES, 302)], Misconfigured),
        ([exchange(READS, 200), exchange(MAKES, 413)], Rejected),
        ([exchange(READS, 200), exchange(MAKES, 429)], RateLimited),
        ([exchange(READS, 200), exchange(MAKES, 503, **{"Retry-After": "7"})], Unavailable),
        # a folder or a user is found again by the class itself
        ([exchange(PREPARES, 201), exchange(READS, 500)], Unavailable),
        ([exchange(PREPARES, None), exchange(READS, 200)], Transient),
        # something may be there
        ([exchange(MAKES, None)], OutcomeUnknown),
        ([exchange(MAKES, 500)], OutcomeUnknown),
        ([exchange(MAKES, 502)], OutcomeUnknown),
        ([exchange(MAKES, 503)], OutcomeUnknown),
        ([exchange(MAKES, 201), exchange(READS, 500)], OutcomeUnknown),
        ([exchange(MAKES, 201), exchange(MAKES, 413)], OutcomeUnknown),
        ([exchange(MAKES, None), exchange(READS, 401)], OutcomeUnknown),
    ],
)
def test_a_failure_is_typed_by_what_its_requests_show(exchanges: list[Exchange], kind: type[DeliveryError]) -> None:
    # When a class reports a failure after these requests, then this is what the engine must do about it
    error = failure(exchanges, "it failed")
    assert type(error) is kind
    assert str(error).startswith("it failed (") or kind is Transient


def test_a_server_that_names_a_time_is_obeyed() -> None:
    # When the last answer has a Retry-After, then the wait is that long
    error = failure([exchange(READS, 503, **{"Retry-After": "7"})], "busy")
    assert isinstance(error, Unavailable)
    assert error.retry_after == 7


@pytest.mark.parametrize(
    ("method", "url", "effect"),
    [
        ("GET", "https://h/rest/data/", READS),
        ("POST", "https://h/rest/data/", MAKES),
        ("PATCH", "https://h/rest/data/1/assign/2", MAKES),
        ("POST", "https://h/rest/user/", PREPARES),
        ("POST", "https://h/nexus/rest/data/query/", READS),
        ("GET", "https://h/api/tree_tools/get_tree_level?nbid=1", READS),
        ("GET", "https://h/api/tree_tools/insert_node?display_text=is_folder%3Dtrue&is_folder=false", MAKES),
        ("GET", "https://h/api/tree_tools/insert_node?is_folder=true&sig=x", PREPARES),
    ],
)
def test_an_effect_is_told_by_method_or_path(method: str, url: str, effect: Effect) -> None:
    assert effect_of(method, url) is effect


# --- with the real library and a real server -----------------------------------------------------------


class Taker(TestServer):
    """Takes everything."""

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_route("*", "/", self._take)

    def state(self) -> dict[str, Any]:
        return {}

    async def _take(self, request: web.Request) -> web.Response:
        return web.json_response({}, status=201 if request.method == "POST" else 200)


@pytest.fixture
def server() -> Iterator[tuple[Taker, str]]:
    taker = Taker()
    with taker.thread() as thread:
        yield taker, thread.url


@pytest.fixture
def context(make_context: Callable[..., ExportContext]) -> ExportContext:
    return make_context()


def call(export: Callable[[ExportContext], Any], context: ExportContext, seconds: float = 20.0) -> Any:
    return deliver(export, context, seconds=seconds, redact=Redactor([SECRET]))


def test_a_request_with_an_effect_is_never_repeated(server: tuple[Taker, str], context: ExportContext) -> None:
    # Given a class that repeats its POST on 502, and a server that keeps the first and then works
    taker, url = server
    taker.faults.plan(Fault("status", after=True, method="POST", status=502))

    def export(_: ExportContext) -> ExportResult:
        for _ in range(3):
            try:
                if requests.post(url).status_code == 201:
                    return ExportResult(success=True, destination_name="x")
            except requests.RequestException:
                continue
        return ExportResult(success=False, destination_name="x", error_message="gave up")

    # When it is called, then the server saw one, and the outcome is unknown
    with pytest.raises(OutcomeUnknown, match="answered 502"):
        call(export, context)
    assert len(taker.faults.seen) == 1


@pytest.mark.parametrize("timeout", [None, 60, (5, None), Timeout(60)], ids=["none", "long", "pair", "object"])
def test_a_request_lasts_no_longer_than_its_call(
    server: tuple[Taker, str], context: ExportContext, timeout: Any
) -> None:
    # Given a class without timeouts, or with longer ones, and a silent server
    taker, url = server
    taker.faults.plan(Fault("hang"))
    returned = threading.Event()

    def export(_: ExportContext) -> None:
        try:
            requests.get(url, timeout=timeout)
        finally:
            returned.set()

    # When it is called, then it comes back by itself, and its thread with it
    with pytest.raises(Unavailable):
        call(export, context, seconds=0.2)
    assert returned.is_set()


def test_nothing_is_sent_after_the_time_of_the_call(server: tuple[Taker, str], context: ExportContext) -> None:
    # Given a class that goes on after labrelay gave its call up
    taker, url = server

    def export(_: ExportContext) -> None:
        deadline = time.monotonic() + 0.01
        while time.monotonic() <= deadline:
            pass
        requests.post(url)

    # When it sends, then nothing leaves the machine
    with pytest.raises(requests.RequestException, match="took too long"):
        call(export, context, seconds=0.005)
    assert taker.faults.seen == []


def test_an_answer_that_cannot_be_read_counts_as_given(server: tuple[Taker, str], context: ExportContext) -> None:
    # Given a server that takes a record and answers with half a document
    taker, url = server
    taker.faults.plan(Fault("status", after=True, method="POST", status=201, body="{"))

    def export(_: ExportContext) -> ExportResult:
        try:
            requests.post(url).json()
        except requests.RequestException as error:
            return ExportResult(success=False, destination_name="x", error_message=str(error))
        raise AssertionError

    # When a class fails over it, then it is known that something was made
    with pytest.raises(OutcomeUnknown, match=r"POST .* answered 201: part of the record may be there"):
        call(export, context)


def test_a_server_that_is_not_there_has_seen_nothing(context: ExportContext) -> None:
    # Given a port that nobody listens on
    with Taker().thread() as thread:
        url = thread.url

    def export(_: ExportContext) -> ExportResult:
        try:
            requests.post(url)
        except requests.ConnectionError as error:
            return ExportResult(success=False, destination_name="x", error_message=str(error))
        raise AssertionError

    # When a class posts to it, then sending again is safe
    with pytest.raises(Unavailable, match="was not sent"):
        call(export, context)


def test_what_an_adapter_repeated_by_itself_was_sent(server: tuple[Taker, str], context: ExportContext) -> None:
    # Given a class whose session repeats what failed, and a server that fails
    taker, url = server
    taker.faults.plan(Fault("status", after=True, times=2, method="POST", status=500))

    def export(_: ExportContext) -> None:
        with requests.Session() as session:
            again = Retry(1, status_forcelist=[500], allowed_methods=None)
            session.mount("http://", requests.adapters.HTTPAdapter(max_retries=again))
            session.post(url)

    # When it gives up, then the record may be there
    with pytest.raises(OutcomeUnknown, match="lost its answer"):
        call(export, context)


@pytest.mark.parametrize(
    ("takes_the_request", "kind", "told"),
    [(True, OutcomeUnknown, "lost its answer"), (False, Unavailable, "was not sent")],
    ids=["damaged answer", "no handshake"],
)
def test_tls_that_breaks_has_sent_the_request_or_not(
    takes_the_request: bool, kind: type[DeliveryError], told: str, context: ExportContext, tmp_path: Path
) -> None:
    # Given a server whose TLS breaks: at the handshake, or when it has the request
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)

    def serve() -> None:
        connection, _ = listening.accept()
        if takes_the_request:
            with suppress(OSError), tls.wrap_socket(connection, server_side=True) as secure:
                while not secure.recv(4096).endswith(b"record"):
                    pass
                connection = socket.socket(fileno=os.dup(secure.fileno()))
        with connection:
            connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()

        def export(_: ExportContext) -> None:
            url = f"https://127.0.0.1:{listening.getsockname()[1]}/"
            requests.post(url, data=b"record", verify=str(tmp_path / "ca.pem"))

        # When a class posts to it, then that is told apart
        with pytest.raises(kind, match=told):
            call(export, context)
        thread.join()


def test_success_with_a_refused_last_step_is_not_a_delivery(
    server: tuple[Taker, str], context: ExportContext
) -> None:
    # Given a class that does not look at the answer of its last step
    taker, url = server
    taker.faults.plan(Fault("status", method="PATCH", status=403))

    def export(_: ExportContext) -> ExportResult:
        requests.post(url)
        requests.patch(url)
        return ExportResult(success=True, destination_name="x")

    # When it says success, then a person is asked to look
    with pytest.raises(OutcomeUnknown, match=r"PATCH .* answered 403"):
        call(export, context)


def test_what_a_class_logs_holds_no_secret(context: ExportContext, caplog: pytest.LogCaptureFixture) -> None:
    # Given a class that logs its errors with their traceback
    def export(_: ExportContext) -> ExportResult:
        try:
            raise ValueError(f"https://h/?sig=abc123&uid={SECRET}")
        except ValueError:
            logging.getLogger("foreign").exception("failed with %s", SECRET)
        return ExportResult(success=True, destination_name="x")

    # When it is called
    call(export, context)

    # Then text and traceback are there without the secret, and the logs of others stay as they are
    logging.getLogger("other").warning("says %s", SECRET)
    foreign, other = caplog.records
    assert MASK in foreign.getMessage()
    shown = f"{foreign.getMessage()} {logging.Formatter().format(foreign)}"
    assert SECRET not in shown
    assert "abc123" not in shown
    assert "ValueError" in shown
    assert other.getMessage() == f"says {SECRET}"


def test_calls_that_nobody_watches_are_as_they_were(server: tuple[Taker, str]) -> None:
    # Given a watch that is over
    taker, url = server
    with watching(20, Redactor()):
        pass
    taker.faults.plan(Fault("status", method="POST", status=503))
    # When the process sends a request of its own, then it is given whatever the server says
    assert requests.post(url).status_code == 503


def test_secrets_of_the_environment_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given NexusLIMS's settings, in the environment and in its .env
    monkeypatch.setenv("NX_CDCS_TOKEN", "token-0123456789")
    monkeypatch.setenv("NX_CDCS_URL", "https://cdcs.example.org")
    monkeypatch.setenv("NX_LABARCHIVES_USER_ID", "285489257Ho123")
    monkeypatch.setenv("SHORT_TOKEN", "yes")
    (tmp_path / ".env").write_text("NX_ELABFTW_API_KEY='1-abcdefgh'\nNX_DATA_PATH=/data/nexus\n")
    # When the secrets are asked for, then these and no others are
    found = set(secrets_it_may_read())
    assert {"token-0123456789", "285489257Ho123", "1-abcdefgh"} <= found
    assert not {"https://cdcs.example.org", "/data/nexus", "yes"} & found
