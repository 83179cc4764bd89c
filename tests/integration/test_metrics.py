"""What real workers count, by every pool, over deaths and restarts: what happened, once each."""

from __future__ import annotations

import re
import signal
import urllib.request
from pathlib import Path

import pytest
from lab import Worker

from labrelay.metrics.scraping import Scraper
from labrelay.results import ExportState

pytestmark = pytest.mark.integration

LABELS = re.compile(r'(\w+)="([^"]*)"')


def scrape(address: str) -> dict[str, float]:
    """Return every sample of an endpoint by its text."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def total(lab, name: str, **labels: str) -> float:
    """Return the sum of a counter over all workers and over all series that have these labels."""
    found = 0.0
    for address in targets(lab):
        for series, value in scrape(address).items():
            if series.partition("{")[0] == name and labels.items() <= dict(LABELS.findall(series)).items():
                found += value
    return found


def targets(lab) -> list[str]:
    with lab.client() as client:
        return Scraper(client.settings).targets()


def start_prefork(lab, *arguments: str) -> tuple[Worker, Path]:
    """Start a worker with two children; returns the folder that they share, too."""
    worker = lab.start_worker("prefork", 2, *arguments, LABRELAY_METRICS_PORT="0", TMPDIR=str(lab.folder))
    (folder,) = lab.folder.glob("labrelay-metrics-*")
    return worker, folder


def deliver(lab, numbers: range) -> None:
    with lab.client() as client:
        ids = [client.submit(lab.session(number)).export_id for number in numbers]
    assert {lab.finished(each).state for each in ids} == {ExportState.DELIVERED}


def test_children_of_prefork_that_are_recycled_lose_no_count_and_leave_no_files(lab):
    # Given two children that end after each task
    lab.recorder("good")
    worker, folder = start_prefork(lab, "--max-tasks-per-child", "1")

    # When there are more exports than children
    deliver(lab, range(1, 8))

    # Then one address has counted every one, with as many files as there are places in the pool
    assert len(targets(lab)) == 1
    assert total(lab, "labrelay_deliveries_total", destination="good", outcome="delivered") == 7
    lab.wait_until(lambda: total(lab, "labrelay_worker_in_flight_exports") == 0, 30, "nothing is in flight")
    assert {int(path.stem.rpartition("_")[2]) for path in folder.glob("counter_*.db")} <= {0, 1}

    # And with the worker its files go
    worker.send(signal.SIGTERM)
    worker.wait()
    lab.wait_until(lambda: not folder.exists(), what="the end of the shared files")


def test_what_a_killed_child_had_counted_is_still_counted(lab):
    # Given a child that dies in the midst of its first call
    marks = lab.folder / "marks"
    marks.mkdir()
    lab.recorder("deadly", kill_once_in=marks, find_in_log=True)
    lab.events_file.touch()
    start_prefork(lab)

    # When the export is delivered by another one
    deliver(lab, range(1, 2))

    # Then the dead one's claim counts as well: as often as the ledger says
    with lab.client() as client:
        (export,) = client.ledger.recent()
    assert total(lab, "labrelay_claims_total", answer="claimed") == export.runs > 1
    assert total(lab, "labrelay_deliveries_total", outcome="delivered") == 1
    lab.wait_until(lambda: total(lab, "labrelay_worker_in_flight_exports") == 0, 30, "nothing is in flight")


def test_a_killed_prefork_worker_leaves_nothing_behind_that_answers(lab):
    # Given a prefork worker
    worker, folder = start_prefork(lab)
    (address,) = targets(lab)
    assert scrape(address)['labrelay_claims_total{answer="claimed"}'] == 0

    # When all of it is killed
    worker.kill()

    # Then the process that answered for its children ends too, and takes their files with it
    lab.wait_until(lambda: not folder.exists(), what="the end of the shared files")
    with pytest.raises(OSError):  # noqa: PT011  refused or reset, by how far it got
        scrape(address)


def test_a_second_worker_on_the_same_port_delivers_and_is_found_elsewhere(lab):
    # Given a worker
    lab.recorder("good")
    lab.start_worker(LABRELAY_METRICS_PORT="0")
    (first,) = targets(lab)

    # When another one is told to use the same port
    second = lab.start_worker(LABRELAY_METRICS_PORT=first.rpartition(":")[2])

    # Then it says what to do, and both are found
    assert "a free one is taken" in second.output()
    assert len(targets(lab)) == 2
    deliver(lab, range(1, 5))
    assert total(lab, "labrelay_runs_total", state="delivered") == 4


def test_a_worker_without_the_setting_serves_nothing_and_loads_no_prometheus(lab):
    lab.recorder("good")
    lab.start_worker()
    deliver(lab, range(1, 2))
    assert targets(lab) == []


def test_a_lost_wake_up_is_counted_when_the_reconciler_makes_up_for_it(lab):
    # Given an export whose wake-up was lost
    lab.recorder("good")
    with lab.client() as client:
        export_id = client.submit(lab.session()).export_id
        client._link._redis.delete(client.settings.keys.wake_ups)

    # When a worker runs
    lab.start_worker(LABRELAY_METRICS_PORT="0")

    # Then the export is delivered, and why it was woken is counted (more than once on a busy machine)
    assert lab.finished(export_id).state is ExportState.DELIVERED
    assert total(lab, "labrelay_woken_total", why="unclaimed") >= 1
    assert total(lab, "labrelay_woken_total", why="retry") == 0


def test_a_frozen_worker_counts_the_lease_it_lost_and_its_successor_why_it_was_woken(lab):
    # Given a worker that is frozen in the midst of a call
    lab.recorder("slow", hold_while=lab.held)
    lab.held.touch()
    frozen = lab.start_worker(LABRELAY_METRICS_PORT="0")
    (address,) = targets(lab)
    with lab.client() as client:
        export_id = client.submit(lab.session()).export_id
    lab.wait_until(lambda: lab.events(event="export"), what="the call")
    frozen.freeze()
    lab.held.unlink()

    # When another one takes over
    lab.start_worker(LABRELAY_METRICS_PORT="0")
    assert lab.finished(export_id).state is ExportState.DELIVERED
    assert total_of(lab, address, 'labrelay_woken_total{why="lease_ended"}') >= 1

    # Then the frozen one finds out when it thaws, and counts it once
    frozen.thaw()
    lab.wait_until(lambda: scrape(address)["labrelay_lease_losses_total"] == 1, what="the loss")


def total_of(lab, but: str, series: str) -> float:
    return sum(scrape(each).get(series, 0) for each in targets(lab) if each != but)
