"""CDCS, eLabFTW and LabArchives at once, through real worker processes, with their test servers."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cdcs_parts import nexus
from repositories import Cdcs, Elabftw, LabArchives

from labrelay.context import ExportContext
from labrelay.inputs import read_contexts
from labrelay.results import ExportState
from labrelay_worker.demo.samples import make_samples

pytestmark = pytest.mark.integration

SHARED = Path(__file__).parents[3] / "shared" / "data" / "sessions.tar.xz"


class Repositories:
    """The three, served and configured."""

    def __init__(self, lab: Any, stack: ExitStack) -> None:
        self.lab = lab
        self.cdcs, self.elabftw, self.labarchives = Cdcs(), Elabftw(), LabArchives()
        for repository in (self.cdcs, self.elabftw, self.labarchives):
            server = stack.enter_context(repository.serving())
            lab.destinations[repository.name] = repository.options(server.url)
        self.pace(500.0)

    def pace(self, requests_per_second: float) -> None:
        """Set how fast LabArchives may be asked; the default would make tests long."""
        self.lab.destinations["labarchives"]["requests_per_second"] = requests_per_second
        self.lab.write_settings()

    def deliver(self, contexts: list[ExportContext]) -> None:
        """Submit everything with strategy `all`, and wait until it is delivered."""
        with self.lab.client() as client:
            for submission in client.submit_many(contexts, "all"):
                status = client.wait(submission.export_id, 100)
                assert status.state is ExportState.DELIVERED, status.summary

    def entries(self, context: ExportContext) -> Mapping[str, str]:
        """Return what the notebooks say of a session, as HTML, by notebook."""
        ((elabftw,), (labarchives,)) = self.elabftw.kept(context), self.labarchives.kept(context)
        return {"elabftw": elabftw.text, "labarchives": labarchives.text}


@pytest.fixture
def three(lab: Any) -> Iterator[Repositories]:
    with ExitStack() as stack:
        yield Repositories(lab, stack)


def of_an_instrument(folder: Path, count: int) -> list[ExportContext]:
    """Return sessions of one instrument and one person."""
    contexts = []
    for number in range(count):
        path = folder / f"2026-11-20_FEI-Titan_{number}.xml"
        path.write_bytes(nexus(f"Å {number}"))
        contexts.append(
            ExportContext.parse(
                {
                    "xml_file_path": str(path),
                    "session_identifier": f"https://nemo.example.org/api/usage_events/?id={number}",
                    "instrument_pid": "FEI-Titan-TEM",
                    "dt_from": "2026-11-20T10:00:00+01:00",
                    "dt_to": "2026-11-20T11:00:00+01:00",
                    "reservation_event": {"username": "alice", "user_email": "alice@example.org"},
                }
            )
        )
    return contexts


def contexts_below(folder: Path) -> list[ExportContext]:
    files = sorted((folder / "contexts").glob("*.json"))
    return [context for file in files for context in read_contexts(str(file), root=folder, limit=10**7)]


def require_whole_and_linked(three: Repositories, contexts: list[ExportContext]) -> None:
    for context in contexts:
        record = context.xml_file_path.read_bytes()
        # Each repository has the record once, byte for byte
        for repository in (three.cdcs, three.elabftw, three.labarchives):
            assert [kept.record for kept in repository.kept(context)] == [record], repository.name
        # Both notebooks lead to the record in CDCS
        (cdcs,) = [r for r in three.cdcs.server.records if r.xml_content.encode() == record]
        for name, html in three.entries(context).items():
            assert f'/data?id={cdcs.id}"' in html, name
        # LabArchives shows every preview
        for preview in {p for activity in context.activities for p in activity.previews if p is not None}:
            assert base64.b64encode(preview.read_bytes()).decode() in three.entries(context)["labarchives"]


def test_sample_sessions_reach_all_three_with_links_and_previews(three: Repositories, tmp_path: Path) -> None:
    # Given sample sessions
    make_samples(tmp_path, sessions=3)
    contexts = contexts_below(tmp_path)
    assert any(activity.previews for context in contexts for activity in context.activities)
    # When a worker delivers them to all three
    three.lab.start_worker()
    three.deliver(contexts)
    # Then each has them whole, linked and with their previews
    require_whole_and_linked(three, contexts)
    assert three.elabftw.server.state()["violations"] == []


@pytest.mark.skipif(not SHARED.exists(), reason="the real sessions lie beside the project only on some machines")
def test_real_sessions_reach_all_three_with_links_and_previews(three: Repositories, tmp_path: Path) -> None:
    # Given real sessions of two instruments, with CRLF and letters beyond ASCII in their records
    subprocess.run(["tar", "xJf", SHARED, "-C", tmp_path], check=True)
    contexts = contexts_below(tmp_path)
    # When a worker delivers them to all three
    three.lab.start_worker()
    three.deliver(contexts)
    # Then each has them whole, linked and with their previews
    require_whole_and_linked(three, contexts)
    assert three.elabftw.server.state()["violations"] == []


@pytest.mark.timeout(180)
def test_eight_workers_with_forty_sessions_of_one_instrument_make_one_folder_and_one_account(
    three: Repositories, tmp_path: Path
) -> None:
    # Given eight worker processes
    for _ in range(2):
        three.lab.start_worker("prefork", 4)
    contexts = of_an_instrument(tmp_path, 40)
    # When they export 40 sessions of one person at one instrument at once
    three.deliver(contexts)
    # Then LabArchives has one folder for labrelay and one for the instrument, and a page for each session
    tree = three.labarchives.server.state()["tree"]
    assert [node["is_page"] for node in tree].count(False) == 2
    assert [node["is_page"] for node in tree].count(True) == 40
    # And CDCS has one account for the person, who owns every record
    (alice,) = [user for user in three.cdcs.server.store.users.values() if user.username == "alice"]
    assert {record.user_id for record in three.cdcs.server.records} == {str(alice.id)}
    # And everything is there once, and linked
    require_whole_and_linked(three, contexts)


def test_the_others_run_at_full_speed_while_labarchives_keeps_its_pace(three: Repositories, tmp_path: Path) -> None:
    # Given ten requests a second at LabArchives, and four worker processes
    three.pace(10.0)
    for _ in range(4):
        three.lab.start_worker()
    contexts = of_an_instrument(tmp_path, 8)
    # When they export eight sessions
    with three.lab.client() as client:
        ids = [submission.export_id for submission in client.submit_many(contexts)]
        three.lab.wait_until(
            lambda: all(three.cdcs.kept(c) for c in contexts) and all(_has_record(three, c) for c in contexts),
            what="CDCS and eLabFTW have every session",
        )
        by_then = len(three.labarchives.server.arrivals["akid-one"])
        assert all(client.wait(export_id, 100).state is ExportState.DELIVERED for export_id in ids)
    # Then no two requests to LabArchives came closer than a tenth of a second, over all workers
    assert min(three.labarchives.server.gaps("akid-one")) >= 0.1
    # And the two others were done when LabArchives had most of its requests still before it
    assert by_then < len(three.labarchives.server.arrivals["akid-one"]) / 2


def _has_record(three: Repositories, context: ExportContext) -> bool:
    return any(kept.record is not None for kept in three.elabftw.kept(context))
