"""`labrelay outbox` and `labrelay submit` with a Redis that refuses: what people and scripts see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from ledgers import MemoryLedger, MemoryLink

from labrelay import cli_submit
from labrelay import client as client_module
from labrelay.cli import main
from labrelay.client import Client
from labrelay.context import ExportContext
from labrelay.errors import ExportConflict, NoSuchExport, WaitTimeout
from labrelay.outbox import Outbox
from labrelay.results import ExportState
from labrelay.settings import ProducerSettings


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A home of its own, and a Redis address where nobody listens."""
    for name in [name for name in os.environ if name.startswith("LABRELAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LABRELAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LABRELAY_REDIS_URL", "redis://:sesame-open@127.0.0.1:1/0")
    monkeypatch.setenv("LABRELAY_SETTLE_SECONDS", "0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ledger(monkeypatch):
    """A ledger in memory for the next clients."""
    memory = MemoryLedger()
    monkeypatch.setattr(client_module, "Link", lambda settings: ClosableLink(memory))
    return memory


class ClosableLink(MemoryLink):
    def close(self):
        pass


def labrelay(*arguments):
    return CliRunner().invoke(main, arguments)


def context_file(here, number=1, content="a"):
    record = here / f"record-{number}.xml"
    record.write_text(f"<r>{content}</r>")
    path = here / f"context-{number}.json"
    path.write_text(
        json.dumps(
            {
                "xml_file_path": str(record),
                "session_identifier": f"session-{number}",
                "instrument_pid": "FEI-Titan-TEM",
                "dt_from": "2026-11-20T10:00:00+01:00",
                "dt_to": "2026-11-20T11:00:00+01:00",
            }
        )
    )
    return str(path)


def test_submit_says_spooled_warns_and_exits_with_zero(here):
    # Given a Redis that refuses, when two sessions are submitted
    result = labrelay("submit", context_file(here, 1), context_file(here, 2))

    # Then both are spooled, with one warning line that names the cause and what sends them
    assert result.exit_code == 0
    assert result.stdout.count("spooled") == 4
    (warning,) = result.stderr.splitlines()
    assert "Redis is away" in warning
    assert "labrelay outbox flush" in warning


def test_submit_as_json_says_spooled_too(here):
    result = labrelay("submit", context_file(here), "--json")
    (submission,) = json.loads(result.stdout)
    assert (submission["outcome"], submission["state"], submission["revision"]) == ("spooled", "spooled", 0)


def test_list_and_path_show_what_waits(here):
    # Given a spooled session
    labrelay("submit", context_file(here))

    # Then it is listed for people and for scripts
    assert "session-1" in labrelay("outbox", "list").stdout
    (entry,) = json.loads(labrelay("outbox", "list", "--json").stdout)
    assert (entry["session_identifier"], entry["state"], entry["reason"]) == ("session-1", "waiting", "")
    path = labrelay("outbox", "path").stdout.strip()
    assert path == str(here / "home" / "outbox" / "outbox.sqlite3")
    assert json.loads(labrelay("outbox", "path", "--json").stdout) == {"path": path, "damaged": []}


def test_flush_with_redis_away_exits_with_three_and_says_what_still_waits(here):
    # Given a spooled session and a Redis that refuses
    labrelay("submit", context_file(here))
    result = labrelay("outbox", "flush")
    assert result.exit_code == 3
    assert "1 still wait" in result.stderr


def test_flush_with_nothing_to_send_is_done_even_without_redis(here):
    result = labrelay("outbox", "flush", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["sent"] == 0


def test_flush_sends_and_conflicts_exit_with_six_until_a_person_decided(here, ledger):
    # Given two spooled sessions, one of which the ledger has with other content
    labrelay("submit", context_file(here, 1))
    ledger.mode = "away"
    labrelay("submit", context_file(here, 1, "changed"), context_file(here, 2))
    ledger.mode = "up"

    # When they are flushed, then the exit code says that one needs a person
    result = labrelay("outbox", "flush")
    assert result.exit_code == 6
    assert "sent 1, still waiting 0, conflicts 1" in result.stdout
    assert "conflict" in labrelay("outbox", "list").stdout

    # When it is flushed as a replacement, then nothing is left
    (entry,) = json.loads(labrelay("outbox", "list", "--json").stdout)
    result = labrelay("outbox", "flush", "--replace", entry["export_id"])
    assert (result.exit_code, ledger.rows[entry["export_id"]].revision) == (0, 2)
    assert labrelay("outbox", "list", "--json").stdout.strip() == "[]"


def test_drop_removes_conflicts_and_only_on_demand_what_waits(here):
    # Given a spooled session
    labrelay("submit", context_file(here))
    assert labrelay("outbox", "drop", "1").exit_code == 2
    assert labrelay("outbox", "drop", "no-such-id").exit_code == 4
    assert labrelay("outbox", "drop", "1", "--waiting").exit_code == 0
    assert labrelay("outbox", "drop", "1").exit_code == 4


def test_flush_with_an_id_needs_replace(here):
    result = labrelay("outbox", "flush", "some-id")
    assert result.exit_code == 2
    assert "--replace" in result.stderr


def test_a_full_outbox_exits_with_three(here, monkeypatch):
    # Given an outbox for one session
    monkeypatch.setenv("LABRELAY_OUTBOX_MAX_ENTRIES", "1")
    labrelay("submit", context_file(here, 1))
    result = labrelay("submit", context_file(here, 2))
    assert result.exit_code == 3
    assert "LABRELAY_OUTBOX_MAX_ENTRIES" in result.stderr


def test_a_damaged_outbox_is_named_where_it_is_noticed(here):
    # Given a damaged outbox
    labrelay("submit", context_file(here))
    outbox = Outbox.of(ProducerSettings())
    outbox.path.write_bytes(b"garbage" * 1000)

    # When something is submitted, then the warning names both files; and `list` keeps naming the old one
    result = labrelay("submit", context_file(here))
    assert result.exit_code == 0
    (kept,) = outbox.files_set_aside()
    assert str(kept) in result.stderr
    assert str(kept) in labrelay("outbox", "list").stderr
    assert str(kept) in labrelay("outbox", "path").stdout


def test_no_secret_of_the_settings_is_in_the_outbox_or_a_warning(here):
    # Given a Redis address with a password
    result = labrelay("submit", context_file(here))
    assert result.exit_code == 0
    assert "sesame-open" not in result.output
    files = [path.read_bytes() for path in (here / "home" / "outbox").iterdir()]
    assert not any(b"sesame-open" in content for content in files)


def test_without_any_redis_ever_submit_says_how_to_start_one(here, monkeypatch):
    # Given neither an address nor an embedded server that has run
    monkeypatch.delenv("LABRELAY_REDIS_URL")
    result = labrelay("submit", context_file(here))
    assert result.exit_code == 3
    assert "labrelay up" in result.stderr
    assert not (here / "home" / "outbox").exists()


def test_status_and_wait_know_of_the_outbox(here, ledger):
    # Given a spooled session
    context = ExportContext.parse((here / context_file(here)).read_text())
    ledger.mode = "away"
    ledger.status = lambda export_id: (_ for _ in ()).throw(NoSuchExport("not in the ledger"))
    with Client(background_flush=False) as client:
        export_id = client.submit(context).export_id

        # Then its status says where it is, and waiting for it is not an error of its own
        with pytest.raises(NoSuchExport, match="waits in the outbox"):
            client.status(export_id)
        with pytest.raises(WaitTimeout, match="still in the outbox"):
            client.wait(export_id, timeout=0.1)

        # When the ledger refused it, then waiting ends with that
        (waiting,) = client.outbox.batch()
        client.outbox.settle([], {waiting.number: "other content"})
        with pytest.raises(ExportConflict, match="other content"):
            client.wait(export_id, timeout=5)


def test_waiting_for_what_the_ledger_refuses_does_not_end_with_what_was_submitted_before(here, ledger):
    # Given a session that was delivered, and submitted with other content while Redis is away
    with Client(background_flush=False) as client:
        before = client.submit(ExportContext.parse(Path(context_file(here)).read_text())).export_id
        ledger.end(before, ExportState.DELIVERED)
        ledger.mode = "away"
        assert client.submit(ExportContext.parse(Path(context_file(here, content="b")).read_text())).is_spooled

        # When the ledger refused it, then waiting for it says so, and not that it was delivered
        ledger.mode = "up"
        assert client.flush().conflicts == 1
        with pytest.raises(ExportConflict, match="kept in the outbox"):
            client.wait(before, timeout=5)

        # When a new revision is made of it, then that is waited for
        ledger.rows[before].created = datetime.now(UTC)
        assert client.wait(before, timeout=5).state is ExportState.DELIVERED


def test_submit_and_wait_exits_with_six_when_the_ledger_refuses_what_was_spooled(here, ledger, monkeypatch):
    # Given a session that was delivered
    labrelay("submit", context_file(here))
    (export_id,) = ledger.rows
    ledger.end(export_id, ExportState.DELIVERED)

    # When it is submitted with other content while Redis is away, and Redis is back before the wait begins
    watch = cli_submit._watch
    monkeypatch.setattr(cli_submit, "_watch", lambda *a, **k: setattr(ledger, "mode", "up") or watch(*a, **k))
    ledger.mode = "away"
    result = labrelay("submit", context_file(here, content="b"), "--wait", "--json", "--timeout", "20")

    # Then it is said to be refused, and nothing to be delivered
    assert result.exit_code == 6
    assert "kept in the outbox" in result.stderr
    assert json.loads(result.stdout) == []


def test_submit_and_wait_gives_up_in_time_on_what_is_spooled(here):
    result = labrelay("submit", context_file(here), "--wait", "--timeout", "0.3")
    assert result.exit_code == 5


def test_importing_labrelay_loads_neither_celery_nor_redis():
    # Given a fresh interpreter, when labrelay is imported, then the heavy parts are not
    code = "import sys, labrelay; print({'celery', 'redis', 'kombu', 'rich'} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"
