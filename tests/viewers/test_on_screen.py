"""What real viewers show, read from the X server's pixels and compared with the data."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from lab import wait_until
from PIL import Image
from seeing import BACKENDS, CONTRAST, PATIENCE, assert_seen, backend, quarters, see
from viewing import IMAGES

from labrelay_worker.backends.base import Unavailable
from labrelay_worker.viewers.pictures import Part, Picture, Points, Shape, Shapes, box
from labrelay_worker.viewers.ticket import Fate

pytestmark = pytest.mark.timeout(300)


def test_fifty_planes_of_a_camera_are_on_the_screen(kind, screen, start_viewer, tmp_path) -> None:
    # Given a viewer and a backend
    viewer, stream = start_viewer(kind), backend(kind)
    deadline = time.monotonic() + PATIENCE
    planes = [Picture(quarters(n), "live", contrast=CONTRAST, part=Part("T", n, 50)) for n in range(4)]

    # When 50 planes of 2048 x 2048 uint16 are streamed
    tickets = []
    for n in range(50):
        plane = planes[n % 4]
        tickets.append(stream.offer(Picture(plane.array, "live", contrast=CONTRAST, part=Part("T", n, 50)), deadline))
        # Then on the way, too, what was displayed last is on the screen
        if n in (10, 31):
            assert tickets[-1].wait(deadline) is Fate.DISPLAYED
            see(screen, n)
    tally = stream.wait(tickets, deadline)
    assert str(tally) == "50 of 50 displayed"
    see(screen, 49)

    # And the viewer says the same of itself, and its own picture holds the same pixels
    status = json.loads(viewer.command("--status"))
    (item,) = [item for item in status["items"] if item["name"] == "live"]
    assert [n for n in item["shape"] if n > 1] == [50, 2048, 2048]
    assert (status["shown"], status["refused"]) == (50, 0)
    viewer.command("--shot", str(tmp_path / "shot.png"))
    assert_seen(tmp_path / "shot.png", 49)
    stream.cleanup_connections()


def test_channels_pixel_size_colours_and_regions_are_shown(kind, screen, start_viewer) -> None:
    # Given a viewer
    viewer, stream = start_viewer(kind), backend(kind)
    # When a volume of two channels with a pixel size comes, and regions on it
    ramp = np.linspace(0, 1000, 256, dtype="float32").reshape(1, 1, 1, 1, 256)
    volume = np.broadcast_to(ramp, (2, 3, 2, 256, 256)).copy()
    volume[:, :, 0, :128] = 0  # the first channel only below, the second only above
    volume[:, :, 1, 128:] = 0
    picture = Picture(
        volume.astype("uint16"), "cells", axes="TZCYX", scale=(1, 2, 1, 0.5, 0.5), unit="nm",
        channels=("green", "magenta"), contrast=((0, 1000), (0, 1000)),
    )  # fmt: skip
    shapes = (
        Shape("rectangle", np.array(box(40, 40, 100, 200)), "nucleus"),
        Shape("ellipse", np.array(box(150, 30, 220, 120))),
        Shape("polygon", np.array([(140, 150), (230, 160), (200, 240)])),
        Shape("path", np.array([(10, 140), (30, 180), (20, 230)]), "edge"),
        Shape("line", np.array([(240, 20), (245, 240)])),
    )
    spots = Points(np.array([(20.0, 20.0), (120.0, 128.0)]), "spots", on="cells", size=8)
    stream.save_batch([picture, Shapes(shapes, "regions", on="cells"), spots], ["cells", "regions", "spots"])

    # Then the colours of both channels and of the regions are on the screen
    def colours() -> bool:
        p = screen.pixels().astype(int)
        first = ((p[..., 1] > 150) & (p[..., 0] < 60) & (p[..., 2] < 60)).sum()
        second = ((p[..., 0] > 150) & (p[..., 2] > 150) & (p[..., 1] < 60)).sum()
        yellow = ((p[..., 0] > 140) & (p[..., 1] > 140) & (p[..., 2] < p[..., 0] - 50)).sum()
        return min(first, second) > 500 and yellow > 100

    wait_until(colours, 20, "green, magenta and yellow on the screen")
    # And the viewer knows the size of a pixel
    items = json.loads(viewer.command("--status"))["items"]
    first = next(item for item in items if item["name"].startswith("cells"))
    assert first.get("scale", [0.5, 0.5])[-2:] == first.get("pixel", [0.5, 0.5]) == [0.5, 0.5]
    if kind == "imagej":
        assert (first["unit"], first["overlay"], first["shape"]) == ("nm", 6, [2, 3, 2, 256, 256])
    else:
        assert [item["name"] for item in items] == ["cells · green", "cells · magenta", "regions", "spots"]
    stream.cleanup()
    assert viewer.process.wait(30) == 0


def test_every_type_of_number_is_displayed(kind, screen, start_viewer) -> None:
    # Given a viewer
    start_viewer(kind)
    stream = backend(kind)
    values = np.arange(64 * 48).reshape(64, 48) % 250
    # When pictures of every type come, and colours
    for dtype in ("bool", "uint8", "int8", "int16", "uint32", "float32", "float64", ">u2"):
        stream.save((values > 100) if dtype == "bool" else values.astype(dtype), f"numbers {dtype}")
    stream.save(np.stack([values.astype("uint8")] * 3, axis=-1), "colours")
    # Then all are displayed, with the numbers that were sent
    assert str(stream.totals) == "9 of 9 displayed"
    stream.cleanup()


def test_a_plane_beside_a_stack_of_another_size_fills_the_view(kind, screen, start_viewer, tmp_path) -> None:
    # Given a viewer with a small stack of small pixels
    viewer, stream = start_viewer(kind), backend(kind)
    stream.save(Picture(np.zeros((3, 64, 64), "uint8"), "stack", scale=(1, 0.1, 0.1), unit="nm"), "stack")
    # When a plane of another size comes
    stream.save(Picture(quarters(1), "plane", scale=(0.5, 0.5), unit="nm", contrast=CONTRAST), "plane")
    # Then all of it is seen
    viewer.command("--shot", str(tmp_path / "shot.png"))
    assert_seen(tmp_path / "shot.png", 1)
    stream.cleanup()


def test_a_viewer_that_is_full_lets_the_oldest_pictures_go(kind, screen, start_viewer, tmp_path) -> None:
    # Given a viewer that may hold 20 MiB, and pictures of 8 MiB
    viewer, stream = start_viewer(kind, "--memory", "20"), backend(kind)
    for number in range(4):
        stream.save(Picture(quarters(number), f"picture {number}", contrast=CONTRAST), f"picture {number}")
    # Then all were displayed, and the last two are there
    assert str(stream.totals) == "4 of 4 displayed"
    status = json.loads(viewer.command("--status"))
    assert sorted(item["name"] for item in status["items"]) == ["picture 2", "picture 3"]
    assert (status["evicted"], status["held"]) == (2, 16 << 20)
    viewer.command("--shot", str(tmp_path / "shot.png"))
    assert_seen(tmp_path / "shot.png", 3)
    # And what is larger than everything it may hold is refused with the cure
    with pytest.raises(Unavailable, match="--memory"):
        stream.save(np.zeros((3, 2048, 2048), "uint16"), "too large")
    stream.cleanup()


def test_a_viewer_told_to_listens_on_a_port_of_loopback(kind, screen, start_viewer) -> None:
    # Given a viewer on a free port instead of a private socket
    viewer, stream = start_viewer(kind, "--port", "0"), backend(kind)
    endpoint = json.loads(stream.place.note_file.read_text())["endpoint"]
    assert endpoint.startswith("tcp://127.0.0.1:")
    # When a backend is given that port
    port = int(endpoint.rpartition(":")[2])
    named = backend(kind, port=port)
    named.save(Picture(quarters(2), "plane", contrast=CONTRAST), "plane")
    # Then its picture is on the screen
    see(screen, 2)
    named.cleanup()
    assert viewer.process.wait(30) == 0


def test_a_viewer_started_by_a_worker_outlives_it_and_ends_on_cleanup(kind, screen, lab) -> None:
    # Given no viewer, and a backend that may start one
    first = BACKENDS[kind](start="auto", patience=PATIENCE)
    first.save(quarters(size=256), "plane")
    # When its worker lets go of its connections
    first.cleanup_connections()
    # Then the window stays, and another worker goes on in it
    assert first.place.is_held()
    second = BACKENDS[kind](start="never", patience=PATIENCE)
    second.save(Picture(quarters(1, 256), "plane", contrast=CONTRAST), "plane")
    see(screen, 1)
    # And a full cleanup closes it
    second.cleanup()
    wait_until(lambda: not first.place.is_held(), 30, "the viewer's end")
    assert not first.place.note_file.exists()


def test_pictures_for_the_documents_are_small_and_show_the_session(
    kind, screen, start_viewer, request, tmp_path
) -> None:
    # Given a session as people have it
    viewer, stream = start_viewer(kind), backend(kind)
    rows, columns = np.mgrid[0:512, 0:512]
    cells = np.zeros((2, 512, 512))
    random = np.random.default_rng(7)
    for y, x in random.uniform(40, 470, (40, 2)):
        distance = (rows - y) ** 2 + (columns - x) ** 2
        cells[0] += 900 * np.exp(-distance / 120)
        cells[1] += 500 * np.exp(-distance / 700)
    picture = Picture(
        cells.astype("uint16"), "plate 7 · B03", axes="CYX", scale=(1, 0.65, 0.65), unit="um",
        channels=("nuclei", "cytoplasm"), contrast=((0, 900), (0, 900)),
    )  # fmt: skip
    regions = Shapes((Shape("rectangle", np.array(box(60, 60, 220, 260)), "field 1"),), "regions", on="plate 7 · B03")
    stream.save_batch([picture, regions], ["a", "b"])
    wait_until(lambda: (screen.pixels()[..., 1] > 120).sum() > 2000, 20, "the picture on the screen")
    # Then the picture of the screen is fit for the documents; --write-images puts it there
    folder = IMAGES if request.config.getoption("--write-images") else tmp_path
    folder.mkdir(exist_ok=True)
    picture_file = folder / f"viewer-{kind}.png"
    screen.save(picture_file, 256)
    assert picture_file.stat().st_size < 300_000
    with Image.open(picture_file) as saved:
        assert min(saved.size) > 400
    assert viewer.process.poll() is None
