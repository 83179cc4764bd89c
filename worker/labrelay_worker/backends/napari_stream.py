"""The napari_stream backend: shows what is delivered in a napari window (`labrelay viewer napari`)."""

from __future__ import annotations

from typing import ClassVar

from labrelay_worker.backends.streaming import ViewerBackend


class NapariStreamBackend(ViewerBackend):
    """Shows in napari. The worker needs no napari; the viewer's process does."""

    _backend_type: ClassVar[str | None] = "napari_stream"
    needs: ClassVar[frozenset[str]] = frozenset({"display"})
    viewer_kind: ClassVar[str] = "napari"
