"""Signatures, the clock, the pace, and what LabArchives' answers mean."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from urllib.parse import parse_qs, urlsplit

import pytest
from labarchives_bench import SECRETS, Bench
from tests.servers.labarchives import LabArchivesServer

from labrelay.errors import DeliveryError, Misconfigured, OutcomeUnknown, Rejected, Transient, Unavailable
from labrelay_worker.conformance.faults import Fault
from labrelay_worker.destinations.account import OwnAccount
from labrelay_worker.destinations.labarchives import LabArchivesDestination
from labrelay_worker.destinations.labarchives_answers import (
    WrongClock,
    entries_of,
    epoch_of,
    error_in,
    max_file_size_of,
    nodes_of,
)
from labrelay_worker.destinations.labarchives_options import LabArchivesOptions
from labrelay_worker.destinations.labarchives_signing import Credentials
from labrelay_worker.http_answers import Answer


def answer(body: str | bytes, status: int = 200) -> Answer:
    return Answer(status, {}, body if isinstance(body, bytes) else body.encode())


def error(code: int | str, text: str = "because") -> str:
    return f"<error><error-description>{text}</error-description><error-code>{code}</error-code></error>"


# --- signatures ------------------------------------------------------------------------------------------


def test_the_signature_is_that_of_key_method_and_time() -> None:
    # Given credentials, when a method is signed, then so are key, method without its class, and time; nothing else
    credentials = Credentials("akid", "pass", "uid+/=")
    query = parse_qs(credentials.query("insert_node", 1234567890123, {"display_text": "a+b/c=&é"}))
    right = hmac.new(b"pass", b"akidinsert_node1234567890123", hashlib.sha512).digest()
    assert base64.b64decode(query["sig"][0]) == right
    assert query["uid"] == ["uid+/="]
    assert query["display_text"] == ["a+b/c=&é"]


def test_values_are_encoded_once() -> None:
    # When a query is made, then what is special in addresses is encoded, and no percent sign of ours again
    query = Credentials("akid", "pass", "u+/=").query("m", 1, {})
    assert "uid=u%2B%2F%3D" in query
    assert "%25" not in query


def test_credentials_do_not_show_themselves() -> None:
    assert repr(Credentials("akid", "pass", "uid")) == "Credentials()"


# --- the clock -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes", [-90, 90])
def test_a_wrong_clock_is_corrected_once(make_session, minutes: int) -> None:
    # Given a server whose clock is another
    server = LabArchivesServer(clock_ahead_ms=minutes * 60_000)
    with server.thread() as running:
        bench = Bench(server, running.url)
        # When a session is delivered
        bench.send(make_session())
        # Then its time was asked for once, and the first request alone was repeated
        assert bench.asked.count("epoch_time") == 1
        assert bench.asked[:3] == ["max_file_size", "epoch_time", "max_file_size"]
        assert bench.text


def test_a_clock_that_cannot_be_corrected_is_a_matter_for_people(make_session) -> None:
    # Given a server that finds every time wrong
    server = LabArchivesServer()
    with server.thread() as running:
        bench = Bench(server, running.url)
        server.faults.plan(Fault("status", times=99, path="max_file_size", status=401, body=error(4504)))
        # When a session is delivered, then it ends after one correction
        with pytest.raises(Misconfigured, match="clock"):
            bench.send(make_session())
        assert bench.asked == ["max_file_size", "epoch_time", "max_file_size"]


# --- the pace ----------------------------------------------------------------------------------------------


def test_the_account_is_that_of_the_access_key() -> None:
    # Given two destinations with one access key and one with another
    def limits(akid: str, notebook: str) -> tuple[str, int | None, float | None]:
        options = LabArchivesOptions(access_key_id=akid, access_password="p", user_id="u", notebook_id=notebook)  # type: ignore[arg-type]
        limits = LabArchivesDestination("any", options).limits
        assert limits is not None
        return limits.account, limits.concurrent, limits.requests_per_second

    # Then the first two share their pace, and the key itself is not named
    assert limits("secret-akid", "1") == limits("secret-akid", "2") != limits("other-akid", "1")
    assert limits("secret-akid", "1")[1:] == (1, 1.0)
    assert "secret" not in limits("secret-akid", "1")[0]


class CountingAccount(OwnAccount):
    """Notes how often it was asked for the pace."""

    turns = 0

    async def pace(self) -> None:
        self.turns += 1


def test_every_request_awaits_its_turn_and_the_distance_to_the_one_before(make_session) -> None:
    # Given an account with a distance of a twentieth of a second
    server, account = LabArchivesServer(clock_ahead_ms=3_600_000), CountingAccount(interval=0.05)
    with server.thread() as running:

        async def deliver() -> None:
            destination = Bench(server, running.url).destination(account)
            for number in (1, 2):
                await destination.export(make_session(number))
            await destination.close()

        # When two sessions are delivered
        asyncio.run(deliver())
    # Then each request asked for its turn, the one for the time too, and none came too early
    assert account.turns == len(server.faults.seen)
    assert min(server.gaps("akid-one")) >= 0.05
    # And each was signed afresh
    queries = [parse_qs(urlsplit(one.target).query) for one in server.faults.seen if "epoch_time" not in one.target]
    assert len({query["sig"][0] for query in queries}) == len(queries)


def test_a_destination_outside_of_a_worker_keeps_the_pace_too() -> None:
    options = LabArchivesOptions(access_key_id="a", access_password="p", user_id="u", notebook_id="n")  # type: ignore[arg-type]
    assert LabArchivesDestination("alone", options).account.interval == 1.0


# --- answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 400, 401, 404, 500])
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (4500, Rejected),
        (4501, Rejected),
        (4502, Rejected),
        (4504, WrongClock),
        (4506, Misconfigured),
        (4507, Misconfigured),
        (4514, Misconfigured),
        (4520, Misconfigured),
        (4529, Rejected),
        (4533, Misconfigured),
        (4547, Rejected),
        (4999, OutcomeUnknown),
        (4321, Rejected),
    ],
)
def test_an_error_code_means_the_same_under_every_status(code: int, kind: type[DeliveryError], status: int) -> None:
    found = error_in(answer(error(code), status), safe=False)
    assert type(found) is kind
    assert str(code) in str(found)


@pytest.mark.parametrize(
    "body",
    [
        "<error><code>4520</code><description>x</description></error>",
        "<users><request/><error><error-code>4520</error-code></error></users>",
        "<errors><error><error-code> 4520\n</error-code></error></errors>",
    ],
)
def test_an_error_is_found_in_each_of_its_spellings(body: str) -> None:
    assert isinstance(error_in(answer(body), safe=True), Misconfigured)


@pytest.mark.parametrize(
    ("status", "body", "safe", "kind"),
    [
        (500, "<html>oops</html>", True, Transient),
        (500, "<html>oops</html>", False, OutcomeUnknown),
        (500, error(""), False, OutcomeUnknown),
        (503, "", False, Unavailable),
        (404, "<html>not here</html>", True, Misconfigured),
        (302, "", True, Misconfigured),
        (400, error(""), True, Rejected),
        (200, "<!doctype html><html>log in</html>", True, Misconfigured),
        (200, "<tree-tools><level", True, Transient),
        (200, "<tree-tools><level", False, OutcomeUnknown),
        (200, '<!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>', True, Transient),
        (200, error(""), False, Rejected),
    ],
)
def test_answers_without_a_code_go_by_their_status(
    status: int, body: str, safe: bool, kind: type[DeliveryError]
) -> None:
    assert type(error_in(answer(body, status), safe=safe)) is kind


@pytest.mark.parametrize("body", [b"\x00\x01", b"<?xml version='1.0'?><r><error/></r>", b"", b"<html></html>"])
def test_a_file_may_hold_anything(body: bytes) -> None:
    assert error_in(answer(body), safe=True, is_file=True) is None


def test_an_error_instead_of_a_file_is_an_error() -> None:
    assert isinstance(error_in(answer(error(4529)), safe=True, is_file=True), Rejected)
    assert isinstance(error_in(answer(b"<r/>", 500), safe=True, is_file=True), Transient)


def test_what_the_answer_repeats_of_the_request_is_not_read() -> None:
    # Given answers that repeat what was asked, in names that they use themselves
    level = answer(
        "<tree-tools><request><node><tree-id>asked</tree-id></node></request><level-nodes><level-node>"
        "<display-text>A &amp; B</display-text><is-page>true</is-page><tree-id>7</tree-id>"
        "<user-access><can-write>false</can-write></user-access></level-node></level-nodes></tree-tools>"
    )
    page = answer(
        "<entries><request><entry><eid>asked</eid></entry></request>"
        "<entry><attach-file-size/><part-type>Attachment</part-type><eid>9</eid></entry></entries>"
    )
    # Then only what was answered counts
    (node,) = nodes_of(level)
    assert (node.tree_id, node.text, node.is_page, node.can_write) == ("7", "A & B", True, False)
    (entry,) = entries_of(page)
    assert (entry.eid, entry.is_attachment, entry.file_size) == ("9", True, None)


def test_numbers_are_found_wherever_they_are() -> None:
    assert epoch_of(answer("<utilities><request>x</request><epoch-time>1800000000000</epoch-time></utilities>")) == (
        1800000000000
    )
    assert epoch_of(answer("<utilities><version>1</version></utilities>")) is None
    assert max_file_size_of(answer("<users><max-file-size> 262144000 </max-file-size></users>")) == 262144000
    assert max_file_size_of(answer("<users/>")) is None


def test_an_error_that_repeats_secrets_is_cleaned(make_session) -> None:
    # Given an answer that repeats everything it was sent
    server = LabArchivesServer()
    with server.thread() as running:
        bench = Bench(server, running.url)
        server.faults.plan(Fault("status", path="get_tree", status=400, body=error(4529, " ".join(SECRETS))))
        # When a session is delivered by the destination itself, then its error holds none of it
        with pytest.raises(Rejected) as caught:
            bench.export(make_session())
    assert not any(secret in str(caught.value) for secret in SECRETS)


@pytest.mark.parametrize(
    ("url", "api", "web"),
    [
        ("https://api.labarchives.com/api", "https://api.labarchives.com/api", "https://mynotebook.labarchives.com"),
        (
            "https://auapi.labarchives.com",
            "https://auapi.labarchives.com/api",
            "https://au-mynotebook.labarchives.com",
        ),
        ("https://eln.lab.example/api/", "https://eln.lab.example/api/", "https://eln.lab.example"),
    ],
)
def test_addresses_follow_from_the_region(url: str, api: str, web: str) -> None:
    options = LabArchivesOptions.model_validate(
        {"url": url, "access_key_id": "a", "access_password": "p", "user_id": "u", "notebook_id": "n"}
    )
    assert (str(options.url), options.web_address) == (api, web)


def test_the_service_is_not_asked_unencrypted() -> None:
    with pytest.raises(ValueError, match="https only"):
        LabArchivesOptions.model_validate(
            {
                "url": "http://api.labarchives.com/api",
                "access_key_id": "a",
                "access_password": "p",
                "user_id": "u",
                "notebook_id": "n",
            }
        )
