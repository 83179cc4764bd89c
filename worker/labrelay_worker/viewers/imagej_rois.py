"""Shapes and points as regions of interest on an ImageJ image."""

from __future__ import annotations

from typing import Any

import numpy as np

from labrelay_worker.viewers.imagej_java import Java
from labrelay_worker.viewers.pictures import Points, Shape, Shapes

#: The property of a region that says which item it belongs to.
_OWNER = "labrelay"


def put_on(java: Java, image: Any, item: Shapes | Points) -> None:
    """Put an item's regions on an image, in the place of those of its name."""
    overlay = image.getOverlay() or java("ij.gui.Overlay")()
    for index in reversed(range(int(overlay.size()))):
        if str(overlay.get(index).getProperty(_OWNER)) == item.name:
            overlay.remove(index)
    yellow = java("java.awt.Color").yellow
    for roi in _rois(java, item):
        roi.setStrokeColor(yellow)
        roi.setProperty(_OWNER, item.name)
        overlay.add(roi)
    overlay.drawLabels(True)
    overlay.drawNames(True)
    overlay.setLabelColor(yellow)
    image.setOverlay(overlay)


def _rois(java: Java, item: Shapes | Points) -> list[Any]:
    if isinstance(item, Shapes):
        return [_roi(java, shape) for shape in item.items]
    columns, rows = (java.array(item.positions[:, n].astype(np.float32)) for n in (1, 0))
    return [java("ij.gui.PointRoi")(columns, rows, len(item.positions))]


def _roi(java: Java, shape: Shape) -> Any:
    rows, columns = shape.vertices[:, 0], shape.vertices[:, 1]
    if shape.kind in ("rectangle", "ellipse"):
        box = (columns.min(), rows.min(), np.ptp(columns), np.ptp(rows))
        kind = "ij.gui.Roi" if shape.kind == "rectangle" else "ij.gui.OvalRoi"
        roi = java(kind)(*(float(n) for n in box))
    elif shape.kind == "line":
        roi = java("ij.gui.Line")(*(float(n) for n in (columns[0], rows[0], columns[1], rows[1])))
    else:
        plain = java("ij.gui.Roi")
        kind = plain.POLYGON if shape.kind == "polygon" else plain.POLYLINE
        sides = java.array(columns.astype(np.float32)), java.array(rows.astype(np.float32))
        roi = java("ij.gui.PolygonRoi")(*sides, len(rows), kind)
    if shape.label:
        roi.setName(shape.label)
    return roi
