"""Which well a file's images belong to, as the context says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labrelay.context import ExportContext
from labrelay.errors import Rejected
from labrelay_worker.destinations.plates import plate_of

Build = Callable[..., ExportContext]


def test_a_session_without_a_plate_has_none(make_context: Build) -> None:
    assert plate_of(make_context()) is None


def test_files_go_to_the_wells_they_are_named_for(make_context: Build) -> None:
    # Given a plate with a well for all, one for a file, and one for the end of a path
    plate = plate_of(
        make_context(
            metadata={
                "plate": {
                    "name": "P1", "rows": 8, "columns": 12, "well": "A01",
                    "wells": {"b.dm3": "B2", "day2/b.dm3": {"well": "h12", "field": 4}},
                }
            }
        )
    )  # fmt: skip
    assert plate is not None
    # When images are placed, then the longest name that fits decides, and the images of a well are numbered
    names = ["/d/a.dm3", "/d/b.dm3", "/d/day2/b.dm3", "/d/c.dm3", "/d/day2/b.dm3"]
    wells = [plate.place(Path(name)) for name in names]
    assert [(w.row, w.column, w.field) for w in wells if w] == [
        ("A", "1", 0), ("B", "2", 0), ("H", "12", 4), ("A", "1", 1), ("H", "12", 5),
    ]  # fmt: skip
    assert wells[0] is not None
    assert wells[0].rows == tuple("ABCDEFGH")
    assert wells[0].columns == tuple(str(number) for number in range(1, 13))


def test_a_file_of_no_well_is_outside_the_plate(make_context: Build) -> None:
    plate = plate_of(make_context(metadata={"plate": {"name": "P1", "wells": {"a.dm3": "A1"}}}))
    assert plate is not None
    assert plate.place(Path("/d/b.dm3")) is None


def test_a_plate_keeps_its_own_names(make_context: Build) -> None:
    given = {"name": "P1", "rows": ["A", "AA"], "columns": ["01", "02"], "well": "AA2"}
    plate = plate_of(make_context(metadata={"plate": given}))
    assert plate is not None
    place = plate.place(Path("x"))
    assert place is not None
    assert (place.row, place.column) == ("AA", "02")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ("P1", "metadata.plate "),
        ({"rows": 8}, "at least a name"),
        ({"name": "P", "colums": 8}, r"metadata.plate.colums is not known"),
        ({"name": "P", "rows": -1}, "metadata.plate.rows"),
        ({"name": "P", "columns": ["a b"]}, "metadata.plate.columns"),
        ({"name": "P", "well": "3B"}, "such as B03"),
        ({"name": "P", "rows": 2, "well": "C1"}, "C1 is not among the plate's rows"),
        ({"name": "P", "wells": {"a": {"well": "A1", "field": "x"}}}, r"wells\[a\].field"),
    ],
)
def test_a_mistake_is_named_with_its_field(make_context: Build, given: Any, field: str) -> None:
    with pytest.raises(Rejected, match=field):
        plate_of(make_context(metadata={"plate": given}))
