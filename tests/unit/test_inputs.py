"""Inputs: contexts from files and standard input as people have them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labrelay import inputs
from labrelay.client import Client
from labrelay.context import ExportContext
from labrelay.errors import InvalidInput
from labrelay.inputs import read_contexts

Build = Callable[..., ExportContext]
LIMIT = 2**20


def read(file: Path | str, *, root: Path | None = None, limit: int = LIMIT) -> list[ExportContext]:
    return list(read_contexts(str(file), root=root, limit=limit))


def refused(file: Path | str, **options: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        read(file, **options)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture
def text(make_context: Build) -> str:
    return make_context().to_json()


def test_a_context_on_one_line_is_read(tmp_path: Path, text: str, make_context: Build) -> None:
    # Given a file with one object, when it is read, then there is one context
    (tmp_path / "a.json").write_text(text)
    assert read(tmp_path / "a.json") == [make_context()]


def test_a_context_on_many_lines_is_read(tmp_path: Path, text: str, make_context: Build) -> None:
    # Given the same as people edit it, when it is read, then it is the same
    (tmp_path / "a.json").write_text(json.dumps(json.loads(text), indent=2))
    assert read(tmp_path / "a.json") == [make_context()]


@pytest.mark.parametrize("before", ["\n", "  \n\r\n", "\ufeff"])
def test_what_editors_put_before_a_context_does_no_harm(
    tmp_path: Path, text: str, make_context: Build, before: str
) -> None:
    # Given empty lines or a byte order mark at the beginning, when it is read, then they are passed over
    (tmp_path / "a.json").write_text(before + text, encoding="utf-8")
    assert read(tmp_path / "a.json") == [make_context()]


def test_several_contexts_one_a_line_are_read(tmp_path: Path, make_context: Build) -> None:
    # Given JSON Lines with an empty line, when it is read, then each line is a context
    lines = [make_context(1).to_json(), "", make_context(2).to_json()]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert [c.session_identifier for c in read(tmp_path / "a.jsonl")] == ["session-1", "session-2"]


def test_a_mistake_in_a_line_names_the_line(tmp_path: Path, text: str) -> None:
    # Given JSON Lines whose third line is broken, when it is read, then the line is named
    (tmp_path / "a.jsonl").write_text(f"{text}\n\n{{broken\n")
    assert refused(tmp_path / "a.jsonl").field == f"{tmp_path}/a.jsonl, line 3"


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch, text: str, make_context: Build) -> None:
    # Given a context that is piped in, when - is read, then it is that
    monkeypatch.setattr(inputs.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
    assert read("-") == [make_context()]


def test_relative_paths_start_at_the_root(tmp_path: Path, make_context: Build) -> None:
    # Given a context with relative paths
    context = make_context(
        xml_file_path="record.xml",
        activities=[{"files": ["a.dm3", "/abs.dm3"], "previews": [None, "a.png"]}],
        artifacts=[{"path": "b.tif"}],
    )
    (tmp_path / "a.json").write_text(context.to_json())
    # When it is read with a root
    found = read(tmp_path / "a.json", root=Path("/lab"))[0]
    # Then they lie under it, and absolute ones stay
    assert str(found.xml_file_path) == "/lab/record.xml"
    assert found.activities[0].files == ("/lab/a.dm3", "/abs.dm3")
    assert found.activities[0].previews == (None, Path("/lab/a.png"))
    assert str(found.artifacts[0].path) == "/lab/b.tif"


def test_without_a_root_they_start_in_the_working_folder(tmp_path: Path, make_context: Build) -> None:
    # Given a relative path and no root, when it is read, then as a shell would take it
    (tmp_path / "a.json").write_text(make_context(xml_file_path="record.xml").to_json())
    assert read("a.json")[0].xml_file_path == tmp_path / "record.xml"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "gone.json").problem == "no such file"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path).problem == "is a folder"


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a file that may not be opened
    def refuse(path: Path, *_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    # When it is read, then the reason is named
    assert "Permission denied" in refused(tmp_path / "a.json").problem


def test_a_name_the_system_cannot_have_is_refused() -> None:
    # Given a context passed where its file is expected, when it is read, then it is one line
    assert "cannot be read" in refused("x" * 5000).problem


@pytest.mark.parametrize("content", [b"", b"\n", b" \n\t\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    # Given nothing but blanks, when it is read, then that is said
    (tmp_path / "a.json").write_bytes(content)
    assert refused(tmp_path / "a.json").problem == "is empty"


@pytest.mark.parametrize("content", [b"[1, 2]", b"null", b"{\n", b'{"a": 1}x', b"\x00\x01", b"<xml/>", b"[" * 9999])
def test_what_is_no_context_is_refused_by_its_file(tmp_path: Path, content: bytes) -> None:
    # Given something else, when it is read, then the file is named
    (tmp_path / "a.json").write_bytes(content)
    assert refused(tmp_path / "a.json").field.startswith(str(tmp_path / "a.json"))


@pytest.mark.parametrize("begin", [b'{"metadata": "', b'{\n"metadata": "'])
def test_a_huge_context_is_refused_without_reading_all_of_it(tmp_path: Path, begin: bytes) -> None:
    # Given 50 MB in one object
    file = tmp_path / "a.json"
    with file.open("wb") as stream:
        stream.write(begin)
        stream.seek(50 * 10**6)
        stream.write(b'"}')
    # When it is read, then the limit is named and how to keep it
    error = refused(file)
    assert error.problem == "a context is larger than 1 MiB"
    assert "LABRELAY_MAX_CONTEXT_BYTES" in error.cure


def test_a_context_of_exactly_the_limit_is_read(tmp_path: Path, text: str) -> None:
    # Given a context as large as allowed, when it is read, then it is; one byte less is too little
    (tmp_path / "a.json").write_text(text)
    assert read(tmp_path / "a.json", limit=len(text))
    assert "larger than" in refused(tmp_path / "a.json", limit=len(text) - 1).problem


@pytest.mark.parametrize("asked", ["submit", "plan"])
def test_one_name_instead_of_a_list_is_refused_rather_than_taken_letter_by_letter(
    asked: str, make_session: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Given a pipeline that forgot the brackets, and no worker that could say what there is
    monkeypatch.setenv("LABRELAY_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("LABRELAY_HOME", str(tmp_path))
    # When it asks for an export, then nothing is accepted, and the cure is what it meant
    with Client() as client, pytest.raises(InvalidInput, match=r"^destinations: .*Give \['archive'\]"):
        getattr(client, asked)(make_session(), destinations="archive")
