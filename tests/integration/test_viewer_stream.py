"""A stream and a viewer over real sockets: shown, bounded, counted, and joined only when it is ours."""

from __future__ import annotations

import socket
import stat
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import zmq
from lab import wait_until
from viewing import NotedCanvas, noted_viewer

from labrelay.errors import InvalidInput
from labrelay_worker.backends.base import Unavailable, Unsupported
from labrelay_worker.backends.napari_stream import NapariStreamBackend
from labrelay_worker.viewers.frames import Message, parse
from labrelay_worker.viewers.link import Link
from labrelay_worker.viewers.pictures import Part, Picture, Points
from labrelay_worker.viewers.places import Place, ViewerAway, ViewerRuns
from labrelay_worker.viewers.proof import is_proven, prove
from labrelay_worker.viewers.sendwindow import Limits
from labrelay_worker.viewers.stream import Pace, ViewerStream
from labrelay_worker.viewers.ticket import Fate, Tally

pytestmark = pytest.mark.integration

PLANE = np.arange(64 * 64, dtype="uint16").reshape(64, 64)
QUICK = Pace(join=0.5, stall=0.5, first_pause=0.05, longest_pause=0.1)
LONG = 20.0


@pytest.fixture
def place(tmp_path) -> Place:
    return Place.of("napari", tmp_path / "home")


@pytest.fixture
def viewer(place) -> Iterator[NotedCanvas]:
    with noted_viewer(place) as canvas:
        yield canvas


@pytest.fixture
def stream(place) -> Iterator[ViewerStream]:
    stream = ViewerStream(place, pace=QUICK)
    yield stream
    stream.close()


def later() -> float:
    return time.monotonic() + LONG


def plane(index: int = 0, count: int = 100) -> Picture:
    return Picture(PLANE + index, "stack", part=Part("T", index, count))


def test_what_is_offered_is_received_and_displayed_in_order(viewer, stream) -> None:
    # Given a viewer and a stream
    tickets = [stream.offer(plane(n), later()) for n in range(20)]
    # Then every plane ends as displayed, and the window has the very pixels
    assert [ticket.wait(later()) for ticket in tickets] == [Fate.DISPLAYED] * 20
    assert all(ticket.received for ticket in tickets)
    assert viewer.planes("stack") == list(range(20))
    assert all((item.array == PLANE + n).all() for n, item in enumerate(viewer.items))
    assert str(stream.totals) == "20 of 20 displayed"


def test_displayed_is_said_only_of_pixels_that_the_window_holds(viewer, stream) -> None:
    # Given a window that draws something else
    viewer.spoils = True
    ticket = stream.offer(plane(), later())
    # Then the plane does not count as displayed
    assert ticket.wait(later()) is Fate.REFUSED
    assert ticket.reason == "the viewer holds other pixels than were sent"


def test_a_refusal_carries_the_viewers_reason_and_the_stream_goes_on(viewer, stream) -> None:
    viewer.refuses = True
    assert (ticket := stream.offer(plane(), later())).wait(later()) is Fate.REFUSED
    assert ticket.reason == "not today"
    viewer.refuses = False
    assert stream.offer(plane(), later()).wait(later()) is Fate.DISPLAYED


def test_without_a_viewer_an_offer_is_dropped_with_the_reason_and_counted(stream) -> None:
    ticket = stream.offer(plane(), later())
    assert ticket.wait(later()) is Fate.DROPPED
    assert ticket.reason == "no viewer 'napari' runs for this user; start one with `labrelay viewer napari`"
    assert stream.totals.counts[Fate.DROPPED] == 1


def test_a_window_that_hangs_costs_drops_and_nothing_else(place, viewer) -> None:
    # Given a window that hangs, and little room
    plane_bytes = PLANE.nbytes + 1024
    stream = ViewerStream(place, pace=QUICK, limits=Limits(2 * plane_bytes, 3 * plane_bytes))
    viewer.goes_on.clear()
    # When more arrives than there is room for, without any time to wait
    tickets = [stream.offer(plane(n)) for n in range(10)]
    # Then everything is dropped in the end, each once, with the reason
    assert [ticket.wait(later()) for ticket in tickets] == [Fate.DROPPED] * 10
    reasons = {ticket.reason for ticket in tickets}
    assert any("the oldest gave way" in reason for reason in reasons)
    assert any("acknowledged nothing for 0.5 s; its window hangs" in reason for reason in reasons)
    assert stream.totals.counts == {Fate.DROPPED: 10}
    # And when the window goes on, so does the stream
    viewer.goes_on.set()
    wait_until(lambda: stream.offer(plane(), later()).wait(later()) is Fate.DISPLAYED, what="displayed again")
    stream.close()


def test_never_more_is_under_way_than_the_window_allows(place, viewer) -> None:
    # Given a window of two planes and a viewer that hangs
    plane_bytes = PLANE.nbytes + 1024
    stream = ViewerStream(place, pace=Pace(stall=LONG), limits=Limits(2 * plane_bytes, 100 * plane_bytes))
    viewer.goes_on.clear()
    tickets = [stream.offer(plane(n), later()) for n in range(10)]
    # Then two are received while none is displayed
    wait_until(lambda: Tally.of(tickets).received == 2, what="two received")
    assert stream._window.under_way == 2
    # And all are shown once it goes on
    viewer.goes_on.set()
    assert [ticket.wait(later()) for ticket in tickets] == [Fate.DISPLAYED] * 10
    stream.close()


def test_a_viewer_that_ends_is_noticed_and_joined_again_when_it_is_back(place, stream) -> None:
    with noted_viewer(place):
        assert stream.offer(plane(), later()).wait(later()) is Fate.DISPLAYED
    # When the viewer has ended, then offers are dropped
    wait_until(lambda: stream.offer(plane(), later()).wait(later()) is Fate.DROPPED, what="dropped")
    # And a new one is found, whatever its token
    with noted_viewer(place) as second:
        wait_until(lambda: stream.offer(plane(3), later()).wait(later()) is Fate.DISPLAYED, what="displayed again")
        assert second.planes("stack")[-1] == 3


def test_a_viewer_whose_lock_outlives_its_sockets_by_a_moment_has_ended(place, stream, caplog, monkeypatch) -> None:
    # Given a viewer that is dying: its connection is gone, its lock not yet
    with noted_viewer(place):
        assert stream.offer(plane(), later()).wait(later()) is Fate.DISPLAYED
        held = [True, True, False]
        monkeypatch.setattr(Place, "is_held", lambda _: held.pop(0))
    # Then it is said to have ended, not to be stopped
    wait_until(lambda: "the viewer's process ended" in caplog.text, what="the reason")
    assert "it is stopped" not in caplog.text


def test_a_foreign_server_on_the_port_gets_no_pixel_and_no_harm(place, tmp_path) -> None:
    # Given a viewer of ours elsewhere, and somebody's own server on the configured port
    heard = b""
    with socket.create_server(("127.0.0.1", 0)) as foreign, noted_viewer(place):
        foreign.settimeout(LONG)
        stream = ViewerStream(place, port=foreign.getsockname()[1], pace=QUICK)
        # When something is offered
        ticket = stream.offer(plane(), later())
        assert ticket.wait(later()) is Fate.DROPPED
        stream.close()
        for _ in range(2):  # the look whether anybody listens, and the call itself
            connection, _ = foreign.accept()
            with connection:
                heard += connection.recv(1 << 20)
    # Then the reason is clear, and nothing of the picture left
    assert "is held by something that is no viewer of ours, which is left alone" in ticket.reason
    assert PLANE.tobytes()[:64] not in heard


def test_a_viewer_that_cannot_prove_itself_gets_no_pixel(place) -> None:
    # Given a process that speaks the protocol and does not know the token
    context = zmq.Context()
    pretender = context.socket(zmq.ROUTER)
    port = pretender.bind_to_random_port("tcp://127.0.0.1")
    heard: list[str] = []

    def pretend() -> None:
        while pretender.poll(2000):
            peer, *frames = pretender.recv_multipart()
            heard.append(parse(frames).kind)
            wrong = prove("guess", "viewer", f"tcp://127.0.0.1:{port}", "", "")
            pretender.send_multipart([peer, *Message("welcome", {"nonce": "00", "proof": wrong}).frames()])

    with noted_viewer(place):
        thread = threading.Thread(target=pretend)
        thread.start()
        stream = ViewerStream(place, port=port, pace=QUICK)
        ticket = stream.offer(plane(), later())
        assert ticket.wait(later()) is Fate.DROPPED
        stream.close()
        thread.join()
    pretender.close(0)
    context.term()
    # Then it heard a greeting and nothing more
    assert set(heard) == {"hello"}
    assert "cannot prove to be our viewer" in ticket.reason


def test_a_stranger_is_told_nothing_and_cannot_close_the_viewer(place, viewer) -> None:
    # Given a process of this machine that knows the address and no token
    context = zmq.Context()
    stranger = context.socket(zmq.DEALER)
    stranger.connect(place.read().endpoint)
    # When it asks for the viewer's end, sends half a character, and offers a wrong proof
    stranger.send_multipart(Message("close", {"id": 1}).frames())
    stranger.send_multipart([b'{"schema":"labrelay.viewer/1","kind":"hello","nonce":"\\ud800"}'])
    stranger.send_multipart(Message("hello", {"nonce": "ab"}).frames())
    assert parse(stranger.recv_multipart()).kind == "welcome"
    stranger.send_multipart(Message("proof", {"proof": "00" * 32}).frames())
    stranger.send_multipart(Message("close", {"id": 1}).frames())
    # Then it gets no answer, and the viewer goes on
    assert not stranger.poll(300)
    stranger.close(0)
    link = Link(context, place, None, LONG)
    assert link.ask(Message("status", {"id": 0}), "status", LONG).fields["viewer"] == "noted"
    link.close()
    context.term()


def test_a_proof_holds_for_one_side_one_endpoint_and_one_conversation() -> None:
    words = ("ipc:///x", "a", "b")
    good = prove("token", "viewer", *words)
    assert is_proven(good, "token", "viewer", *words)
    for wrong in (
        ("other", "viewer", *words), ("token", "worker", *words), ("token", "viewer", "ipc:///y", "a", "b"),
        ("token", "viewer", "ipc:///x", "b", "a"),
    ):  # fmt: skip
        assert not is_proven(good, *wrong)
    for given in (None, 1, "", "é" * 64):
        assert not is_proven(given, "token", "viewer", *words)


def test_the_note_is_private_and_a_note_that_others_can_read_is_not_trusted(place, viewer) -> None:
    assert stat.S_IMODE(place.note_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700
    place.note_file.chmod(0o644)
    with pytest.raises(ViewerAway, match="is not private to this user"):
        place.read()


def test_there_is_one_viewer_of_a_name(place, viewer) -> None:
    assert place.is_held()
    with pytest.raises(ViewerRuns, match="use --name for a second one"), place.held():
        pass
    with Place.of("second", place.folder.parent).held():
        assert place.is_held()
    with pytest.raises(InvalidInput):
        Place.of("../x")


def test_a_folder_with_a_long_name_has_its_socket_elsewhere_and_private(tmp_path) -> None:
    place = Place.of("napari", tmp_path / ("x" * 120))
    with noted_viewer(place) as canvas:
        stream = ViewerStream(place, pace=QUICK)
        assert stream.offer(plane(), later()).wait(later()) is Fate.DISPLAYED
        stream.close()
        assert len(canvas.items) == 1


def test_a_full_viewer_lets_older_pictures_go(place) -> None:
    with noted_viewer(place, memory=3 * PLANE.nbytes) as canvas:
        stream = ViewerStream(place, pace=QUICK)
        for name in "abcd":
            assert stream.offer(Picture(PLANE, name), later()).wait(later()) is Fate.DISPLAYED
        stream.close()
    assert canvas.removed == ["a"]


def test_the_backend_saves_to_the_screen_and_leaves_the_window_open(place, viewer) -> None:
    # Given the backend
    backend = NapariStreamBackend(home=str(place.folder.parent), start="never", patience=LONG)
    mine = PLANE.copy()
    # When arrays, bytes of a file, and points are saved
    backend.save_batch([mine, Points(np.array([(1.0, 2.0)]), "")], ["a.tif", "points"])
    mine[:] = 0
    # Then they are on the screen under their addresses, as they were
    assert [item.name for item in viewer.items] == ["a.tif", "points"]
    assert (viewer.items[0].array == PLANE).all()
    # And the window outlives the connection, which is made again
    backend.cleanup_connections()
    backend.cleanup_connections()
    assert place.is_held()
    backend.save(PLANE, "b.tif", if_exists="replace")
    assert len(viewer.items) == 3


def test_cleanup_closes_the_window_that_the_backend_showed_in(place, viewer) -> None:
    asked = threading.Event()
    shower = NapariStreamBackend(home=str(place.folder.parent), start="never", patience=LONG)
    idle = NapariStreamBackend(home=str(place.folder.parent), start="never", patience=LONG)
    # Given one backend that showed something, and one that did not
    shower.save(PLANE, "a")
    link = Link(context := zmq.Context(), place, None, LONG)
    idle.cleanup()
    assert link.ask(Message("status", {"id": 0}), "status", LONG).fields["shown"] == 1
    # When the first is cleaned up, then the viewer ends
    shower.cleanup()
    shower.cleanup()
    link.send(Message("status", {"id": 0}))
    asked.set()
    assert not link.socket.poll(300)
    link.close()
    context.term()


def test_a_save_that_was_not_seen_says_so_within_its_patience(place) -> None:
    backend = NapariStreamBackend(home=str(place.folder.parent), start="never", patience=0.5)
    with pytest.raises(Unavailable, match=r"viewer napari: 0 of 2 displayed, 2 dropped \(no viewer"):
        backend.save_batch([PLANE, PLANE], ["a", "b"])
    backend.cleanup()


@pytest.mark.parametrize("payload", ["text", b"bytes of no picture", {"a": 1}, np.zeros(3), np.array(["x"])])
def test_what_is_no_picture_is_refused_instead_of_ignored(place, payload) -> None:
    backend = NapariStreamBackend(home=str(place.folder.parent), start="never")
    with pytest.raises(Unsupported):
        backend.save(payload, "x.txt")


def test_options_that_make_no_sense_are_refused_by_name() -> None:
    for options in ({"start": "sometimes"}, {"patience": 0}, {"queue_mib": -1}, {"viewer": "a/b"}):
        with pytest.raises(InvalidInput):
            NapariStreamBackend(**options)
