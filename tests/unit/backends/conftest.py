from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labrelay_worker.backends.disk import DiskBackend
from labrelay_worker.backends.registration import CLASSES
from labrelay_worker.discovery import PLUGIN_NAMESPACE


@pytest.fixture
def disk(tmp_path: Path) -> DiskBackend:
    return DiskBackend(root=tmp_path / "root")


@pytest.fixture(autouse=True)
def _no_classes_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    CLASSES.forget(request.module.__name__)
    CLASSES.forget(PLUGIN_NAMESPACE)
    for name in [name for name in sys.modules if name.startswith(PLUGIN_NAMESPACE)]:
        del sys.modules[name]


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a plugin file; returns its folder."""

    def write(name: str, source: str) -> Path:
        path = tmp_path / "plugins" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return tmp_path / "plugins"

    return write
