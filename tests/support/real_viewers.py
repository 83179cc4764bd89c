"""Viewer processes with windows, started for a test. What is missing is said; in CI it is a failure."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab import wait_until
from screen import Screen

from labrelay_worker.viewers.imagej_java import find_jars
from labrelay_worker.viewers.places import Place

#: Set by `make test-viewers` in CI: nothing may be left out there.
REQUIRED = "VIEWERS_REQUIRED"
#: The first one after an installation reads a gigabyte of modules from the disk, and compiles them.
START_SECONDS = 110


def missing(kind: str) -> str:
    """Return why viewers of a kind cannot be tried here, empty if they can."""
    if shutil.which("Xvfb") is None:
        return "Xvfb is not installed (apt-get install xvfb)"
    if kind == "napari":
        return "" if importlib.util.find_spec("napari") else "napari is not installed (make test-viewers)"
    if not importlib.util.find_spec("jpype"):
        return "jpype1 is not installed (make test-viewers)"
    try:
        find_jars(None)
    except Exception as error:
        return str(error)
    return "" if shutil.which("java") else "Java is not installed (apt-get install default-jre)"


@dataclass
class Viewer:
    """A viewer process of this test."""

    kind: str
    process: subprocess.Popen[bytes]
    log: Path
    environment: dict[str, str]

    def command(self, *arguments: str) -> str:
        """Run `labrelay viewer KIND …` beside it."""
        return run_viewer_command(self.kind, *arguments, environment=self.environment)


def run_viewer_command(kind: str, *arguments: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-m", "labrelay_worker.viewers", kind, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def require(kind: str) -> None:
    """Skip the test when viewers of this kind cannot be had; where nothing may be left out, fail."""
    if reason := missing(kind):
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(f"{kind}: {reason}")


def display_of(screen: Screen, folder: Path) -> dict[str, str]:
    """Return the environment of a viewer on this display; its place and size must not come from an earlier one."""
    return {
        "DISPLAY": screen.display, "QT_QPA_PLATFORM": "xcb", "HOME": str(folder),
        "NAPARI_CONFIG": str(folder / "napari.yaml"),
    }  # fmt: skip


def launch(kind: str, *arguments: str, environment: dict[str, str], log: Path) -> Viewer:
    """Start a viewer and await its note."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "labrelay_worker.viewers", kind, *arguments],
            env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    viewer, place = Viewer(kind, process, log, environment), Place.of(kind, environment["LABRELAY_HOME"])
    try:
        wait_until(lambda: place.note_file.exists() or process.poll() is not None, START_SECONDS, "the viewer's note")
        assert process.poll() is None, log.read_text()
    except BaseException:
        end(viewer)
        raise
    return viewer


def end(viewer: Viewer) -> None:
    """Kill a viewer that still runs."""
    if viewer.process.poll() is None:
        viewer.process.kill()
    viewer.process.wait(30)
