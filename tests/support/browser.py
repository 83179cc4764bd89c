"""A real browser without a window (Chromium): what a page holds once its scripts have run, and how it looks."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
#: Milliseconds of the page's own clock, which runs as fast as its requests are answered.
_PAGE_TIME = 10_000


class Browser:
    """Opens pages, each with a fresh profile.

    Parameters
    ----------
    folder
        For profiles and pictures.
    """

    def __init__(self, folder: Path) -> None:
        found = next(filter(None, map(shutil.which, _NAMES)), None)
        if found is None:
            if os.environ.get("CI"):
                pytest.fail("tests/integration/prepare.sh installs chromium, and did not")
            pytest.skip("needs chromium: tests/integration/prepare.sh installs it as root")
        self._program, self._folder = found, folder

    def text(self, url: str) -> str:
        """Return the page's markup after its scripts ran."""
        return self._open(url, "--dump-dom")

    def picture(self, url: str, path: Path, width: int = 1300, height: int = 800, colors: int = 64) -> None:
        """Write how the page looks as a small PNG."""
        taken = self._folder / "page.png"
        self._open(url, f"--window-size={width},{height}", f"--screenshot={taken}")
        Image.open(taken).convert("RGB").quantize(colors).save(path, optimize=True)

    def _open(self, url: str, *arguments: str) -> str:
        answer = subprocess.run(
            [
                self._program, *_FLAGS, f"--virtual-time-budget={_PAGE_TIME}",
                f"--user-data-dir={self._folder / 'profile'}", *arguments, url,
            ],
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert answer.returncode == 0, answer.stderr
        return answer.stdout


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    """Return a browser, or skip."""
    folder = tmp_path / "browser"
    folder.mkdir()
    return Browser(folder)
