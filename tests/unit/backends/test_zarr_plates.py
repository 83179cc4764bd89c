"""Plates: what is declared is what is there, whoever writes and in whatever order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from signals import counts, image, validate

from labrelay_worker.backends.zarr import ZarrBackend
from labrelay_worker.reading.signal import Well

PLATE = "plates/p1.ome.zarr"


def well(row: str, column: str, **given: Any) -> Well:
    return Well("screen 7", row, column, **given)


def declared(folder: Path) -> list[str]:
    attributes = dict(zarr.open_group(folder / PLATE, mode="r").attrs)
    return [entry["path"] for entry in attributes.get("ome", attributes)["plate"]["wells"]]


@pytest.mark.parametrize("ngff", ["0.5", "0.4"])
def test_a_well_joins_its_plate(tmp_path: Path, ngff: Any) -> None:
    # Given a plate of 2 by 3
    backend = ZarrBackend(tmp_path, ngff=ngff)
    layout = {"rows": ("A", "B"), "columns": ("1", "2", "10")}
    # When images of two wells arrive, the last one first
    backend.save(image(counts((30, 40)), well=well("B", "10", **layout)), f"{PLATE}/B/10/0")
    backend.save(image(counts((2, 30, 40)), well=well("A", "2", **layout)), f"{PLATE}/A/2/0")
    backend.save(image(counts((30, 41)), well=well("A", "2", **layout)), f"{PLATE}/A/2/1")
    # Then the plate has all its rows and columns, and the wells that are there
    attributes = dict(zarr.open_group(tmp_path / PLATE, mode="r").attrs)
    plate = attributes.get("ome", attributes)["plate"]
    assert (plate["name"], plate["field_count"]) == ("screen 7", 2)
    assert [row["name"] for row in plate["rows"]] == ["A", "B"]
    assert [column["name"] for column in plate["columns"]] == ["1", "2", "10"]
    assert [(w["path"], w["rowIndex"], w["columnIndex"]) for w in plate["wells"]] == [("A/2", 0, 1), ("B/10", 1, 2)]
    assert backend.load(f"{PLATE}/A/2/1").shape == (30, 41)
    validate(tmp_path / PLATE)


def test_a_plate_is_a_directory_of_images(tmp_path: Path) -> None:
    backend = ZarrBackend(tmp_path)
    backend.save_batch([counts((4, 4)), counts((5, 5))], [f"{PLATE}/A/1/0", f"{PLATE}/C/1/0"])
    assert backend.is_dir(PLATE)
    assert backend.list_dir(PLATE) == ["A", "C"]
    assert backend.list_files("plates", recursive=True) == [Path(f"{PLATE}/A/1/0"), Path(f"{PLATE}/C/1/0")]


def test_an_image_that_is_deleted_is_no_longer_declared(tmp_path: Path) -> None:
    backend = ZarrBackend(tmp_path)
    backend.save_batch([counts((4, 4))] * 3, [f"{PLATE}/A/1/0", f"{PLATE}/A/1/1", f"{PLATE}/B/2/0"])
    backend.delete(f"{PLATE}/A/1/0")
    assert declared(tmp_path) == ["A/1", "B/2"]
    backend.delete_all(f"{PLATE}/A")
    assert declared(tmp_path) == ["B/2"]
    validate(tmp_path / PLATE)


def test_a_commit_repairs_what_another_one_left(tmp_path: Path) -> None:
    # Given a well whose worker was killed before it was declared, and a plate document that is torn
    backend = ZarrBackend(tmp_path)
    backend.save(counts((4, 4)), f"{PLATE}/A/1/0")
    (tmp_path / PLATE / "A/1/zarr.json").unlink()
    (tmp_path / PLATE / "zarr.json").write_text('{"zarr_for')
    # When any other well is committed, then both are declared
    backend.save(counts((4, 4)), f"{PLATE}/B/1/0")
    assert declared(tmp_path) == ["A/1", "B/1"]
    validate(tmp_path / PLATE)


def test_readers_are_not_disturbed_by_a_well_on_its_way(tmp_path: Path) -> None:
    # Given a plate, and an image in it that is staged but not in place
    backend = ZarrBackend(tmp_path)
    backend.save(counts((4, 4)), f"{PLATE}/A/1/0")
    from labrelay_worker.backends.ngff.images import spot_of

    with backend._images.images.writing() as writing:
        spot = spot_of(f"{PLATE}/A/2/0")
        assert spot is not None
        writing.stage(spot, image(counts((4, 4))), backend._images._recipe)
        # Then the others are read and listed as before
        assert np.array_equal(backend.load(f"{PLATE}/A/1/0"), counts((4, 4)))
        assert backend.list_files(PLATE, recursive=True) == [Path(f"{PLATE}/A/1/0")]
        validate(tmp_path / PLATE)


def test_a_lock_that_is_held_for_too_long_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    from labrelay_worker.backends.base import Unavailable

    backend = ZarrBackend(tmp_path)
    backend.save(counts((4, 4)), f"{PLATE}/A/1/0")
    monkeypatch.setattr("labrelay_worker.backends.ngff.plate_folder.LOCK_TIMEOUT", 0.05)
    with (tmp_path / PLATE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="another process has held its lock"):
            backend.save(counts((4, 4)), f"{PLATE}/A/2/0")
    # And once it is free, the repetition completes what was left
    backend.save(counts((4, 4)), f"{PLATE}/A/2/0", if_exists="replace")
    assert declared(tmp_path) == ["A/1", "A/2"]
