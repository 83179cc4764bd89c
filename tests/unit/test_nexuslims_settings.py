"""NexusLIMS's settings become labrelay's: every one is accounted for, secrets apart, nothing overwritten."""

from __future__ import annotations

import json
import stat
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from labrelay.cli import main
from labrelay.errors import InvalidInput
from labrelay.nexuslims.importing import OPTIONS, Kind, Option, translate
from labrelay.nexuslims.writing import toml_text
from labrelay_worker.destinations.cdcs_options import CdcsOptions
from labrelay_worker.destinations.elabftw import ElabOptions
from labrelay_worker.destinations.labarchives_options import LabArchivesOptions
from labrelay_worker.destinations.registry import ExporterRegistry
from labrelay_worker.settings import load_worker_settings

TOKEN, KEY, AKID = "token-5ecret-01234", "1-key-5ecret-01234", "akid-5ecret-01234"
PASSWORD, UID = 'pass"5ecret\\01234', "uid-5ecret-01234"
WHOLE = {
    "NX_INSTRUMENT_DATA_PATH": "/mnt/instruments",
    "NX_DATA_PATH": "/mnt/nexus",
    "NX_RECORDS_PATH": "/mnt/nexus/records",
    "NX_DB_PATH": "/mnt/nexus/nexuslims.db",
    "NX_EXPORT_STRATEGY": "best_effort",
    "NX_CDCS_URL": "https://cdcs.example.org/nexus/",
    "NX_CDCS_TOKEN": TOKEN,
    "NX_CDCS_USER_OWNED_RECORDS": "True",
    "NX_ELABFTW_URL": "https://elab.example.org",
    "NX_ELABFTW_API_KEY": KEY,
    "NX_ELABFTW_EXPERIMENT_CATEGORY": "3",
    "NX_LABARCHIVES_ACCESS_KEY_ID": AKID,
    "NX_LABARCHIVES_ACCESS_PASSWORD": PASSWORD,
    "NX_LABARCHIVES_USER_ID": UID,
    "NX_LABARCHIVES_NOTEBOOK_ID": "12.3",
    "NX_CERT_BUNDLE": "-----BEGIN CERTIFICATE-----\\nabc\\n-----END CERTIFICATE-----",
    "NX_NEMO_TOKEN_1": "nemo-5ecret-01234",
    "NX_EMAIL_SENDER": "nexus@example.org",
}
SECRETS = (TOKEN, KEY, AKID, PASSWORD, UID, "nemo-5ecret-01234")


@pytest.fixture
def nexuslims(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)


def notes(settings: dict[str, str], kind: str) -> str:
    return "\n".join(text for noted, text in translate(settings).notes if noted == kind)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["settings", "--import-nexuslims", *arguments])
    return result.exit_code, result.output


def test_a_whole_installation_is_taken_over(nexuslims: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given NexusLIMS's settings in the environment
    # When they are imported
    code, output = run()
    assert code == 0, output

    # Then labrelay's own settings read them, the secrets from their folder
    monkeypatch.setenv("LABRELAY_SECRETS_DIR", str(tmp_path / "secrets"))
    settings = load_worker_settings()
    assert settings.strategy == "best_effort"
    assert settings.data_roots == (Path("/mnt/instruments"), Path("/mnt/nexus"))
    tls = {"ca_file": str(tmp_path / "nexuslims-ca.pem")}
    assert settings.destinations == {
        "cdcs": {
            "url": "https://cdcs.example.org/nexus/",
            "assign_owner": True,
            "workspace": "Global Public Workspace",
            "tls": tls,
            "token": TOKEN,
        },
        "elabftw": {"url": "https://elab.example.org", "category": 3, "tls": tls, "api_key": KEY},
        "labarchives": {
            "url": "https://api.labarchives.com/api",
            "folder": "NexusLIMS Records",
            "notebook_id": "12.3",  # and no tls: NexusLIMS goes by the system's authorities here
            "access_key_id": AKID,
            "access_password": PASSWORD,
            "user_id": UID,
        },
    }
    assert (tmp_path / "nexuslims-ca.pem").read_text().splitlines()[1] == "abc"


def test_the_destinations_take_every_option_that_is_written(
    nexuslims: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given imported settings of all three systems
    code, output = run()
    assert code == 0, output
    monkeypatch.setenv("LABRELAY_SECRETS_DIR", str(tmp_path / "secrets"))
    # When a worker makes its destinations of them
    registry = ExporterRegistry(load_worker_settings())
    registry.discover_plugins()
    # Then all three are there and enabled, labrelay's own
    made = {info.name: info for info in registry.infos() if info.enabled}
    assert list(made) == ["cdcs", "labarchives", "elabftw"]
    assert [plugin for plugin in registry.unavailable if plugin.name in made] == []
    modules = {type(destination).__module__ for destination in registry.get_enabled_destinations()}
    assert modules == {f"labrelay_worker.destinations.{name}" for name in made}


def test_secrets_are_in_one_closed_file_only(nexuslims: None, tmp_path: Path) -> None:
    # When settings are imported
    _, output = run()

    # Then neither the settings nor the answer has a secret, and nobody else may read the file that has
    secrets = tmp_path / "secrets" / "labrelay_destinations"
    assert json.loads(secrets.read_text())["cdcs"] == {"token": TOKEN}
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    assert stat.S_IMODE(secrets.parent.stat().st_mode) == 0o700
    for secret in SECRETS:
        assert secret not in (tmp_path / "labrelay.toml").read_text()
        assert secret not in output


def test_every_setting_is_accounted_for_on_a_line(nexuslims: None) -> None:
    # When settings are imported
    _, output = run()

    # Then each is named, with what became of it or why it stays
    for name in WHOLE:
        assert name in output
    assert "stays    NX_NEMO_TOKEN_1: read by NexusLIMS alone" in output
    assert "stays    NX_EMAIL_SENDER: labrelay sends no mail" in output
    assert "to do    set LABRELAY_SECRETS_DIR=" in output


@pytest.mark.parametrize("existing", ["labrelay.toml", "secrets/labrelay_destinations", "nexuslims-ca.pem"])
def test_nothing_is_overwritten_unless_told(nexuslims: None, tmp_path: Path, existing: str) -> None:
    # Given one of the files
    (tmp_path / existing).parent.mkdir(exist_ok=True)
    (tmp_path / existing).write_text("{}")

    # When settings are imported, then it is refused on one line, and none of the others is there
    code, output = run()
    assert code == 2
    assert "exists already; nothing was written" in output
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == [existing]

    # When it is forced, then it is done
    assert run("--force")[0] == 0
    assert "url" in (tmp_path / "labrelay.toml").read_text()


def test_the_secrets_of_other_destinations_are_kept(nexuslims: None, tmp_path: Path) -> None:
    # Given a secrets file with something else in it
    file = tmp_path / "secrets" / "labrelay_destinations"
    file.parent.mkdir()
    file.write_text('{"hook": {"token": "other"}, "cdcs": {"token": "old"}}')
    # When settings are imported over it
    assert run("--force")[0] == 0
    # Then what it had is still there
    assert json.loads(file.read_text())["hook"] == {"token": "other"}
    assert json.loads(file.read_text())["cdcs"] == {"token": TOKEN}


def test_an_env_file_is_read(tmp_path: Path) -> None:
    # Given NexusLIMS's own file
    (tmp_path / "nexus.env").write_text("NX_CDCS_URL='https://h/'\nNX_CDCS_TOKEN=\"abc\"\nOTHER=1\n")
    # When it is named
    code, output = run("--env-file", "nexus.env", "--output", "out/labrelay.toml")
    # Then its settings are taken, and written where it is wanted
    assert code == 0, output
    assert tomllib.loads((tmp_path / "out/labrelay.toml").read_text())["destinations"]["cdcs"]["url"] == "https://h/"
    assert (tmp_path / "out/secrets/labrelay_destinations").exists()


def test_an_env_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    code, output = run("--env-file", "nowhere.env")
    assert (code, output.count("\n")) == (2, 1)
    assert "nowhere.env" in output


def test_records_that_were_private_are_not_published_by_moving() -> None:
    # Given a facility whose records stay out of the public workspace
    settings = {"NX_CDCS_URL": "https://h/", "NX_CDCS_TOKEN": "t", "NX_CDCS_ASSIGN_TO_PUBLIC_WORKSPACE": "false"}
    # When its settings are translated, then they go into none, and it is said
    assert translate(settings).destinations["cdcs"] == {"url": "https://h/", "workspace": ""}
    assert "records stay private" in notes(settings, "taken")


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.variable)
def test_each_setting_becomes_an_option_that_its_destination_has(option: Option) -> None:
    # Given the options of labrelay's own destination
    known = {"cdcs": CdcsOptions, "elabftw": ElabOptions, "labarchives": LabArchivesOptions}[option.destination]
    # When the option is looked up, then it is there, and secret in both or in neither
    is_secret = known.model_fields[option.option].annotation is SecretStr
    assert is_secret == (option.kind is Kind.SECRET)


def test_what_is_set_by_half_is_switched_off() -> None:
    # Given an eLabFTW without a key
    settings = {"NX_ELABFTW_URL": "https://h"}
    # When it is translated, then as NexusLIMS has it: off, and it is said
    assert translate(settings).destinations == {"elabftw": {"url": "https://h", "enabled": False}}
    assert "NX_ELABFTW_API_KEY is not set" in notes(settings, "to do")


def test_what_is_not_used_is_not_written() -> None:
    # Given the address of LabArchives and no account
    settings = {"NX_LABARCHIVES_URL": "https://h/api", "NX_DATA_PATH": "/d"}
    # When it is translated, then there is no such destination
    assert translate(settings).destinations == {}
    assert "NX_LABARCHIVES_URL" in notes(settings, "stays")


def test_the_inbox_needs_a_decision() -> None:
    # Given LabArchives without a notebook
    settings = {name: "x" for name in WHOLE if name.startswith("NX_LABARCHIVES_") and "NOTEBOOK" not in name}
    # When it is translated, then the person is told
    assert "NexusLIMS writes to the Inbox" in notes(settings, "to do")


def test_unverified_certificates_are_taken_with_a_warning() -> None:
    settings = {"NX_CDCS_URL": "https://h/", "NX_CDCS_TOKEN": "t", "NX_DISABLE_SSL_VERIFY": "1"}
    assert translate(settings).destinations["cdcs"]["tls"] == {"verify": False}
    assert "no certificate is verified" in notes(settings, "to do")


def test_labarchives_is_verified_whatever_nexuslims_does_not_verify_elsewhere() -> None:
    settings = {f"NX_LABARCHIVES_{name}": "x" for name in ("ACCESS_KEY_ID", "ACCESS_PASSWORD", "USER_ID")}
    translated = translate({**settings, "NX_DISABLE_SSL_VERIFY": "1", "NX_CERT_BUNDLE_FILE": "/ca.pem"})
    assert "tls" not in translated.destinations["labarchives"]


def test_folders_inside_others_are_named_once() -> None:
    # Given records outside of the data
    settings = {"NX_DATA_PATH": "/nexus", "NX_RECORDS_PATH": "/nexus2/records"}
    # When they are translated, then both are roots
    assert translate(settings).options["data_roots"] == ["/nexus", "/nexus2/records"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NX_EXPORT_STRATEGY", "al"),
        ("NX_ELABFTW_EXPERIMENT_STATUS", "open"),
        ("NX_CDCS_USER_OWNED_RECORDS", "perhaps"),
    ],
)
def test_a_bad_value_is_refused_by_name(name: str, value: str) -> None:
    settings = {"NX_CDCS_TOKEN": "t", "NX_ELABFTW_API_KEY": "k", name: value}
    with pytest.raises(InvalidInput) as refused:
        translate(settings)
    assert "strategy" in str(refused.value) or name in str(refused.value)


def test_no_setting_at_all_is_said() -> None:
    with pytest.raises(InvalidInput, match="no setting of NexusLIMS"):
        translate({})


def test_any_value_survives_the_file() -> None:
    # Given values with everything that a text file minds
    odd = 'a"b\\c\n\x7f\t§ # [x]'
    translation = translate({"NX_CDCS_URL": odd, "NX_CDCS_TOKEN": "t"})
    # When they are written and read
    read = tomllib.loads(toml_text(translation, Path("/s")))
    # Then they are the same
    assert read["destinations"]["cdcs"]["url"] == odd


def test_no_secret_has_a_place_in_the_settings_file() -> None:
    # Given every setting that is a secret
    secret = {option.variable for option in OPTIONS if option.kind is Kind.SECRET}
    # When all are set, then the written text has none of their values
    values = {name: f"value-of-{name}" for name in secret}
    text = toml_text(translate(values), Path("/s"))
    assert not any(value in text for value in values.values())
