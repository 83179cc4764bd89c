"""What `validate_config` says of each wrong option, asked of a real server, without changing anything there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from elab import Elab, elab_server
from pydantic import ValidationError
from tests.servers.elabftw_calls import ADMIN, OTHER, READER

from labrelay_worker.conformance.faults import Fault
from labrelay_worker.destinations.elabftw import ElabOptions


@pytest.fixture
def elab() -> Iterator[Elab]:
    with elab_server() as elab:
        yield elab


def check(elab: Elab, **options) -> str | None:
    valid, message = elab.destination(**options).validate_config()
    assert valid is (message is None)
    assert {seen.method for seen in elab.server.faults.seen} <= {"GET"}
    assert elab.server.violations == []
    return message


def test_right_settings_are_right(elab):
    assert check(elab) is None
    assert check(elab, team=1, category=2, status=1) is None
    assert check(elab, api_key=ADMIN, team=1) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"api_key": "9-nobody-knows"}, ["api_key", "Settings"]),
        ({"api_key": READER}, ["api_key", "only read"]),
        ({"api_key": OTHER, "team": 1}, ["team", "belongs to team 2"]),
        ({"category": 7}, ["category 7", "1 (Routine)", "2 (Development)"]),
        ({"status": 7}, ["status 7", "1 (Running)"]),
    ],
)
def test_each_wrong_option_is_named_with_what_to_do(elab, options, words):
    message = check(elab, **options)
    assert [word for word in words if word not in message] == []
    assert options.get("api_key", "-none-") not in message


def test_a_team_without_categories_says_so(elab):
    elab.server.teams[1].categories.clear()
    assert "Use one of: none" in check(elab, category=1)


def test_the_teams_rules_are_told_to_whom_may_read_them(elab):
    # Given a team that enforces templates: only admins may read that
    elab.server.teams[1].force_exp_tpl = 1
    assert "templates" in check(elab, api_key=ADMIN)
    assert check(elab) is None


def test_an_admin_may_create_tags_whatever_the_team_says(elab):
    elab.server.teams[1].user_create_tag = 0
    assert check(elab, api_key=ADMIN) is None


def test_an_address_without_an_elabftw_is_the_wrong_url(elab):
    assert "check the url" in check(elab, url=f"{elab.url}/elsewhere")
    elab.server.faults.plan(Fault("status", status=200, body='{"name": "another system"}'))
    assert "no eLabFTW" in check(elab)


def test_a_login_page_before_it_is_told(elab):
    elab.server.faults.plan(Fault("status", status=200, body="<html>log in</html>"))
    assert "login page" in check(elab)


def test_a_server_that_is_down_or_silent_is_told_in_time(elab):
    elab.server.faults.plan(Fault("hang"))
    assert "lost" in check(elab, timeout=0.3)
    elab.server.faults.release()
    with elab_server() as gone:
        pass
    valid, message = gone.destination().validate_config()
    assert (valid, "no connection" in message) == (False, True)


def test_a_certificate_file_that_is_none_is_told(elab, tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    message = check(elab, tls={"ca_file": str(tmp_path / "ca.pem")})
    assert "ca_file" in message


@pytest.mark.parametrize(
    ("option", "value"),
    [("url", "elab.example.org"), ("api_key", ""), ("category", 0), ("timeout", 0), ("max_upload", 10), ("x", 1)],
)
def test_options_that_make_no_sense_are_refused_by_name(elab, option, value):
    with pytest.raises(ValidationError) as caught:
        elab.destination(**{option: value})
    assert caught.value.errors()[0]["loc"] == (option,)


def test_the_size_can_be_said_as_php_says_it(elab):
    assert elab.destination(max_upload="200MiB")._options.max_upload == 200 * 2**20


def test_every_option_is_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "destinations" / "elabftw.md").read_text()
    assert [name for name in ElabOptions.model_fields if f"| `{name}` |" not in page] == []


def test_the_images_of_the_documentation_are_small():
    image = Path(__file__).parents[2] / "docs" / "images" / "elabftw.png"
    assert image.stat().st_size < 200_000
