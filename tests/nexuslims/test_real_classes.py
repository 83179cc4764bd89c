"""NexusLIMS 2.8.0's three classes, unchanged, deliver through labrelay."""

from __future__ import annotations

import pytest
from nexus_servers import ACCESS, SECRETS
from nexus_site import CLASSES, INSTRUMENT
from yarl import URL

from labrelay.context import ExportContext
from labrelay.results import DeliveryState, ExportState
from labrelay_worker.conformance.faults import Fault

pytestmark = pytest.mark.integration


def context_of(site, number: int) -> ExportContext:
    return ExportContext.from_nexus_record(
        site.record(number),
        session_identifier=site.identifier(number),
        instrument_root=site.environment["NX_INSTRUMENT_DATA_PATH"],
        preview_root=site.environment["NX_DATA_PATH"],
    )


def test_the_three_classes_deliver_a_session_unchanged(site):
    # Given a worker that is given the classes by their paths, and nothing else
    site.start_worker()
    context = context_of(site, 1)

    # When a session is submitted
    with site.lab.client() as client:
        export_id = client.submit(context, destinations=list(CLASSES)).export_id
    status = site.lab.finished(export_id)

    # Then all three have it, with its links, previews and bytes
    assert (status.state, status.summary) == (ExportState.DELIVERED, "3 of 3 delivered")
    servers = site.servers
    (record,) = servers.cdcs.records
    assert (record.title, record.workspace) == (context.xml_file_path.stem, servers.cdcs.workspace.id)
    assert "<title>Å session 1</title>" in record.xml_content
    (experiment,) = servers.experiments
    assert experiment.uploads == {context.xml_file_path.name: context.xml_file_path.read_bytes()}
    assert INSTRUMENT in experiment.tags
    record_url = f"{servers.environment['NX_CDCS_URL']}data?id={record.id}"
    assert record_url in experiment.body
    (html,) = servers.entries
    assert record_url in html
    assert "data:image/png;base64," in html
    assert "image a.dm3" in html
    assert "/instrument/" not in html  # its own setting shortened the path
    assert servers.attachments == {context.xml_file_path.name: context.xml_file_path.read_bytes()}
    folder = f"NexusLIMS Records / {INSTRUMENT}"
    assert servers.folders == ["NexusLIMS Records", folder]
    assert servers.pages == [f"{folder} / 2026-11-02 — {site.identifier(1)}"]


def test_a_bad_path_is_one_line_and_the_others_go_on(site):
    # Given class paths of which some lead nowhere or to something else
    bad = [
        "nexusLIMS.exporters.destinations.cdcs:NoSuchClass",
        "nexusLIMS.no_such_module:CDCSDestination",
        "nexusLIMS.exporters.base:ExportContext",
        "nexusLIMS.utils.network:nexus_req",
    ]
    site.lab.options["plugins"] = [*bad, *CLASSES.values()]
    site.lab.write_settings()

    # When the destinations are listed
    listing = site.run(
        "from labrelay_worker.destinations.registry import get_registry\n"
        "registry = get_registry()\n"
        "print(*[info.name for info in registry.infos() if info.enabled], sep=',')\n"
        "print(*registry.unavailable, sep='\\n')",
        LABRELAY_PLUGIN_PATH="",
    ).splitlines()

    # Then each bad one is one line with its cure, and the three are there
    assert listing[0] == "cdcs,labarchives,elabftw"
    for name in ["NoSuchClass", "no_such_module", "ExportContext", "nexus_req"]:
        assert len([line for line in listing[1:] if name in line]) == 1


def submit_and_finish(site, number: int, name: str):
    with site.lab.client() as client:
        export_id = client.submit(context_of(site, number), destinations=[name]).export_id
    return site.lab.finished(export_id)


@pytest.mark.parametrize(("do", "status"), [("close", 0), ("status", 502), ("status", 503)])
def test_a_lost_answer_makes_no_second_record(site, do, status):
    # Given a server that keeps the record and loses its answer
    site.servers.cdcs.faults.plan(Fault(do, after=True, method="POST", path="/rest/data/", status=status))
    site.start_worker()

    # When a session is sent
    status = submit_and_finish(site, 1, "cdcs")

    # Then it waits for a person, and there is one record
    assert status.state is ExportState.UNKNOWN
    assert "the record may be there" in (status.deliveries[0].error_message or "")
    assert len(site.servers.cdcs.records) == 1


def test_a_record_that_is_half_made_is_not_made_again(site):
    # Given an eLabFTW that takes the experiment and then answers 503 to its attachment
    site.servers.elabftw.faults.plan(Fault("status", method="POST", path="/uploads", times=9))
    site.start_worker()

    # When a session is sent
    status = submit_and_finish(site, 1, "elabftw")

    # Then a person is told what is there, nothing was attached empty, and there is no second experiment
    assert status.state is ExportState.UNKNOWN
    assert "part of the record may be there" in (status.deliveries[0].error_message or "")
    (experiment,) = site.servers.experiments
    assert experiment.uploads == {}
    assert sum(seen.target.endswith("/uploads") for seen in site.servers.elabftw.faults.seen) == 1


def test_a_record_that_nobody_may_see_is_not_called_delivered(site):
    # Given a CDCS that takes the record and refuses its workspace
    site.servers.cdcs.faults.plan(Fault("status", method="PATCH", path="/assign/", status=403))
    site.start_worker()

    # When a session is sent
    status = submit_and_finish(site, 1, "cdcs")

    # Then the class says success, and labrelay does not
    assert status.state is ExportState.UNKNOWN
    assert "answered 403: the record is there and not complete" in (status.deliveries[0].error_message or "")


def test_a_server_that_is_down_is_tried_again_until_it_is_back(site):
    # Given a CDCS that is busy for three look-ups
    site.servers.cdcs.faults.plan(Fault("status", method="GET", path="/template-version", times=3))
    site.start_worker(LABRELAY_BREAKER__OPEN_SECONDS="0.2")

    # When a session is sent
    status = submit_and_finish(site, 1, "cdcs")

    # Then it arrives once
    assert status.state is ExportState.DELIVERED
    assert len(site.servers.cdcs.records) == 1


def test_sessions_at_once_make_one_set_of_folders(site):
    # Given two workers, and four sessions of one instrument
    contexts = [context_of(site, number) for number in range(1, 5)]
    with site.lab.client() as client:
        ids = [client.submit(context, destinations=["labarchives"]).export_id for context in contexts]

    # When they work side by side
    for _ in range(2):
        site.start_worker()
    for export_id in ids:
        assert site.lab.finished(export_id, 110).state is ExportState.DELIVERED

    # Then the class, which looks before it makes, had looked in time
    assert site.servers.folders == ["NexusLIMS Records", f"NexusLIMS Records / {INSTRUMENT}"]
    assert len(site.servers.pages) == 4


@pytest.mark.parametrize("do", ["close", "status"])
def test_a_folder_whose_answer_is_lost_is_not_made_again(site, do):
    # Given a LabArchives that makes the first folder and loses its answer
    site.servers.labarchives.faults.plan(Fault(do, after=True, path="/insert_node", status=502))
    site.start_worker(LABRELAY_BREAKER__OPEN_SECONDS="0.2")

    # When a session is sent
    status = submit_and_finish(site, 1, "labarchives")

    # Then the next try found the folder
    assert status.state is ExportState.DELIVERED
    assert site.servers.folders == ["NexusLIMS Records", f"NexusLIMS Records / {INSTRUMENT}"]
    assert len(site.servers.pages) == 1


def test_a_second_is_left_between_the_calls_of_two_exports(site):
    # Given the folders of an instrument, and two workers
    for _ in range(2):
        site.start_worker()
    assert submit_and_finish(site, 1, "labarchives").state is ExportState.DELIVERED
    earlier = len(site.servers.labarchives.arrivals[ACCESS.akid])

    # When they have two sessions more
    with site.lab.client() as client:
        ids = [client.submit(context_of(site, n), destinations=["labarchives"]).export_id for n in (2, 3)]
    assert all(site.lab.finished(export_id, 60).state is ExportState.DELIVERED for export_id in ids)

    # Then a second lay between the five calls of the one and those of the other, which know nothing of each other
    gaps = site.servers.labarchives.gaps(ACCESS.akid)[earlier:]
    assert len(gaps) == 9
    assert gaps[4] >= 1.0


def test_settings_that_nexuslims_refuses_hold_the_export_and_show_no_secret(site):
    # Given a worker whose environment lacks what NexusLIMS's settings need
    listing = (
        "from labrelay_worker.destinations.registry import get_registry\n"
        "for info in get_registry().infos(): print(info.name, info.enabled, info.reason)"
    )
    shown = site.run(listing, NX_DB_PATH="/nowhere", NX_DATA_PATH="/nowhere").splitlines()

    # Then each class says on one line what is missing, stays part of every export, and shows no value
    lines = [line for line in shown if line.split()[0] in CLASSES]
    assert len(lines) == len(CLASSES)
    for line in lines:
        assert " True its settings are not usable: option NX_DATA_PATH: " in line
        assert "NX_DB_PATH" in line
    assert not any(secret in "".join(shown) for secret in SECRETS)


def test_a_silent_server_costs_no_thread_for_ever(site):
    # Given an eLabFTW that accepts and says nothing, and one thread for it
    site.servers.elabftw.faults.plan(Fault("hang", path="/experiments", times=1000))
    site.start_worker(LABRELAY_CALL_TIMEOUT="1", LABRELAY_THREADS_PER_DESTINATION="1")

    # When two sessions are sent
    with site.lab.client() as client:
        ids = [client.submit(context_of(site, n), destinations=["elabftw"]).export_id for n in (1, 2)]

    # Then both end in doubt, because each had the thread
    for export_id in ids:
        status = site.lab.finished(export_id)
        assert status.deliveries[0].state is DeliveryState.UNKNOWN
    assert len(site.servers.elabftw.faults.seen) == 2


def test_no_secret_of_a_failure_is_written_anywhere(site):
    # Given a LabArchives that drops connections: the library's error has the signed URL in it
    site.servers.labarchives.faults.plan(Fault("close", method="GET", path="/get_tree_level", times=2))
    worker = site.start_worker(LABRELAY_BREAKER__OPEN_SECONDS="0.2")

    # When a session is sent and arrives at last
    status = submit_and_finish(site, 1, "labarchives")
    assert status.state is ExportState.DELIVERED

    # Then neither log nor trail holds a secret or a signature
    with site.lab.client() as client:
        written = worker.output() + "".join(entry.model_dump_json() for entry in client.trail(status.export_id))
    assert "Failed to export to LabArchives" in written
    for secret in SECRETS:
        assert secret not in written
    signatures = [URL(seen.target).query["sig"] for seen in site.servers.labarchives.faults.seen]
    assert signatures
    assert not any(signature in written for signature in signatures)
