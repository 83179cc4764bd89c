"""How a session lies in a storage backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from labrelay.context import ExportContext
from labrelay_worker.backends.registry import backend_registry
from labrelay_worker.destinations.backend import BackendDestination, BackendOptions


def test_files_whose_names_become_alike_do_not_take_each_others_place(
    tmp_path: Path, make_context: Callable[..., ExportContext]
) -> None:
    # Given files whose names differ in a character that not every system can have in one
    folder, root = tmp_path / "data", tmp_path / "archive"
    folder.mkdir()
    names = ["a_b.dm3", "a\\b.dm3", "a\\b", "a_b"]
    for name in ["record.xml", *names]:
        (folder / name).write_text(name)
    context = make_context(
        xml_file_path=str(folder / "record.xml"), artifacts=[{"path": str(folder / name)} for name in names]
    )
    backend_registry().configure("names", "disk", {"root": str(root)})
    destination = BackendDestination("archive", BackendOptions(backend="names"))
    # When they are delivered
    result = destination.export(context)
    # Then each is there, found again, and still says by its suffix what it is
    assert result.success
    stored = [path for path in root.rglob("*") if path.parent.name == "files"]
    assert sorted(path.read_text() for path in stored) == sorted(names)
    assert sorted(path.suffix for path in stored) == ["", "", ".dm3", ".dm3"]
    assert destination.find(context) is not None
