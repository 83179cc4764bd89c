"""Start a viewer for a worker: once, only where people could see it, and so that it outlives the worker."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from labrelay_worker.viewers.places import Place, ViewerAway, make_viewer_folder

_logger = logging.getLogger(__name__)

#: Seconds a viewer may take to come up; napari on a cold disk needs most of it.
_START_SECONDS = 60.0
_PACKAGES = {"napari": "napari", "imagej": "jpype"}


class Launcher:
    """Starts at most one viewer in the life of a worker process: a window that a person closed stays closed.

    Parameters
    ----------
    place
        Where the viewer will be found.
    kind
        "napari" or "imagej".
    home
        ``LABRELAY_HOME`` of the viewer.
    """

    def __init__(self, place: Place, kind: str, home: Path) -> None:
        self._place, self._kind, self._home = place, kind, home
        self._process: subprocess.Popen[bytes] | None = None
        self._tried = False
        self._deadline = 0.0

    @property
    def has_started(self) -> bool:
        """Whether this worker started a viewer."""
        return self._process is not None

    def __call__(self) -> bool:
        """Start it if that makes sense; return whether it is on its way and cannot be joined yet."""
        if not self._tried and not self._place.is_held():
            self._tried = True
            if why := why_not(self._kind):
                _logger.info("no %s viewer is started: %s", self._kind, why)
                return False
            try:
                self._start()
            except (OSError, ViewerAway) as error:
                _logger.warning("the %s viewer could not be started: %s", self._kind, error)
                return False
        if self._process is None or self._process.poll() is not None or time.monotonic() > self._deadline:
            return False
        try:
            return self._place.read().pid != self._process.pid
        except ViewerAway:
            return True

    def _start(self) -> None:
        make_viewer_folder(self._place.folder)
        command = [sys.executable, "-m", "labrelay_worker.viewers", self._kind, "--name", self._place.name]
        with self._place.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "LABRELAY_HOME": str(self._home)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C at the worker must not reach the window
            )
        # It outlives this process; while this one lives, somebody must collect it when it ends.
        threading.Thread(target=self._process.wait, name="labrelay-viewer-wait", daemon=True).start()
        self._deadline = time.monotonic() + _START_SECONDS
        _logger.info(
            "started the %s viewer (process %d), its log is %s", self._kind, self._process.pid, self._place.log_file
        )


def why_not(kind: str) -> str:
    """Return why no viewer can be started from here, empty if one can."""
    if not (sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "this process has no display (DISPLAY is not set)"
    package = _PACKAGES[kind]
    if importlib.util.find_spec(package) is None:
        return f'{package} is not installed: pip install "labrelay[{kind}]"'
    return ""
