"""What the CDCS destination says of wrong settings: every wrong option by name, each with its cure."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from cdcs_parts import Cdcs, asked
from pydantic import ValidationError
from tests.servers.cdcs import PUBLISHER, ROBOT, STAFF, TEMPLATE

from labrelay.errors import Misconfigured
from labrelay_worker.conformance.faults import Fault
from labrelay_worker.destinations.cdcs_options import CdcsOptions
from labrelay_worker.destinations.cdcs_target import (
    PidSettings,
    Template,
    Workspace,
    choose_template,
    choose_workspace,
    pid_prefix,
)
from labrelay_worker.destinations.registry import ExporterRegistry
from labrelay_worker.settings import WorkerSettings


def test_right_settings_are_right_and_change_nothing(cdcs: Cdcs) -> None:
    before = cdcs.server.state()
    assert cdcs.destination(assign_owner=True).validate_config() == (True, None)
    assert cdcs.server.state() == before
    assert all(request.startswith("GET") for request in asked(cdcs))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "http://127.0.0.1:9"}, r"no connection to 127\.0\.0\.1:9"),
        ({"url": "{url}/nexus"}, r"HTTP 404.*is the option url the address of a CDCS"),
        ({"token": "wrong"}, r"Invalid token\. \(option token: give one that this server knows\)"),
        (
            {"template": None},
            r"option template: the server has 2 usable global templates; name one of: 'Another Schema'",
        ),
        (
            {"template": "Nexus"},
            r"no global template 'Nexus'; it has: 'Another Schema' \(id \d+\), 'Nexus Experiment",
        ),
        ({"template": "{old}"}, r"version \d+ of 'Nexus Experiment Schema' is superseded by \d+; give the title"),
        ({"template": "Off"}, r"'Off' is disabled at the server; enable it, or name: 'Another Schema'"),
        ({"workspace": "Lab"}, r"no workspace 'Lab' that this token can read; give the id of one of: 'Global Public"),
        ({"assign_owner": True, "token": ROBOT}, r"option assign_owner: it needs a superuser's token"),
        ({"assign_owner": True, "token": STAFF}, r"option assign_owner: it needs a superuser's token"),
        ({"template": "x", "workspace": "y"}, r"option template: .*; option workspace: "),
    ],
)
def test_a_wrong_option_is_named_with_its_cure(cdcs: Cdcs, options: dict[str, Any], says: str) -> None:
    cdcs.server.store.add_template("Off", b"").is_disabled = True
    known = {"url": cdcs.url, "old": cdcs.server.template.versions[0]}
    given = {key: value.format(**known) if isinstance(value, str) else value for key, value in options.items()}
    valid, text = cdcs.destination(**given).validate_config()
    assert not valid
    assert re.search(says, text or "")
    assert "wrong" not in (text or "")  # no token in any text


def test_a_plain_account_that_publishes_is_right(cdcs: Cdcs) -> None:
    assert cdcs.destination(token=PUBLISHER).validate_config() == (True, None)


def test_an_address_that_shows_a_login_page_is_no_cdcs(cdcs: Cdcs) -> None:
    cdcs.server.faults.plan(Fault("status", status=200, body="<html>Log in</html>"))
    valid, text = cdcs.destination().validate_config()
    assert not valid
    assert "without JSON; is the option url the address of a CDCS" in (text or "")


def test_a_silent_server_does_not_hold_up_the_check(cdcs: Cdcs) -> None:
    cdcs.server.faults.plan(Fault("hang"))
    valid, text = cdcs.destination(timeout=0.2).validate_config()
    cdcs.server.faults.release()
    assert not valid
    assert "lost" in (text or "")


def test_a_hosted_destination_is_asked_from_within_a_worker(cdcs: Cdcs) -> None:
    hosted = cdcs.hosted()
    assert asyncio.run(hosted.validate_config()) == (True, None)


@pytest.mark.parametrize("options", [{}, {"url": "cdcs"}, {"url": "http://x", "token": ""}, {"timeout": 0}])
def test_options_that_cannot_work_are_refused_when_they_are_read(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CdcsOptions.model_validate(options)


def test_the_token_is_shown_nowhere(cdcs: Cdcs) -> None:
    assert "superuser-token" not in repr(cdcs.destination().options)


def test_ids_may_be_numbers_as_toml_gives_them() -> None:
    options = CdcsOptions.model_validate({"url": "http://x", "token": "t", "template": 7, "workspace": 2})
    assert (options.template, options.workspace) == ("7", "2")


def test_cdcs_takes_part_only_where_it_is_configured() -> None:
    unconfigured = ExporterRegistry(WorkerSettings())
    assert "cdcs" not in [info.name for info in unconfigured.infos() if info.enabled]
    table = {"url": "http://127.0.0.1:9", "token": "t"}
    configured = ExporterRegistry(WorkerSettings(destinations={"cdcs": table}))
    (info,) = [info for info in configured.infos() if info.enabled]
    assert (info.name, info.priority) == ("cdcs", 100)


def test_every_option_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "destinations" / "cdcs.md").read_text()
    assert all(f"| `{name}` |" in page and field.description for name, field in CdcsOptions.model_fields.items())


# --- the choices themselves ------------------------------------------------------------------------------

NEXUS = Template(TEMPLATE, "7", ("3", "7"))
OTHER = Template("7", "9", ("9",))


@pytest.mark.parametrize("templates", [[NEXUS, OTHER], [OTHER, NEXUS]])
def test_a_title_goes_before_an_id_in_any_order(templates: list[Template]) -> None:
    assert choose_template(templates, "7") is OTHER
    assert choose_template(templates, TEMPLATE) is NEXUS
    assert choose_template(templates, "9") is OTHER


def test_of_two_templates_of_one_title_the_id_decides() -> None:
    with pytest.raises(Misconfigured, match="2 templates are titled"):
        choose_template([NEXUS, Template(TEMPLATE, "8")], TEMPLATE)


def test_a_server_without_a_usable_template_is_no_place() -> None:
    with pytest.raises(Misconfigured, match="no usable global template; upload or enable one"):
        choose_template([Template(TEMPLATE, "1", disabled=True)], None)


def test_the_global_workspace_is_the_public_one_that_is_nobody_s() -> None:
    mine = Workspace.of({"id": 1, "title": "Mine", "owner": "4", "is_public": True})
    everybody = Workspace.of({"id": 2, "title": "Global Public Workspace", "owner": None, "is_public": True})
    assert choose_workspace([mine, everybody], None) is everybody
    assert choose_workspace([mine, everybody], "Mine") is mine
    assert choose_workspace([mine, everybody], "1") is mine
    assert choose_workspace([mine, everybody], "") is None
    with pytest.raises(Misconfigured, match="no global public workspace"):
        choose_workspace([mine], None)


@pytest.mark.parametrize(
    ("settings", "prefix"),
    [
        ({"auto_set_pid": True, "path": "Experiment.@pid"}, "https://h/n/pid/rest/local/cdcs/"),
        ({"auto_set_pid": True, "systems": ["hdl"], "prefixes": ["20.500"]}, "https://h/n/pid/rest/hdl/20.500/"),
        ({"auto_set_pid": False}, ""),
        ({"auto_set_pid": True, "path": "Other.id"}, ""),
        ({"auto_set_pid": True, "format": "[0-9]{16}"}, ""),
        ({"auto_set_pid": True, "format": "("}, ""),
    ],
)
def test_pids_are_brought_where_the_server_takes_them(settings: dict[str, Any], prefix: str) -> None:
    assert pid_prefix(PidSettings.of(settings), "https://h/n/", None) == prefix


def test_a_server_without_pids_gets_none() -> None:
    assert pid_prefix(None, "https://h/", "https://h/pid") == ""
