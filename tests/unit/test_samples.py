"""The sample sessions: valid, readable, the same every time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from lxml import etree
from PIL import Image

from labrelay.context import ExportContext
from labrelay_worker.demo.samples import make_samples

_SCHEMA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "nexus-experiment.xsd"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    make_samples(folder)
    return folder


def _records(samples: Path) -> list[Path]:
    return sorted((samples / "records").glob("*.xml"))


def _read(samples: Path, record: Path) -> ExportContext:
    return ExportContext.from_nexus_record(
        record, instrument_root=samples / "instrument", preview_root=samples / "nexus"
    )


def _context(samples: Path, record: Path) -> ExportContext:
    return ExportContext.parse((samples / "contexts" / f"{record.stem}.json").read_bytes())


def _hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.skipif(not _SCHEMA.is_file(), reason="the schema lies beside the repository")
def test_the_records_are_valid_against_the_nexus_schema(samples: Path) -> None:
    # Given the schema of NexusLIMS
    schema = etree.XMLSchema(etree.parse(str(_SCHEMA)))
    # When the records are validated, then none is refused
    for record in _records(samples):
        schema.assertValid(etree.parse(str(record)))


def test_a_record_reads_back_as_its_context_says(samples: Path) -> None:
    for record in _records(samples):
        # Given the ready-made context of a session
        context = _context(samples, record)
        # When its record is read
        read = _read(samples, record)
        # Then both name the same instrument, times, files and previews
        assert (read.instrument_pid, read.dt_from, read.dt_to) == (
            context.instrument_pid,
            context.dt_from,
            context.dt_to,
        )
        assert context.xml_file_path == Path("records") / record.name
        for a, b in zip(read.activities, context.activities, strict=True):
            assert a.start == b.start
            assert a.files == tuple(str(samples / file) for file in b.files)
            assert a.previews == tuple(samples / preview for preview in b.previews if preview is not None)


def test_every_file_that_a_record_names_exists_and_nothing_else_does(samples: Path) -> None:
    # Given all that the records name
    activities = [activity for record in _records(samples) for activity in _read(samples, record).activities]
    named = {Path(file) for activity in activities for file in activity.files}
    named |= {preview for activity in activities for preview in activity.previews if preview is not None}
    # When it is compared with the folders
    written = {path for top in ("instrument", "nexus") for path in (samples / top).rglob("*") if path.is_file()}
    # Then both agree
    assert named == written


def test_the_samples_hold_the_traps_of_real_sessions(samples: Path) -> None:
    # Given the records and what they name
    first, second = _records(samples)
    files = [
        f for record in (first, second) for activity in _read(samples, record).activities for f in activity.files
    ]
    # Then a file counts twice in each session, a name has a blank and another is not ASCII
    assert len(files) - len(set(files)) == 2
    assert any(" " in Path(file).name for file in files)
    assert any(not file.isascii() for file in files)
    # And one record has the line ends of Windows, and names that are not ASCII
    assert b"\r\n" in first.read_bytes()
    assert b"\r\n" not in second.read_bytes()
    assert "Zoë Müller" in first.read_text(encoding="utf-8")
    # And instruments and identifiers differ
    contexts = [_context(samples, record) for record in (first, second)]
    assert len({context.instrument_pid for context in contexts}) == 2
    assert {c.session_identifier for c in contexts} == {
        f"https://nemo.example.org/api/usage_events/?id={n}" for n in (1001, 1002)
    }


def test_an_mrc_file_says_its_size_and_pixel_size(samples: Path) -> None:
    # Given an MRC file
    data = next((samples / "instrument").rglob("hrtem_001.mrc")).read_bytes()
    # When its header is read as MRC2014 lays it out
    columns, rows, sections, mode = np.frombuffer(data, "<i4", 4)
    cell = np.frombuffer(data, "<f4", 3, offset=40)
    # Then it is one image of uint16 with 0.2 Å per pixel, and as long as it says
    assert (columns, rows, sections, mode) == (512, 512, 1, 6)
    assert cell[:2] / 512 == pytest.approx(0.2)
    assert data[208:216] == b"MAP \x44\x44\0\0"
    assert len(data) == 1024 + 512 * 512 * 2
    image = np.frombuffer(data, "<u2", offset=1024)
    assert np.frombuffer(data, "<f4", 3, offset=76) == pytest.approx([image.min(), image.max(), image.mean()])


def test_tiff_files_say_their_scale_and_signals(samples: Path) -> None:
    # Given the TIFF files of the first session
    instrument = samples / "instrument" / "Titan_TEM"
    single, pair = next(instrument.rglob("overview 01.tif")), next(instrument.rglob("survey.ome.tif"))
    # When they are opened
    with tifffile.TiffFile(single) as tiff:
        # Then the single one is for ImageJ, with pixels per micrometre
        assert tiff.is_imagej
        assert tiff.pages.first.tags["XResolution"].value == (2000, 1)
        assert tiff.asarray().shape == (512, 512)
    with tifffile.TiffFile(pair) as tiff:
        # And the other is OME with a named channel per signal
        assert 'Name="HAADF"' in (tiff.ome_metadata or "")
        assert 'PhysicalSizeX="0.25"' in (tiff.ome_metadata or "")
        assert tiff.asarray().shape == (2, 512, 512)


def test_previews_are_small_pictures_that_show_something(samples: Path) -> None:
    for path in (samples / "nexus").rglob("*.png"):
        # Given a preview, when it is opened
        with Image.open(path) as image:
            pixels = np.asarray(image)
        # Then it is small and grey, and neither black nor flat
        assert pixels.shape == (256, 256)
        assert pixels.std() > 10


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(samples: Path, tmp_path: Path) -> None:
    # Given samples, when the first session is made again with the same seed and with another
    make_samples(tmp_path / "same", sessions=1)
    make_samples(tmp_path / "other", sessions=1, seed=2)
    # Then the same seed gives the same bytes
    same, other, all_ = _hashes(tmp_path / "same"), _hashes(tmp_path / "other"), _hashes(samples)
    assert same.items() <= all_.items()
    # And another seed gives other images under the same names, but the same records
    changed = {name for name in same if same[name] != other[name]}
    assert changed == {name for name in same if name.startswith(("instrument/", "nexus/"))}


def test_contexts_are_written_for_people_to_read(samples: Path) -> None:
    # Given a context file, when it is read as text, then names are spelled out and paths use slashes
    text = next((samples / "contexts").glob("*_1001.json")).read_text(encoding="utf-8")
    assert "Zoë Müller" in text
    assert "\\\\" not in text
    assert json.loads(text)["reservation_event"]["internal_id"] == "1001"
