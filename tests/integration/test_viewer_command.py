"""The command `labrelay viewer` where there is no window to be had, and beside one that runs."""

from __future__ import annotations

import json
import socket

import pytest
from click.testing import CliRunner
from viewing import noted_viewer

from labrelay.cli import main
from labrelay_worker.viewers.places import Place

pytestmark = pytest.mark.integration


def run(*arguments: str):
    return CliRunner().invoke(main, ["viewer", *arguments])


def test_a_port_that_somebody_holds_is_left_alone_and_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        port = str(foreign.getsockname()[1])
        answer = run("napari", "--port", port)
        # Then the reason is one line, nothing is left behind, and the other server still listens
        assert answer.exit_code == 3
        assert (
            f"cannot listen at tcp://127.0.0.1:{port} (address already in use); what holds it is left"
            in answer.output
        )
        assert not Place.of("napari").note_file.exists()
        socket.create_connection(foreign.getsockname(), timeout=5).close()


def test_without_a_display_the_viewer_says_so(monkeypatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    answer = run("imagej")
    assert answer.exit_code == 1
    assert "no imagej window can be opened: this process has no display" in answer.output
    assert not Place.of("imagej").is_held()


def test_the_running_viewer_is_asked_for_its_state_its_picture_and_its_end(tmp_path) -> None:
    # Given a viewer
    with noted_viewer(Place.of("napari")):
        # When it is asked, then it answers
        assert json.loads(run("napari", "--status").output)["viewer"] == "noted"
        assert run("napari", "--shot", str(tmp_path / "x.png")).exit_code == 0
        assert (tmp_path / "x.png").read_bytes() == b"\x89PNG"
        # And a second one of its name is refused
        assert run("napari").exit_code == 6
        assert run("napari", "--close").exit_code == 0
    # And without it, the command says how to start one
    answer = run("napari", "--status")
    assert answer.exit_code == 3
    assert "start one with `labrelay viewer napari`" in answer.output
