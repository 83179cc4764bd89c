"""Every request of a delivery goes wrong in every way; afterwards there is one experiment, whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
from elab import CDCS_URL, Elab, elab_server, with_cdcs
from tests.servers.elabftw import ARCHIVED, NORMAL
from tests.servers.elabftw_calls import KEYS, WRITER

from labrelay.errors import Misconfigured, OutcomeUnknown, RateLimited, Rejected, Transient
from labrelay_worker.conformance.faults import Fault

#: What can befall one request. The server has carried it out where `after` says so.
MISFORTUNES = {
    "lost before": Fault("close"),
    "lost after": Fault("close", after=True),
    "half an answer": Fault("half", after=True),
    "429": Fault("status", status=429, headers={"Retry-After": "7"}),
    "429 after": Fault("status", status=429, after=True),
    "500": Fault("status", status=500, body="<html>database down</html>"),
    "500 after": Fault("status", status=500, after=True, body="<html>timeout</html>"),
    "502 after": Fault("status", status=502, after=True),
    "503": Fault("status", status=503, headers={"Retry-After": "7"}),
    "503 after": Fault("status", status=503, after=True),
    "504 after": Fault("status", status=504, after=True),
    "no JSON": Fault("status", status=200, body="<html>log in</html>"),
    "201 without a word": Fault("status", status=201, after=True, body=""),
}
#: The requests of a first delivery, of a new revision, and of a link that comes later.
FIRST = ["search", "create", "read", "upload", "read again"]
REVISION = ["read", "upload", "read again", "text", "fields", "archive", "read at last"]
LINK = ["search", "read", "text", "fields", "read again"]


@pytest.fixture
def elab() -> Iterator[Elab]:
    with elab_server() as elab:
        yield elab


@pytest.fixture
def session(make_session):
    """Return a function that gives a revision of one session."""

    def build(revision: int = 1):
        context = make_session(user="anna", reservation_event={"experiment_title": f"try {revision}"})
        content = b"<a>\r\n%d</a>" % revision
        context.xml_file_path.write_bytes(content)
        known = {"xml_size": len(content), "xml_sha256": hashlib.sha256(content).hexdigest()}
        return context.model_copy(update=known).of_revision(revision, {})

    return build


def at(number: int, misfortune: str) -> Fault:
    return replace(MISFORTUNES[misfortune], nth=number)


def assert_whole(elab: Elab, revision: int) -> None:
    """Assert one experiment with one normal upload, all of this revision."""
    assert len(elab.server.experiments) == 1
    assert elab.value("labrelay revision") == str(revision)
    assert f"try {revision}" in elab.only["body"]
    assert elab.server.content(1) == {"record-1.xml": b"<a>\r\n%d</a>" % revision}
    assert elab.only["tags"] == "NexusLIMS|FEI-Titan-TEM|anna"


def test_the_requests_are_those_that_are_hurt_below(elab, session):
    # Given a delivery, its next revision and its link without faults
    counts = []

    def count(receipt):
        counts.append(len(elab.server.faults.seen))
        elab.server.faults.clear()
        return receipt

    first = count(elab.send(session()))
    second = count(elab.send(session(2).of_revision(2, {"elabftw": first})))
    count(elab.link(with_cdcs(session(2)), second))

    # Then they need as many requests as the lists name
    assert counts == [len(FIRST), len(REVISION), len(LINK)]


@pytest.mark.parametrize("misfortune", MISFORTUNES)
@pytest.mark.parametrize("number", range(1, len(FIRST) + 1), ids=FIRST)
def test_a_first_delivery_survives_it(elab, session, number, misfortune):
    # When one request of a delivery goes wrong, and it is sent until it is delivered
    elab.server.faults.plan(at(number, misfortune))
    receipt, _ = elab.settle(session())

    # Then there is one experiment with one upload, and the receipt is about it
    assert receipt.record_id == "1"
    assert_whole(elab, 1)
    assert len([u for u in elab.server.uploads.values() if u["state"] == NORMAL]) == 1


@pytest.mark.parametrize("misfortune", MISFORTUNES)
@pytest.mark.parametrize("number", range(1, len(REVISION) + 1), ids=REVISION)
def test_a_new_revision_survives_it(elab, session, number, misfortune):
    # Given a delivered session
    before = elab.send(session())

    # When one request of its next revision goes wrong
    elab.server.faults.plan(at(number, misfortune))
    receipt, _ = elab.settle(session(2).of_revision(2, {"elabftw": before}))

    # Then the same experiment holds it, and nothing of the earlier record was lost
    assert receipt.record_id == before.record_id
    assert_whole(elab, 2)
    old = [u for u in elab.server.uploads.values() if elab.server.contents[u["id"]] == b"<a>\r\n1</a>"]
    assert [upload["state"] for upload in old] == [ARCHIVED]


@pytest.mark.parametrize("misfortune", MISFORTUNES)
@pytest.mark.parametrize("number", range(1, len(LINK) + 1), ids=LINK)
def test_a_late_link_survives_it(elab, session, number, misfortune):
    # Given an experiment without its link
    receipt = elab.send(session())

    # When one request goes wrong while the link is added, and it is tried again
    elab.server.faults.plan(at(number, misfortune))
    for _ in range(3):
        try:
            linked = elab.link(with_cdcs(session()), receipt)
            break
        except (OutcomeUnknown, Transient):
            continue

    # Then text and fields have it once
    assert linked.unlinked == ()
    assert elab.value("CDCS Record") == CDCS_URL
    assert elab.only["body"].count("<a href") == 1
    assert_whole(elab, 1)


@pytest.mark.parametrize("number", range(1, 6))
def test_a_server_that_hangs_is_left_in_time_and_found_as_it_is(elab, session, number):
    # Given a server that carries a request out and does not answer
    elab.server.faults.plan(Fault("hang", after=True, nth=number))

    # When the client's time is up, and the server answers again
    with pytest.raises((OutcomeUnknown, Transient)):
        elab.send(session(), timeout=0.3)
    elab.server.faults.release()

    # Then the next try completes what is there
    elab.settle(session())
    assert_whole(elab, 1)


def test_a_pause_that_the_server_asks_for_is_known(elab, session):
    elab.server.faults.plan(at(2, "429"))
    with pytest.raises(RateLimited) as caught:
        elab.send(session())
    assert caught.value.retry_after == 7


@pytest.mark.parametrize("misfortune", ["lost before", "lost after", "half an answer", "500", "502 after"])
def test_only_a_request_that_changes_something_leaves_a_doubt(elab, session, misfortune):
    # When the search fails, then nothing was done
    elab.server.faults.plan(at(1, misfortune))
    with pytest.raises(Transient):
        elab.send(session())

    # When the request that makes the experiment fails, then it may have been done
    elab.server.faults.clear()
    elab.server.faults.plan(at(2, misfortune))
    with pytest.raises(OutcomeUnknown):
        elab.send(session())


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, '{"code": 400, "message": "no", "description": ""}', Rejected),
        (403, "{}", Misconfigured),
        (404, "<h1>Not Found</h1>", Misconfigured),
        (405, "", Misconfigured),
        (413, "<html>413 Request Entity Too Large</html>", Rejected),
        (415, "", Rejected),
        (422, "{}", Rejected),
        (401, "{}", Misconfigured),
        (302, "", Misconfigured),
        (500, '{"code": 3140, "message": "Invalid JSON text"}', Rejected),
        (500, "", OutcomeUnknown),
    ],
)
def test_a_status_says_what_to_do(elab, session, status, body, kind):
    elab.server.faults.plan(Fault("status", nth=2, status=status, body=body))
    with pytest.raises(kind) as caught:
        elab.send(session())
    assert type(caught.value) is kind
    assert str(status) in str(caught.value)


@pytest.mark.parametrize("status", [403, 404, 405, 415, 422])
def test_a_refusal_of_one_experiment_is_about_this_session_alone(elab, session, status):
    elab.server.faults.plan(Fault("status", path="experiments/1", status=status))
    with pytest.raises((Rejected, Transient)) as caught:
        elab.send(session())
    # Gone between two requests, it is made anew by the next try.
    assert type(caught.value) is (Transient if status == 404 else Rejected)


def test_an_error_page_is_told_in_short_and_without_markup(elab, session):
    page = f"<html><h1>Too\r\nbad</h1>{'x' * 5000}</html>"
    elab.server.faults.plan(Fault("status", nth=2, status=400, body=page))
    with pytest.raises(Rejected) as caught:
        elab.send(session())
    assert str(caught.value).startswith("HTTP 400: Too bad")
    assert len(str(caught.value)) < 400


def test_a_file_that_arrived_cut_is_replaced_and_not_kept(elab, session):
    # Given an experiment whose record arrived empty, as clients do that send a used-up file again
    elab.server.max_file = -1
    with pytest.raises(Rejected):
        elab.send(session())
    elab.server.max_file = 10_000
    form = {"file": ("record-1.xml", b""), "comment": "NexusLIMS XML record"}
    elab.server._keep(elab.server.experiments[1], form, KEYS[WRITER])

    # When the delivery is tried again, then the whole record is there, and the empty one is not
    assert elab.find(session()) is None
    elab.send(session())
    assert_whole(elab, 1)
