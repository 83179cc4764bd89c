"""The HTML of notebook entries: foreign text stays text, addresses stay addresses, images fit."""

from __future__ import annotations

import base64
import hashlib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from labrelay.errors import Rejected, Transient
from labrelay.results import ExportResult
from labrelay_worker.destinations.notebook_html import (
    LISTED_FILES,
    file_list,
    is_web_address,
    link_list,
    preview_gallery,
    session_table,
)

EVIL = "<script>alert(\"1\")</script> & 'co'\x00"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Reader(HTMLParser):
    """Collects elements, and refuses what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.links: list[str] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.links += [value for name, value in attrs if name == "href"]
        if tag not in ("br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def result(name: str, url: str | None, *, success: bool = True) -> ExportResult:
    return ExportResult(success=success, destination_name=name, record_url=url)


def test_foreign_text_stays_text_wherever_it_comes_from(make_context):
    # Given markup in every text of a session
    context = make_context(
        user=EVIL,
        session_identifier=EVIL,
        instrument_pid=EVIL,
        reservation_event={"experiment_title": EVIL, "sample_name": [EVIL, None], "project_name": [EVIL]},
        activities=[{"files": [f"/data/{EVIL}/a.dm3", f"/data/{EVIL}/b.dm3"]}],
        previous_results={EVIL: result("x", f"https://host/?{EVIL}").model_dump()},
    )

    # When the parts of an entry are written
    text = session_table(context) + file_list(context) + link_list(context)

    # Then no element of it came from outside, and every word is there
    read = Reader(text)
    assert set(read.elements) <= {"table", "tr", "th", "td", "h2", "p", "ul", "li", "code"}
    assert read.words.count("<script>alert(\"1\")</script> & 'co'\ufffd") == 9


def test_times_keep_their_offset(make_context):
    assert "2026-11-20T10:00:00+01:00" in session_table(make_context())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://nemo.example.org/?id=1", True),
        ("http://host/a", True),
        ("javascript:alert(1)", False),
        ("file:///etc/passwd", False),
        ("https://", False),
        ("https://[", False),
        ("https://host/a b", False),
        ("session-1", False),
    ],
)
def test_only_web_addresses_become_links(text, expected, make_context):
    assert is_web_address(text) is expected
    assert Reader(session_table(make_context(session_identifier=text))).links == ([text] if expected else [])


def test_links_name_the_successful_deliveries_asked_for(make_context):
    # Given results of several destinations
    results = {
        "cdcs": result("cdcs", "https://cdcs/data?id=1&a=2"),
        "failed": result("failed", "https://failed/", success=False),
        "disk": result("disk", "/srv/exports/1"),
        "silent": result("silent", None),
    }
    context = make_context(previous_results={name: one.model_dump() for name, one in results.items()})

    # Then addresses are links, other places are text, and failures are not named
    read = Reader(link_list(context))
    assert (read.links, "/srv/exports/1" in read.words) == (["https://cdcs/data?id=1&a=2"], True)
    assert "failed" not in read.words
    assert "disk" not in Reader(link_list(context, only=("cdcs",))).words
    assert link_list(context, only=("nobody",)) == ""


def test_a_file_of_several_signals_is_listed_once_with_size_and_hash(make_context):
    # Given a file with three signals, one of which the manifest knows
    context = make_context(
        activities=[{"files": ["/data/a/1.dm3"] * 3}, {"files": ["/data/b/2.dm3"]}],
        artifacts=[{"path": "/data/a/1.dm3", "size": 4096, "sha256": "ab" * 32}],
    )

    # Then it is one row below the common folder
    text = file_list(context)
    assert text.count("<tr>") == 3
    assert "<p>2 in <code>/data</code></p>" in text
    assert f"<td>a/1.dm3</td><td>4096</td><td><code>{'ab' * 32}</code></td>" in text


def test_files_of_another_system_keep_their_spelling(make_context):
    assert r"<td>Z:\tem\1.dm3</td>" in file_list(make_context(activities=[{"files": [r"Z:\tem\1.dm3"]}]))


def test_a_session_of_very_many_files_has_a_readable_entry(make_context):
    text = file_list(make_context(activities=[{"files": [f"/data/{n}.raw" for n in range(LISTED_FILES + 7)]}]))
    assert text.count("<tr>") == LISTED_FILES + 1
    assert "and 7 more" in text


def test_a_session_without_files_has_no_list(make_context):
    assert file_list(make_context()) == ""
    assert preview_gallery(make_context(), max_bytes=1000) == ""


@pytest.fixture
def gallery(tmp_path, make_context):
    """Return a function that gives a context with previews of these names."""

    def build(*names: str, sha256: str | None = None):
        for name in names:
            (tmp_path / name).write_bytes(PIXEL)
        paths = [str(tmp_path / name) for name in names]
        known = [{"path": path, "role": "preview", "sha256": sha256} for path in paths]
        return make_context(activities=[{"files": paths, "previews": [None, *paths, *paths]}], artifacts=known)

    return build


def test_previews_are_images_four_a_row_each_once(gallery):
    context = gallery(*[f"{n} <ü>.png" for n in range(5)])
    read = Reader(text := preview_gallery(context, max_bytes=10_000))
    assert (read.elements.count("img"), read.elements.count("tr")) == (5, 2)
    assert base64.b64encode(PIXEL).decode() in text
    assert "4 <ü>.png" in read.words


def test_a_preview_says_which_file_and_signal_it_shows(gallery, tmp_path):
    # Given a file of two signals with a preview of each, one spelled for Windows, and a preview of nothing known
    context = gallery("a.png", "b.png", "c.png", "d.png")
    previews = [str(tmp_path / name) for name in ("a.png", "b.png", "c.png", "d.png")]
    files = ["/data/two <signals>.dm3", "/data/two <signals>.dm3", r"X:\data\one.emd"]
    activity = context.activities[0].model_copy(
        update={"files": tuple(files), "previews": tuple(map(Path, previews))}
    )
    # When they are shown
    read = Reader(preview_gallery(context.model_copy(update={"activities": (activity,)}), max_bytes=10_000))
    # Then each has the name of what it shows, or its own
    for caption in ("two <signals>.dm3 (1 of 2)", "two <signals>.dm3 (2 of 2)", "one.emd", "d.png"):
        assert caption in read.words
    assert "X:" not in read.words


def test_previews_that_do_not_fit_are_named(gallery):
    # Given three previews of which one is no image
    context = gallery("a.png", "b.png", "c.dm3")

    # When there is room for one
    read = Reader(text := preview_gallery(context, max_bytes=300))

    # Then the others are named, and the limit holds for the images
    assert (read.elements.count("img"), "b.png, c.dm3" in read.words) == (1, True)
    assert len(text) < 500


def test_a_changed_preview_is_not_shown_as_what_was_submitted(gallery):
    preview_gallery(gallery("a.png", sha256=hashlib.sha256(PIXEL).hexdigest()), max_bytes=1000)
    with pytest.raises(Rejected, match="--replace"):
        preview_gallery(gallery("a.png", sha256="0" * 64), max_bytes=1000)


def test_a_preview_on_a_share_that_is_away_is_tried_again(gallery, tmp_path):
    context = gallery("a.png")
    (tmp_path / "a.png").unlink()
    with pytest.raises(Transient, match="mounted"):
        preview_gallery(context, max_bytes=1000)
