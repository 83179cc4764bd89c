"""Each judgement of `labrelay doctor` from facts alone; and an examination that nothing can spoil."""

from __future__ import annotations

import re
import threading
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from pydantic import SecretStr

from labrelay.doctor import bundle, home, ledger, outbox, redis_rights, redis_server, restart, settings
from labrelay.doctor.examining import Check, Patient, examine, known_checks
from labrelay.doctor.findings import Finding, Severity, error, note, warning
from labrelay.errors import LedgerUnavailable
from labrelay.redaction import Redactor
from labrelay.results import ExportState, WorkerInfo, utc_now
from labrelay.settings import ProducerSettings
from labrelay_worker.discovery import UnavailablePlugin
from labrelay_worker.doctor import destinations, flower, places, rights, timeouts
from labrelay_worker.holding_desk import DestinationHold
from labrelay_worker.settings import WorkerSettings

LUA = [*Path(redis_rights.__file__).parents[1].glob("lua/*.lua"), *Path(rights.__file__).parents[1].glob("lua/*.lua")]
HEALTHY = {"redis_version": "7.0.15", "aof_enabled": "1", "maxmemory_policy": "noeviction", "maxmemory": "0"}


def codes(findings) -> list[str]:
    return [finding.code for finding in findings]


def redis_facts(**info: str) -> redis_server.RedisFacts:
    return redis_server.RedisFacts("redis://server", HEALTHY | info, save="")


# --- Redis -------------------------------------------------------------------------------------------------


def test_a_good_server_and_one_that_tells_nothing_have_no_finding():
    assert codes(redis_server.judge(redis_facts())) == []
    assert codes(redis_server.judge(redis_server.RedisFacts("redis://server"))) == []


@pytest.mark.parametrize(
    ("info", "code"),
    [
        ({"redis_version": "6.0.16"}, "redis.old"),
        ({"aof_enabled": "0"}, "redis.forgets"),
        ({"aof_last_write_status": "err"}, "redis.disk"),
        ({"maxmemory_policy": "volatile-lru"}, "redis.evicts"),
        ({"maxmemory": "1000", "used_memory": "950"}, "redis.full"),
        ({"role": "slave"}, "redis.replica"),
    ],
)
def test_what_a_server_says_of_itself_is_judged(info: dict[str, str], code: str):
    assert codes(redis_server.judge(redis_facts(**info))) == [code]


@pytest.mark.parametrize(("skew", "words"), [(60.0, "60 s ahead of"), (-60.0, "60 s behind")])
def test_a_wrong_clock_is_told_with_its_direction(skew: float, words: str):
    (found,) = redis_server.judge(redis_server.RedisFacts("redis://server", HEALTHY, "", skew))
    assert (found.code, found.severity) == ("clock.skew", Severity.WARNING)
    assert words in found.problem


@pytest.mark.parametrize(
    ("url", "is_open"),
    [
        ("redis://redis.example.org/0", True),
        ("redis://anna:hush@redis.example.org/0", False),
        ("redis://127.0.0.1:6379", False),
        ("unix:///run/redis.sock", False),
    ],
)
def test_a_server_elsewhere_without_a_password_is_open(url: str, is_open: bool):
    assert redis_server.is_open(url) is is_open


@pytest.mark.parametrize(
    ("why", "code"),
    [
        ("NOPERM User anna has no permissions to run the 'hset' command", "redis.rights"),
        ("ERR The user executing the script can't run this command or subcommand script: x", "redis.rights"),
        ("NOPERM No permissions to access a key", "redis.keys"),
        ("The user executing the script can't access at least one of the keys mentioned", "redis.keys"),
        ("ERR value is not a valid float", None),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", None),
    ],
)
def test_refusals_of_every_age_of_redis_are_told_from_calls_that_are_wrong_on_purpose(why: str, code: str | None):
    assert codes(redis_rights.judge("anna", "labrelay:", [("HSET", why)], "submit")) == ([code] if code else [])


_NO_WRITE = "NOPERM No permissions to access a key"
_NO_DEL = "The user executing the script can't access at least one of the keys mentioned"


@pytest.mark.parametrize(
    ("refused", "code"),
    [
        ([("EVAL", _NO_WRITE), ("HDEL", _NO_DEL)], "redis.read-only"),
        ([("EVAL", _NO_WRITE), ("HDEL", _NO_DEL), ("HGET", "WRONGTYPE Operation")], "redis.read-only"),
        ([("EVAL", _NO_WRITE), ("HDEL", _NO_DEL), ("HGET", _NO_DEL)], "redis.keys"),
        ([("HDEL", _NO_DEL)], "redis.keys"),
    ],
)
def test_whoever_reads_all_and_writes_nothing_is_one_for_monitoring(refused: list[tuple[str, str]], code: str):
    assert codes(redis_rights.judge("anna", "labrelay:", refused, "submit")) == [code]


@pytest.mark.parametrize(
    ("info", "user", "refused", "found"),
    [
        ({}, "worker", "This user has no permissions to run the 'del' command", ["redis.drops"]),
        ({}, "worker", "", []),
        ({}, "worker", None, ["redis.drops-unseen"]),
        ({}, "default", None, []),
        ({"aof_enabled": "0"}, "worker", "no permissions", []),
        ({"redis_version": "6.2.14"}, "worker", None, []),
        ({"redis_version": "7.2.5"}, "worker", "no permissions", ["redis.drops"]),
        ({"redis_version": "8.6.0"}, "worker", "no permissions", []),
    ],
)
def test_what_a_restart_would_drop_is_told_only_where_it_would(info, user, refused, found):
    facts = restart.RestartFacts("redis://server", user, HEALTHY | info, refused)
    assert codes(restart.judge(facts)) == found
    assert codes(restart.judge(restart.RestartFacts("redis://server", user, {}, refused))) == []


def test_every_command_of_the_ledgers_scripts_is_tried():
    used = {name for path in LUA for name in re.findall(r"redis\.p?call\('([A-Z]+)'", path.read_text())}
    assert used <= redis_rights.PRODUCER_NEEDS.keys() | rights.WORKER_NEEDS.keys()


# --- ledger and outbox -------------------------------------------------------------------------------------


def worker(version: str = "1.0") -> WorkerInfo:
    return WorkerInfo(name="titan-1", version=version, started=utc_now())


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        (ledger.LedgerFacts({}, [worker()], version="1.0"), []),
        (ledger.LedgerFacts({}, [], version="1.0"), [("worker.none", "warning")]),
        (ledger.LedgerFacts({ExportState.QUEUED: 2}, [], version="1.0"), [("worker.none", "error")]),
        (ledger.LedgerFacts({}, [worker()], 3, 900, "1.0"), [("ledger.overdue", "warning")]),
        (ledger.LedgerFacts({}, [worker("0.9")], version="1.0"), [("worker.version", "warning")]),
        (
            ledger.LedgerFacts({ExportState.UNKNOWN: 1}, [worker()], version="1.0"),
            [("ledger.dead-letters", "warning")],
        ),
    ],
)
def test_the_ledger_is_judged_by_who_works_and_what_waits(facts, found):
    assert [(each.code, each.severity) for each in ledger.judge(facts)] == found


def test_an_outbox_is_judged_by_what_is_left_in_it():
    facts = outbox.OutboxFacts(Path("outbox"), waiting=7, conflicts=1, room=10, set_aside=[Path("outbox.corrupt-1")])
    found = ["outbox.waiting", "outbox.conflicts", "outbox.nearly-full", "outbox.damaged"]
    assert codes(outbox.judge(facts)) == found
    assert codes(outbox.judge(outbox.OutboxFacts(Path("outbox"), 0, 0, 10))) == []


# --- settings, folders, disks ------------------------------------------------------------------------------


def test_a_misspelt_option_is_told_with_the_one_that_was_meant():
    (found,) = settings.judge_unknown("labrelay.toml", ["home", "data_root"], {"home", "data_roots"})
    assert "Did you mean data_roots?" in found.repair


def test_no_variable_that_the_documents_name_counts_as_misspelt(monkeypatch):
    # Given an environment with everything that the documents have people set
    patient = Patient(WorkerSettings())
    root = Path(__file__).parents[2]
    texts = [path.read_text() for path in (root / "README.md", *(root / "docs").rglob("*.md"))]
    named = set(re.findall(r"LABRELAY_[A-Z_]*[A-Z]", "\n".join(texts)))
    assert {"LABRELAY_CONFIG", "LABRELAY_IMAGEJ_CLASSPATH", "LABRELAY_FLOWER_BASIC_AUTH"} <= named
    for name in named:
        monkeypatch.setenv(name, "x")

    # Then each is known
    assert [found for found in settings.check(patient) if found.code == "settings.unknown"] == []


@pytest.mark.parametrize(
    ("table", "secret"),
    [
        ({"destinations": {"hook": {"token": "x"}}}, True),
        ({"redis_url": "redis://anna:hush@host"}, True),
        ({"destinations": {"hook": {"token": ""}, "url": "https://host"}}, False),
    ],
)
def test_a_file_with_secrets_is_for_its_owner_alone(table, secret):
    path = Path("labrelay.toml")
    assert settings.holds_secret(table) is secret
    assert codes(settings.judge_mode(path, 0o100644, holds_secret=secret)) == (["settings.exposed"] if secret else [])
    assert codes(settings.judge_mode(path, 0o100600, holds_secret=secret)) == []


@pytest.mark.parametrize(
    ("free", "code"), [(home.FULL - 1, ["disk.full"]), (home.LOW - 1, ["disk.low"]), (home.LOW, []), (None, [])]
)
def test_a_disk_is_judged_by_what_is_left(free: int | None, code: list[str]):
    assert codes(home.judge_space(Path("/srv"), free)) == code


def test_trying_whether_a_folder_is_writable_leaves_nothing_there(tmp_path: Path):
    assert home.why_not_writable(tmp_path / "made" / "later") is None
    assert list(tmp_path.iterdir()) == []


def test_only_folders_of_this_machine_are_looked_at():
    assert places.local_root("disk", {"root": "/srv/exports"}) == Path("/srv/exports")
    assert places.local_root("images", {"type": "zarr", "root": "s3://bucket"}) is None
    assert places.local_root("hook", {"type": "webhook", "root": "/srv"}) is None
    assert places.local_root("old", {"type": "disk", "root": "/srv", "enabled": False}) is None


# --- destinations, timeouts, Flower ------------------------------------------------------------------------


def test_a_missing_plugin_matters_as_much_as_somebody_asked_for_it():
    def plugin(name: str, source: str, cure: str = "Run: pip install it") -> UnavailablePlugin:
        return UnavailablePlugin(name, source, "needs the package 'it'", cure)

    found = destinations.judge_unavailable(
        [
            plugin("vault", "/plugins/vault.py"),
            plugin("asked", "built in"),
            plugin("napari", "built in"),
            plugin("type", "/plugins/type.py", "Configure it under [destinations.type], or correct the plugin"),
        ],
        {"asked"},
        ["/plugins"],
    )
    assert [each.severity for each in found] == ["warning", "error", "note", "note"]


def test_answers_of_destinations_are_judged():
    answers = [
        destinations.Answer("good", "disk"),
        destinations.Answer("bad", "cdcs", "401: token refused"),
        destinations.Answer("mute", "cdcs", in_time=False),
    ]
    assert codes(destinations.judge_answers(answers, 10)) == ["destination.refuses", "destination.silent"]


def test_what_holds_a_destination_is_told_and_a_trial_is_not():
    def hold(state: str) -> DestinationHold:
        return DestinationHold(destination="hook", state=state, why="it was down", since=0.0, until=60.0, waiting=3)

    found = list(destinations.judge_holds([hold("paused"), hold("open"), hold("trial")]))
    assert codes(found) == ["destination.paused", "destination.down"]
    assert all("labrelay resume hook" in each.repair and "3 exports wait" in each.problem for each in found)


def test_calls_in_a_row_must_end_before_the_broker_gives_the_wake_up_away():
    assert codes(timeouts.judge(3600, {"a": 1800, "b": 1799})) == []
    (found,) = timeouts.judge(3600, {"a": 300, "b": 3400})
    assert found.subject == "b"


@pytest.mark.parametrize(
    ("url", "status", "found"),
    [
        ("http://127.0.0.1:5555", 401, []),
        ("http://127.0.0.1:5555", 200, [("flower.open", "warning")]),
        ("http://192.0.2.7:5555", 200, [("flower.open", "error")]),
        ("https://flower.example.org", 403, []),
        ("https://flower.example.org", None, [("flower.silent", "warning")]),
    ],
)
def test_flower_is_judged_by_what_a_stranger_gets(url: str, status: int | None, found: list[tuple[str, str]]):
    assert [(each.code, each.severity) for each in flower.judge(url, status)] == found


# --- the examination ---------------------------------------------------------------------------------------


@pytest.fixture
def patient() -> Patient:
    return Patient(ProducerSettings())


@pytest.mark.parametrize(
    ("findings", "code"),
    [([], 0), ([note], 0), ([warning, note], 7), ([note, error, warning], 1)],
)
def test_the_exit_code_is_that_of_the_worst_finding(patient: Patient, findings, code: int):
    def run(_: Patient) -> list[Finding]:
        return [make("a.b", "it", "is bad", "Repair it") for make in findings]

    assert examine([Check("one", run)], patient, patience=30).exit_code == code


def test_a_check_that_fails_hangs_or_lacks_redis_spoils_no_other(patient: Patient):
    # Given checks that misbehave in every way, and a good one
    def away(_: Patient) -> list[Finding]:
        raise LedgerUnavailable("…", reason="refused")

    def broken(_: Patient) -> list[Finding]:
        raise ValueError("token=hush-hush")

    def hanging(_: Patient) -> list[Finding]:
        never.wait()
        return []

    never = threading.Event()
    checks = [
        Check("away", away),
        Check("broken", broken),
        Check("hangs", hanging),
        Check("good", lambda _: [warning("a.b", "it", "is bad", "Repair it")]),
    ]

    # When they are run
    report = examine(checks, patient, patience=0.5)

    # Then each is accounted for
    assert report.skipped == {"away": "Redis is away: refused"}
    assert {finding.subject for finding in report.findings} == {"broken", "hangs", "it"}
    assert report.findings[-1].code == "a.b"
    assert "hush" not in report.model_dump_json()
    never.set()


def test_a_plugin_adds_its_checks_and_a_broken_one_is_a_finding(monkeypatch: pytest.MonkeyPatch, patient: Patient):
    # Given one package that offers a check and one that cannot be imported
    entries = [EntryPoint("mine", f"{__name__}:nothing", "labrelay.checks")]
    monkeypatch.setattr("labrelay.doctor.examining.entry_points", lambda group: entries)

    # When the checks are listed
    (last,) = [check for check in known_checks() if check.name == "mine"]

    # Then the broken one tells what is wrong
    assert codes(last.run(patient)) == ["doctor.check-failed"]


# --- the support archive -----------------------------------------------------------------------------------


def test_a_secret_that_cannot_be_read_does_not_keep_the_others_out_of_the_list(monkeypatch, tmp_path):
    # Given two secrets as files, of which this user may read one
    (tmp_path / "labrelay_redis_url").write_text("redis://me:four-5ecret@host/0")
    (tmp_path / "labrelay_backends").write_text("{}")
    monkeypatch.setenv("LABRELAY_SECRETS_DIR", str(tmp_path))
    read_text = Path.read_text

    def denied(path, *arguments, **options):
        if path.name == "labrelay_backends":
            raise PermissionError
        return read_text(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", denied)

    # Then what can be read is known
    assert "four-5ecret" in bundle.known_secrets(None)


def test_secrets_are_known_by_type_by_name_and_as_passwords_of_addresses(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABRELAY_DESTINATIONS__A__TOKEN", "one-5ecret")
    monkeypatch.setenv("LABRELAY_DESTINATIONS__A__HEADERS", '{"X-Odd": "two-5ecret"}')
    monkeypatch.setenv("LABRELAY_DESTINATIONS__A__URL", "https://me:three-5ecret@host/")
    known = bundle.known_secrets(ProducerSettings(redis_url=SecretStr("redis://me:four-5ecret@host/0")))
    assert {"one-5ecret", "two-5ecret", "three-5ecret", "four-5ecret"} <= known


def test_scrubbing_masks_by_name_by_value_and_by_looks():
    data = {"token": "a", "said": ["x hush-hush y", "https://u:p@host/"], "count": 3, "none": None}
    assert bundle.scrub(data, Redactor(["hush-hush"])) == {
        "token": "[redacted]",
        "said": ["x [redacted] y", "https://[redacted]@host/"],
        "count": 3,
        "none": None,
    }
