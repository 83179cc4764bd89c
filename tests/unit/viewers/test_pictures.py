"""What can be shown, how it is written into frames, and read back: the same numbers, or a clear refusal."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labrelay_worker.backends.base import Unsupported
from labrelay_worker.viewers.frames import BadMessage, Message, checksum, parse, read_item, show_message
from labrelay_worker.viewers.pictures import DTYPES, Part, Picture, Points, Shape, Shapes, as_showable, box

PLANE = np.arange(12, dtype="uint16").reshape(3, 4)


def through_the_wire(item):
    return read_item(parse([bytes(frame) for frame in show_message(item, 7).frames()]))


@given(
    hnp.arrays(
        dtype=st.sampled_from([np.dtype(name) for name in DTYPES] + [np.dtype(">u2"), np.dtype(">f4")]),
        shape=hnp.array_shapes(min_dims=2, max_dims=5, min_side=1, max_side=4),
    )
)
def test_every_number_arrives_as_it_was_sent(array) -> None:
    # Given any image of two to five axes, of any type a viewer takes
    picture = Picture(array, "x", axes="TZCYX"[-array.ndim :])
    # When it goes through the wire
    arrived = through_the_wire(picture)
    # Then not a bit of it is lost
    assert arrived.array.astype(array.dtype).tobytes() == np.ascontiguousarray(array).tobytes()
    assert arrived.array.shape == array.shape


def test_axes_are_put_in_one_order_with_their_scale() -> None:
    # Given a detector's order of axes
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).astype("uint8")
    picture = Picture(array, "x", axes="XYCZ", scale=(0.1, 0.2, 1, 3), unit="nm", channels=("a", "b", "c", "d"))
    # When it goes through the wire
    arrived = through_the_wire(picture)
    # Then it is ZCYX, and every axis kept its pixel size
    assert (arrived.axes, arrived.scale, arrived.unit) == ("ZCYX", (3.0, 1.0, 0.2, 0.1), "nm")
    assert arrived.array[4, 2, 1, 0] == array[0, 1, 2, 4]


@pytest.mark.parametrize(
    ("picture", "fault"),
    [
        (Picture(np.zeros(5), "a"), "an array of 1 axes cannot be shown"),
        (Picture(np.zeros((0, 4)), "a"), "holds no pixel"),
        (Picture(np.zeros((3, 4), complex), "a"), "no viewer takes complex128"),
        (Picture(np.zeros((3, 4), "int64"), "a"), "no viewer takes int64"),
        (Picture(np.zeros((3, 4)), "a", axes="YQ"), "axes 'YQ' are not letters"),
        (Picture(np.zeros((3, 4)), "a", axes="ZYX"), "2 axes, and 3 names"),
        (Picture(np.zeros((3, 4)), "a", scale=(1.0, 0.0)), "not one number above 0 per axis"),
        (Picture(np.zeros((2, 3, 4)), "a", axes="CYX", channels=("one",)), "1 channel names for 2 channels"),
        (Picture(np.zeros((3, 4)), "a", contrast=((5, 5),)), "low below high"),
        (Picture(np.zeros((3, 4)), "a", part=Part("T", 3, 3)), "a place below the count"),
        (Picture(np.zeros((3, 4, 3)), "a", axes="YXS"), "3 or 4 of uint8"),
        (Shapes((), "a"), "no shape in it"),
        (Shapes((Shape("blob", np.zeros((2, 2))),), "a"), "no shape is called 'blob'"),
        (Points(np.zeros((2, 3)), "a"), "a list of finite"),
    ],
)
def test_what_cannot_be_shown_is_refused_by_name_and_never_cast(picture, fault) -> None:
    with pytest.raises(Unsupported, match=f"a: .*{fault}"):
        show_message(picture, 1)


def test_shapes_and_points_arrive_with_labels_and_the_picture_they_lie_on() -> None:
    shapes = Shapes(
        (Shape("rectangle", np.array(box(1, 2, 3, 4)), "cell"), Shape("line", PLANE[:2, :2])), "r", on="x"
    )
    arrived = through_the_wire(shapes)
    assert [(s.kind, s.label, s.vertices.tolist()) for s in arrived.items] == [
        ("rectangle", "cell", [[1, 2], [1, 4], [3, 4], [3, 2]]),
        ("line", "", [[0, 1], [4, 5]]),
    ]
    assert arrived.on == "x"
    points = through_the_wire(Points(np.array([(1.5, 2.5)]), "p", size=3))
    assert (points.positions.tolist(), points.size) == ([[1.5, 2.5]], 3)


def test_a_message_is_json_and_raw_pixels_and_nothing_else() -> None:
    header, payload = show_message(Picture(PLANE, "x"), 7).frames()
    head = json.loads(header)
    assert head["schema"] == "labrelay.viewer/1"
    assert (head["kind"], head["id"], head["dtype"], head["shape"]) == ("image", 7, "<u2", [3, 4])
    assert bytes(payload) == PLANE.tobytes()


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b"{}", b"", b""],
        [b"\x80\x04pickle"],
        [b"[1]"],
        [b'{"schema":"other/1","kind":"hello"}'],
        [b'{"schema":"labrelay.viewer/1"}'],
        [b"[" * 100_000],
        [b" " * (2 << 20)],
        # what no answer could repeat
        [b'{"schema":"labrelay.viewer/1","kind":"hello","nonce":"\\ud800"}'],
        [b'{"schema":"labrelay.viewer/1","kind":"hello","nonce":"\xed\xa0\x80"}'],
        [b'{"schema":"labrelay.viewer/1","kind":"status","id":NaN}'],
    ],
)
def test_what_is_no_message_of_ours_is_not_read(frames) -> None:
    with pytest.raises(BadMessage):
        parse(frames)


@pytest.mark.parametrize(
    "changed",
    [
        {"dtype": "object"}, {"dtype": "|O"}, {"shape": [1 << 40, 1 << 40]}, {"shape": [-1, 4]}, {"shape": [3, 5]},
        {"axes": "YY"}, {"scale": "x"}, {"part": {"axis": "Q", "index": 0, "count": 1}}, {"contrast": [1]},
        {"shape": 3},
    ],
)  # fmt: skip
def test_a_header_that_contradicts_its_pixels_is_refused(changed) -> None:
    message = show_message(Picture(PLANE, "x"), 1)
    with pytest.raises(BadMessage):
        read_item(Message("image", {**message.fields, **changed}, message.payload))
    with pytest.raises(BadMessage):
        read_item(Message("what", message.fields, message.payload))


def test_the_checksum_tells_other_pixels_from_those_sent() -> None:
    message = show_message(Picture(PLANE, "x"), 1)
    assert checksum(message.payload) == checksum(PLANE)
    assert checksum(PLANE + 1) != checksum(PLANE)


def test_an_array_is_taken_for_planes_and_only_bytes_for_colours() -> None:
    assert as_showable(np.zeros((3, 5, 3), "uint8"), "rgb").canonical().axes == "YXS"
    assert as_showable(np.zeros((3, 5, 3), "uint16"), "stack").canonical().axes == "ZYX"
    with pytest.raises(Unsupported, match="a dict cannot be shown"):
        as_showable({}, "x")
