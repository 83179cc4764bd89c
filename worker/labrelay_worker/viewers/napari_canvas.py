"""The napari window: layers by name, drawn before they are acknowledged. Loaded only in the viewer's own process."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from labrelay_worker.viewers.desk import CannotShow, Shown
from labrelay_worker.viewers.frames import checksum
from labrelay_worker.viewers.pictures import CHANNEL_COLORS, SAMPLES, Picture, Points, Shapes, Showable
from labrelay_worker.viewers.stores import layers_of

_DRAW_SECONDS = 2.0
_TICK_MS = 10
#: Size of a new picture to one that fits the canvas, below and above which the view turns to it.
_LEAST_SHARE, _MOST_SHARE = 0.25, 2.0
_MARGIN = 0.95


class NapariCanvas:
    """One napari window.

    Parameters
    ----------
    title
        Of the window.
    """

    def __init__(self, title: str) -> None:
        import napari  # noqa: PLC0415  heavy, and only here
        from qtpy.QtWidgets import QApplication  # noqa: PLC0415

        self.viewer: Any = napari.Viewer(title=title, show=True)
        self._app: Any = QApplication.instance()
        self._scene: Any = self.viewer.window._qt_viewer.canvas._scene_canvas
        self._draws = 0
        self._scene.events.draw.connect(self._count_draw, position="last")
        #: Layers by the name of the item they show.
        self._layers: dict[str, list[Any]] = {}
        self._axes: dict[str, Picture] = {}
        self._working = False
        self._timer: Any = None
        self._app.processEvents()

    def run(self, work: Callable[[], bool]) -> None:
        """Run the window until `work`, called all the time, returns False or a person closes it."""
        from qtpy.QtCore import QTimer  # noqa: PLC0415

        def tick() -> None:
            if self._working:  # drawing lets Qt work, and Qt comes here
                return
            self._working = True
            try:
                if not work():
                    self._timer.stop()
                    self.viewer.close()
            finally:
                self._working = False

        self._timer = QTimer()
        self._timer.timeout.connect(tick)
        self._timer.start(_TICK_MS)
        self._app.setQuitOnLastWindowClosed(True)
        self._app.exec()

    def open(self, path: str) -> None:
        """Open an OME-Zarr image with its pixel size, or anything else with napari's own readers."""
        layers = layers_of(Path(path))
        if not layers:
            self.viewer.open(path)
        for options in layers:
            self.viewer.add_image(**options | {"units": [_unit(name) for name in options["units"]]})

    def show(self, item: Showable, digest: int) -> Shown:
        """Draw an item and return once it is on the screen."""
        if isinstance(item, Picture):
            held = self._show_part(item) if item.part is not None else self._show_picture(item)
            self._draw()
            return Shown(held())
        if isinstance(item, Shapes):
            self._show_shapes(item)
        else:
            self._show_points(item)
        self._draw()
        layer = self._layers[item.name][0]
        held_data = np.concatenate(list(layer.data)) if isinstance(item, Shapes) else np.asarray(layer.data)
        sent = np.concatenate([s.vertices for s in item.items]) if isinstance(item, Shapes) else item.positions
        is_same = held_data.shape == sent.shape and np.allclose(held_data, sent, rtol=1e-5)
        return Shown(digest if is_same else checksum(held_data), "as single precision" if is_same else "")

    def remove(self, name: str) -> None:
        """Take an item's layers off."""
        # Its buffers are freed at once, in whatever OpenGL context is current: in another one than the canvas's own
        # that frees what the canvas draws next, and the process ends in the graphics driver.
        self._scene.set_current()
        for layer in self._layers.pop(name, ()):
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        self._axes.pop(name, None)

    def shot(self, *, whole_window: bool) -> bytes:
        """Return the canvas, or the whole window, as PNG."""
        from PIL import Image  # noqa: PLC0415

        pixels = self.viewer.screenshot(canvas_only=not whole_window, flash=False)
        file = io.BytesIO()
        Image.fromarray(np.asarray(pixels)[..., :3]).save(file, "PNG")
        return file.getvalue()

    def status(self) -> dict[str, Any]:
        """Return the layers with their shapes."""
        return {
            "viewer": "napari",
            "items": [
                {
                    "name": layer.name,
                    "shape": [int(n) for n in np.shape(layer.data)],
                    "scale": list(map(float, layer.scale)),
                    "units": list(map(str, layer.units)),
                }
                if hasattr(layer, "contrast_limits")
                else {"name": layer.name, "count": len(layer.data)}
                for layer in self.viewer.layers
            ],
        }

    def _show_picture(self, item: Picture) -> Callable[[], int]:
        axis = item.axes.find("C")
        planes = [item.array] if axis < 0 else list(np.moveaxis(item.array, axis, 0))
        scale = [size for letter, size in zip(item.axes, item.scale, strict=True) if letter not in ("C", SAMPLES)]
        layers = self._present(item, len(planes), planes[0].ndim)
        if not layers:
            layers = [
                self.viewer.add_image(
                    plane,
                    name=_channel_name(item, index, len(planes)),
                    scale=scale,
                    rgb=SAMPLES in item.axes,
                    units=_unit(item.unit),
                    colormap=CHANNEL_COLORS[index % len(CHANNEL_COLORS)] if len(planes) > 1 else "gray",
                    blending="additive" if len(planes) > 1 else "translucent",
                    contrast_limits=None if SAMPLES in item.axes else item.limits(index, plane),
                )
                for index, plane in enumerate(planes)
            ]
            self._bring_into_view(layers)
        else:
            for index, (layer, plane) in enumerate(zip(layers, planes, strict=True)):
                layer.data, layer.scale = plane, scale
                if item.contrast:
                    layer.contrast_limits = item.limits(index, plane)
        self._layers[item.name], self._axes[item.name] = layers, item

        def held() -> int:
            shown = [np.asarray(layer.data) for layer in layers]
            return checksum(shown[0] if axis < 0 else np.stack(shown, axis=axis))

        return held

    def _show_part(self, item: Picture) -> Callable[[], int]:
        part = item.part
        assert part is not None  # noqa: S101  the caller looked
        known = self._layers.get(item.name)
        layer = known[0] if known and known[0] in self.viewer.layers else None
        if layer is not None and (
            layer.data.shape != (part.count, *item.array.shape) or layer.data.dtype != item.array.dtype
        ):
            if part.index:
                raise CannotShow(f"a plane of another shape or type than the stack {item.name}")
            self.remove(item.name)
            layer = None
        if layer is None:
            stack = np.zeros((part.count, *item.array.shape), item.array.dtype)
            stack[part.index] = item.array
            layer = self.viewer.add_image(
                stack, name=item.name, scale=[1.0, *item.scale], contrast_limits=item.limits(0, item.array)
            )
            self._bring_into_view([layer])
        else:
            layer.data[part.index] = item.array
            layer.refresh()
        self._layers[item.name], self._axes[item.name] = [layer], item
        self.viewer.dims.set_current_step(self.viewer.dims.ndim - layer.ndim, part.index)
        return lambda: checksum(layer.data[part.index])

    def _show_shapes(self, item: Shapes) -> None:
        self.remove(item.name)
        layer = self.viewer.add_shapes(
            [shape.vertices for shape in item.items],
            shape_type=[shape.kind for shape in item.items],
            name=item.name,
            **self._plane_of(item.on),
            edge_color="yellow",
            face_color="transparent",
            edge_width=self._line_width(item.on),
            features={"label": [shape.label for shape in item.items]},
            text={"string": "{label}", "color": "yellow"} if any(shape.label for shape in item.items) else None,
        )
        self._layers[item.name] = [layer]

    def _show_points(self, item: Points) -> None:
        self.remove(item.name)
        self._layers[item.name] = [
            self.viewer.add_points(
                item.positions, name=item.name, size=item.size, face_color="red", **self._plane_of(item.on)
            )
        ]

    def _present(self, item: Picture, count: int, ndim: int) -> list[Any]:
        """Return the layers that show this item already, unless they must be made anew."""
        layers, before = self._layers.get(item.name, []), self._axes.get(item.name)
        if (
            before is not None
            and (before.axes, before.unit, before.part) == (item.axes, item.unit, None)
            and len(layers) == count
            and all(layer in self.viewer.layers and np.ndim(layer.data) == ndim for layer in layers)
        ):
            return layers
        self.remove(item.name)
        return []

    def _plane_of(self, on: str) -> dict[str, Any]:
        below = self._axes.get(on)
        if below is None:
            return {}
        scale = below.scale[below.axes.index("Y")], below.scale[below.axes.index("X")]
        return {"scale": scale, "units": _unit(below.unit)}

    def _line_width(self, on: str) -> float:
        below = self._axes.get(on)
        return 1.0 if below is None else max(below.array.shape[below.axes.index("Y")] / 200, 1.0)

    def _bring_into_view(self, layers: list[Any]) -> None:
        """Turn to new layers that would be a dot or a detail in the present view: pixel sizes differ much."""
        if self.viewer.dims.ndisplay != 2:  # noqa: PLR2004  somebody looks at a volume from a side of their own
            return
        # Not with the viewer's `reset_view`, which fails for a plane beside a stack (napari 0.9).
        low, high = (corner[-2:] for corner in layers[0].extent.world)
        width, height = self._scene.size
        fitting = min(height / (high[0] - low[0]), width / (high[1] - low[1]))
        if not _LEAST_SHARE <= self.viewer.camera.zoom / fitting <= _MOST_SHARE:
            self.viewer.camera.center = (low + high) / 2
            self.viewer.camera.zoom = fitting * _MARGIN

    def _draw(self) -> None:
        """Let the window draw; a minimised one cannot, and is not waited for."""
        before, deadline = self._draws, time.monotonic() + _DRAW_SECONDS
        self._scene.update()
        while self._draws == before and time.monotonic() < deadline:
            self._app.processEvents()
            if self.viewer.window._qt_window.isMinimized():
                return

    def _count_draw(self, _: Any) -> None:
        self._draws += 1


def _unit(name: str) -> str:
    """Return a unit as napari takes it; what it does not know is shown in pixels."""
    import pint  # noqa: PLC0415  napari brings it

    registry: Any = pint
    try:
        registry.get_application_registry().Unit(name)
    except Exception:  # noqa: BLE001  pint raises its own errors, and those of Python's tokenizer
        return "pixel"
    return name or "pixel"


def _channel_name(item: Picture, index: int, count: int) -> str:
    if index < len(item.channels):
        return f"{item.name} · {item.channels[index]}"
    return f"{item.name} · {index + 1}" if count > 1 else item.name
