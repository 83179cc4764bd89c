"""Files of instruments and OME-Zarr stores in real viewers: the pixels on the screen, and their size."""

from __future__ import annotations

import json

import numpy as np
import pytest
from seeing import BACKENDS, PATIENCE, assert_seen, backend, quarters, see
from signals import image, shared_sessions, write_mrc

from labrelay.context import ExportContext
from labrelay_worker.backends.zarr import ZarrBackend
from labrelay_worker.reading.signal import Well
from labrelay_worker.viewers.reading import planes_of

pytestmark = [pytest.mark.timeout(300), pytest.mark.integration]


def pixel_of(item: dict) -> tuple[list[float], str]:
    """Return the size of a pixel and its unit, as either viewer says it."""
    units = item.get("units") or [item["unit"]]
    return item.get("scale", item.get("pixel"))[-2:], units[-1]


def with_limits(plane: np.ndarray) -> np.ndarray:
    """Return a plane with a corner of black and one of white, which survive in its smaller levels."""
    plane = plane.copy()
    plane[:4, :4], plane[-4:, -4:] = 0, 65280
    return plane


@pytest.mark.parametrize("address", ["image.ome.zarr", "plate.ome.zarr/B/3/0"])
def test_napari_opens_a_stored_image_with_its_pixel_size(screen, start_viewer, tmp_path, address) -> None:
    # Given an image of several levels, stored by the zarr backend
    planes = np.stack([with_limits(quarters(turn, 1024)) for turn in range(3)])
    well = Well("plate", "B", "3") if "plate" in address else None
    ZarrBackend(tmp_path / "store").save(image(planes, 0.25, "nm", well, name="tilt"), address)
    # When napari is started with it
    viewer = start_viewer("napari", str(tmp_path / "store" / address))
    # Then its pixels are on the screen and in the canvas, grey by grey
    (item,) = json.loads(viewer.command("--status"))["items"]
    see(screen, 1)  # napari begins in the middle of a stack
    viewer.command("--shot", str(tmp_path / "shot.png"))
    assert_seen(tmp_path / "shot.png", 1)
    # And a pixel has its size
    assert (item["name"], item["shape"]) == ("tilt", [3, 1024, 1024])
    assert pixel_of(item) == ([0.25, 0.25], "nanometer")


def test_a_file_of_an_instrument_is_delivered_to_the_screen(kind, screen, start_viewer, lab) -> None:
    # Given a worker and a viewer
    viewer = start_viewer(kind)
    lab.destinations["screen"] = {"type": BACKENDS[kind]._backend_type, "start": "never", "patience": 60.0}
    lab.write_settings()
    lab.start_worker()
    # When a session with a tomogram of half a nanometre a pixel is exported
    context = lab.session(1, files=0)
    path = lab.folder / "data/1/tilt.mrc"
    write_mrc(path, np.stack([with_limits(quarters(2, 512))] * 3), 0.5)
    given = json.loads(context.model_dump_json(exclude_none=True))
    fields = ("xml_file_path", "session_identifier", "instrument_pid", "dt_from", "dt_to")
    parsed = ExportContext.parse({key: given[key] for key in fields} | {"activities": [{"files": [str(path)]}]})
    with lab.client() as client:
        export_id = client.submit(parsed).export_id
    # Then it is on the screen, and the receipt says so
    delivery = next(d for d in lab.finished(export_id).deliveries if d.destination == "screen")
    assert delivery.receipt is not None, delivery
    assert delivery.receipt.verified == "1 of 1 displayed"
    if kind == "napari":  # ImageJ stretches the contrast of what comes without limits
        see(screen, 2)
    # And the viewer knows the size of a pixel
    (item,) = json.loads(viewer.command("--status"))["items"]
    size, unit = pixel_of(item)
    assert size == [0.5, 0.5]
    assert unit in ("nm", "nanometer")


def test_files_of_a_real_microscope_are_shown_with_their_pixel_size(kind, screen, start_viewer, tmp_path) -> None:
    files = sorted(shared_sessions(tmp_path / "sessions").rglob("*.dm3"))
    # Given a viewer
    viewer, stream = start_viewer(kind), backend(kind, patience=PATIENCE)
    # When real files come, of two pixel sizes
    pictures = [picture for path in files for picture in planes_of(path, path.name, None, "s")]
    stream.save_batch(pictures, [picture.name for picture in pictures])
    # Then each is displayed, with the size and the unit that its file has
    assert str(stream.totals) == "12 of 12 displayed"
    items = {item["name"]: item for item in json.loads(viewer.command("--status"))["items"]}
    for picture in pictures:
        size, unit = pixel_of(items[picture.name])
        assert size == pytest.approx(list(picture.scale), rel=1e-12)
        assert unit in {"nm": ("nm", "nanometer"), "": ("pixel", "pixels")}[picture.unit]
    # And what came last fills the window, though its pixels have another size
    shown = screen.pixels()
    assert (shown.std(axis=-1) < 1).mean() > 0.2
    stream.cleanup()
