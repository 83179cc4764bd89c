"""ImageJ windows through JPype: one per item name, painted before they are acknowledged.

Loaded only in the viewer's own process. The same classes are in Fiji, so its jars may be on the class path instead.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from labrelay_worker.viewers.desk import CannotShow, Shown
from labrelay_worker.viewers.frames import checksum
from labrelay_worker.viewers.imagej_java import Java
from labrelay_worker.viewers.imagej_pixels import displayable, held, processor
from labrelay_worker.viewers.imagej_rois import put_on
from labrelay_worker.viewers.pictures import CHANNEL_COLORS, SAMPLES, Part, Picture, Showable

_IDLE_SECONDS = 0.01


class ImageJCanvas:
    """ImageJ with its windows.

    Parameters
    ----------
    title
        Of its main window.
    classpath
        Jars, separated as in PATH, wildcards allowed; None: see `find_jars`.
    """

    def __init__(self, title: str, classpath: str | None = None) -> None:
        self._java = Java(classpath)
        self._ij: Any = self._java("ij.ImageJ")()
        self._ij.exitWhenQuitting(False)
        self._ij.setTitle(title)
        self._windows: dict[str, Any] = {}

    def run(self, work: Callable[[], bool]) -> None:
        """Work until `work` returns False or a person quits ImageJ."""
        while work():
            if self._ij.quitting() or not self._ij.isDisplayable():
                break
            time.sleep(_IDLE_SECONDS)

    def open(self, path: str) -> None:
        """Open a file with ImageJ's own readers."""
        self._java("ij.IJ").open(str(Path(path).absolute()))

    def show(self, item: Showable, digest: int) -> Shown:
        """Draw an item and return once it is on the screen."""
        if not isinstance(item, Picture):
            image = self._target(item.on)
            put_on(self._java, image, item)
            self._paint(image)
            return Shown(digest)
        planes, note = displayable(item)
        image = self._show_part(item, planes[0]) if item.part is not None else self._show_picture(item, planes)
        self._paint(image)
        index = item.part.index if item.part is not None else 0
        shown = [held(image.getStack().getPixels(index + n + 1), plane) for n, plane in enumerate(planes)]
        is_same = all(np.array_equal(a, b, equal_nan=b.dtype.kind == "f") for a, b in zip(shown, planes, strict=True))
        if is_same:
            # In another form the numbers were compared, in the same form their checksum says it.
            return Shown(digest if note else checksum(np.stack(shown)), note)
        return Shown(0, "ImageJ holds other pixels")

    def remove(self, name: str) -> None:
        """Close an item's window."""
        image = self._windows.pop(name, None)
        if image is not None:
            image.changes = False
            image.close()

    def shot(self, *, whole_window: bool) -> bytes:
        """Return the front image's area, or the whole screen, as PNG of what the display shows."""
        toolkit, robot = self._java("java.awt.Toolkit").getDefaultToolkit(), self._java("java.awt.Robot")()
        area = self._java("java.awt.Rectangle")(toolkit.getScreenSize())
        if not whole_window:
            image = self._java("ij.WindowManager").getCurrentImage()
            if image is None:
                raise CannotShow("no image is open")
            self._paint(image)
            window, canvas = image.getWindow(), image.getCanvas()
            if not window.getX() and not window.getY():
                # Without a window manager Java may take a new window to be in the corner for good; once moved, it is.
                window.setLocation(1, 1)
            robot.waitForIdle()
            area = self._java("java.awt.Rectangle")(canvas.getLocationOnScreen(), canvas.getSize())
        picture = robot.createScreenCapture(area)
        stream = self._java("java.io.ByteArrayOutputStream")()
        self._java("javax.imageio.ImageIO").write(picture, "png", stream)
        return bytes(memoryview(stream.toByteArray()))

    def status(self) -> dict[str, Any]:
        """Return the open images with their sizes."""
        return {
            "viewer": "imagej",
            "version": str(self._java("ij.IJ").getVersion()),
            "items": [
                {
                    "name": name,
                    "shape": [int(n) for n in reversed(list(image.getDimensions()))],
                    "pixel": [float(image.getCalibration().pixelHeight), float(image.getCalibration().pixelWidth)],
                    "unit": str(image.getCalibration().getUnit()),
                    "overlay": 0 if image.getOverlay() is None else int(image.getOverlay().size()),
                }
                for name, image in self._windows.items()
                if image.getWindow() is not None
            ],
        }

    def _show_picture(self, item: Picture, planes: list[np.ndarray[Any, Any]]) -> Any:
        height, width = planes[0].shape[:2]
        stack = self._java("ij.ImageStack")(width, height)
        for plane in planes:
            stack.addSlice("", processor(self._java, plane))
        sizes = {letter: item.array.shape[item.axes.index(letter)] for letter in "CZT" if letter in item.axes}
        image = self._java("ij.ImagePlus")(item.name, stack)
        image.setDimensions(*(int(sizes.get(letter, 1)) for letter in "CZT"))
        if len(planes) > 1:
            image.setOpenAsHyperStack(True)
        channels = sizes.get("C", 1)
        if channels > 1:
            composite = self._java("ij.CompositeImage")
            image = composite(image, composite.COMPOSITE)
        self._calibrate(image, item)
        for channel in range(channels):
            if channels > 1:
                image.setC(channel + 1)
                color = getattr(self._java("java.awt.Color"), CHANNEL_COLORS[channel % len(CHANNEL_COLORS)])
                image.setChannelLut(self._java("ij.process.LUT").createLutFromColor(color))
            self._set_contrast(image, item, channel, planes[channel])
        if channels > 1:
            image.setC(1)
        self._place(item, image)
        return image

    def _show_part(self, item: Picture, plane: np.ndarray[Any, Any]) -> Any:
        part = item.part
        image: Any = self._windows.get(item.name)
        assert part is not None  # noqa: S101  the caller looked
        is_open = image is not None and image.getWindow() is not None
        if is_open and not self._fits(image, part, plane):
            if part.index:
                raise CannotShow(f"a plane of another shape or type than the stack {item.name}")
            is_open = False
        if not is_open:
            stack = self._java("ij.ImageStack")(plane.shape[1], plane.shape[0])
            blank = np.zeros_like(plane)
            for index in range(part.count):
                stack.addSlice("", processor(self._java, plane if index == part.index else blank))
            image = self._java("ij.ImagePlus")(item.name, stack)
            image.setDimensions(1, *((part.count, 1) if part.axis == "Z" else (1, part.count)))
            image.setOpenAsHyperStack(part.count > 1)
            self._calibrate(image, item)
            self._set_contrast(image, item, 0, plane)
            self._place(item, image)
        else:
            image.getStack().setPixels(processor(self._java, plane).getPixels(), part.index + 1)
            image.setSlice(part.index + 1)
            # The processor of the slice on the screen keeps its old pixels until it is set anew.
            image.getProcessor().setPixels(image.getStack().getPixels(part.index + 1))
            image.updateAndDraw()
        return image

    def _fits(self, image: Any, part: Part, plane: np.ndarray[Any, Any]) -> bool:
        same_size = (image.getStackSize(), image.getHeight(), image.getWidth()) == (part.count, *plane.shape[:2])
        return same_size and int(image.getBytesPerPixel()) == plane.itemsize

    def _place(self, item: Picture, image: Any) -> None:
        """Show an image where an earlier one of its name was."""
        earlier = self._windows.get(item.name)
        where = None
        if earlier is not None and earlier.getWindow() is not None:
            where = earlier.getWindow().getLocation()
            self.remove(item.name)
        image.show()
        if where is not None:
            image.getWindow().setLocation(where)
        self._windows[item.name] = image

    def _calibrate(self, image: Any, item: Picture) -> None:
        step = dict(zip(item.axes, item.scale, strict=True))
        calibration = image.getCalibration()
        calibration.pixelHeight, calibration.pixelWidth = step["Y"], step["X"]
        calibration.pixelDepth, calibration.frameInterval = step.get("Z", 1.0), step.get("T", 1.0)
        if item.unit:
            calibration.setUnit(item.unit)

    def _set_contrast(self, image: Any, item: Picture, channel: int, plane: np.ndarray[Any, Any]) -> None:
        if SAMPLES not in item.axes:
            image.setDisplayRange(*item.limits(channel, plane))

    def _target(self, on: str) -> Any:
        image = self._windows.get(on) or self._java("ij.WindowManager").getCurrentImage()
        if image is None or image.getWindow() is None:
            raise CannotShow("ImageJ draws shapes and points on an image only, and none is open")
        return image

    def _paint(self, image: Any) -> None:
        """Have the window painted: what is queued after the painting is done after it."""
        image.updateAndDraw()
        image.getCanvas().repaint()
        self._java.wait_for_events()


def end_process() -> None:
    """End the process: the JVM's windows would keep it alive."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
