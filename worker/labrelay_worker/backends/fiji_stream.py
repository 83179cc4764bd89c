"""The fiji_stream backend: shows what is delivered in ImageJ or Fiji (`labrelay viewer imagej`)."""

from __future__ import annotations

from typing import ClassVar

from labrelay_worker.backends.streaming import ViewerBackend


class FijiStreamBackend(ViewerBackend):
    """Shows in ImageJ. The worker needs no Java; the viewer's process does."""

    _backend_type: ClassVar[str | None] = "fiji_stream"
    needs: ClassVar[frozenset[str]] = frozenset({"display", "jvm"})
    viewer_kind: ClassVar[str] = "imagej"
