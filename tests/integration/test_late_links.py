"""A notebook that went out without the link to a record gets it once the record is there, whatever is killed."""

from __future__ import annotations

import pytest

from labrelay.results import ExportState

pytestmark = pytest.mark.integration


def test_an_unlinked_entry_gets_its_link_although_the_worker_is_killed_while_adding_it(lab):
    # Given a notebook that waits half a second for a repository, which fails for longer than that
    failing, kills = lab.folder / "cdcs-fails", lab.folder / "kills"
    failing.touch()
    kills.mkdir()
    session = lab.session()
    (kills / session.export_id).touch()  # not while sending, only while linking
    lab.options["link_wait"] = 0.5
    lab.recorder("cdcs", 100, fail_while=failing)
    lab.recorder("notebook", 90, type="notebook", kill_once_in=kills, find_in_log=True)
    lab.destinations["notebook"]["waits_for"] = ["cdcs"]
    lab.write_settings()
    lab.start_worker("prefork")
    with lab.client() as client:
        export_id = client.submit(session).export_id
        lab.wait_until(lambda: lab.events(event="accepted", name="notebook"), what="the notebook goes out unlinked")

        # When the repository takes the record, and the worker dies with the link on its way
        failing.unlink()
        status = client.wait(export_id, 60)

        # Then the link was tried again, saw the record, and the entry was not sent a second time
        assert status.state is ExportState.DELIVERED
        assert [event["saw"] for event in lab.events(event="link")] == [["cdcs", "notebook"]] * 2
        assert len(lab.events(event="accepted", name="notebook")) == 1
        notebook = next(d for d in status.deliveries if d.destination == "notebook")
        assert notebook.receipt.unlinked == ()
        assert [e.event for e in client.trail(export_id) if e.destination == "notebook"][-1] == "linked"
