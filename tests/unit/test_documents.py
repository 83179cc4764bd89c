"""Every command block of the documents is run by a test, or says why not; the reference names all there is."""

from __future__ import annotations

import re

import pytest
from docs.site import cli_reference, metrics_reference, settings_reference, wire_reference
from docs.site.assemble import ROOT, index, linked, sections
from document_blocks import Block, blocks_of, documents

from labrelay.cli import main
from labrelay.metrics.families import LEDGER_FAMILIES, WORKER_FAMILIES
from labrelay_worker.backends.base import StorageBackend
from labrelay_worker.settings import BreakerSettings, RetrySettings, WorkerSettings

BLOCKS = [block for document in documents() for block in blocks_of(document)]
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_a_block_is_run_or_says_why_not(block: Block):
    if not block.kind:
        # tests/integration/test_command_blocks.py runs it: then there must be something to run.
        assert block.language == "python" or block.commands, f"{block.where} has no line that begins with '$ '"
    elif block.kind == "not run":
        assert len(block.said.split()) >= 3, f"{block.where}: say why it is not run"
        named = re.findall(r"tests/[\w/]+(?:\.py)?", block.said)
        assert [name for name in named if not (ROOT / name).exists()] == [], (
            f"{block.where} names a test that is not there"
        )
    else:
        said = (
            f"{block.where} is marked '{block.kind}', which no test reads; write <!-- not run: WHY --> or no marker"
        )
        assert f"<!-- {block.kind}:" in TESTS, said


def test_a_marker_must_stand_directly_above_its_block(tmp_path):
    # Given a marker, and a block that is not its own
    page = ROOT / "docs" / "architecture.md"
    text = "<!-- not run: for a good reason -->\n\n```console\n$ labrelay list\n```\n"
    path = tmp_path / page.name
    path.write_text(text)

    # Then the block counts as one to run
    (block,) = blocks_of(path)
    assert (block.kind, block.commands) == ("", ["labrelay list"])


# --- the reference -------------------------------------------------------------------------------------------


def test_every_command_and_option_is_in_the_reference():
    page = cli_reference.page()
    commands = dict(cli_reference.commands(main))
    assert {"labrelay submit", "labrelay worker", "labrelay check", "labrelay watch", "labrelay dead replay"} <= set(
        commands
    )
    for path, command in commands.items():
        assert f" `{path}`\n" in page
        section = page.partition(f" `{path}`\n")[2].partition("\n#")[0]
        for parameter in command.params:
            for name in (opt for opt in parameter.opts if opt.startswith("--") and opt != "--help"):
                assert name in section, f"{path} {name}"


def test_every_setting_is_in_the_reference_with_its_meaning():
    page = settings_reference.page()
    for model, prefix in (
        (WorkerSettings, "LABRELAY_"),
        (RetrySettings, "LABRELAY_RETRY__"),
        (BreakerSettings, "LABRELAY_BREAKER__"),
    ):
        for name, field in model.model_fields.items():
            variable = f"`{prefix}{name.upper()}`"
            assert any(line.startswith(f"| `{name}` |") and variable in line for line in page.splitlines()), variable
            assert field.description, f"{name} has no description"


def test_every_option_of_every_destination_and_backend_is_in_the_reference():
    page = settings_reference.page()
    types = settings_reference.destination_types()
    assert {"cdcs", "elabftw", "labarchives", "webhook", "backend"} <= set(types)
    for name, options in types.items():
        section = page.partition(f'### `type = "{name}"`\n')[2].partition("\n###")[0]
        for option in options.model_fields:
            assert f"| `{option}` |" in section, f"{name}.{option}"
    backends = settings_reference.backend_types()
    assert {"disk", "memory", "zarr", "napari_stream", "fiji_stream"} <= set(backends)
    assert any(issubclass(cls, StorageBackend) for cls in backends.values())
    for name in backends:
        assert f'### `type = "{name}"`' in page


def test_the_wire_form_and_every_key_are_in_the_reference():
    page = wire_reference.wire_page()
    assert all(
        f"| `{name}` |" in page
        for name in ("xml_file_path", "session_identifier", "activities", "artifacts", "sha256")
    )
    keys = wire_reference.keys_page()
    ledger = (ROOT / "docs" / "ledger.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| [^|]+ \|$", keys, re.MULTILINE)
    assert len(rows) == len(wire_reference.keys()) > 10
    for key, kind in rows:
        # What people wrote of the keys says of each what the code says.
        name = key.partition(":")[0]
        assert f"`{name}" in ledger, f"docs/ledger.md does not name {key}"
        assert kind.strip(), key


# --- the site ------------------------------------------------------------------------------------------------


def test_every_page_has_a_place_and_a_new_one_finds_it_by_itself():
    # Given the pages of today and two that nobody has written yet
    pages = [path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in documents()[1:]]
    placed = sections([*pages, "brand-new", "destinations/another"])

    # Then each stands in one section
    everything = [page for those in placed.values() for page in those]
    assert sorted(everything) == sorted([*pages, "brand-new", "destinations/another"])
    assert "brand-new" in placed["How-to guides"]
    assert "destinations/another" in placed["Destinations"]
    assert "\ntutorial\n" in index(pages)


def test_a_link_out_of_the_site_names_the_file_and_one_within_stays():
    page = ROOT / "docs" / "outbox.md"
    assert linked("[x](ledger.md#keys)", page) == "[x](ledger.md#keys)"
    assert linked("[the unit](../deploy/systemd/labrelay-worker.service)", page).endswith(
        "(`deploy/systemd/labrelay-worker.service` in the project)"
    )
    assert linked("[x](https://example.org)", page) == "[x](https://example.org)"
    assert linked("[x](no-such.md)", page) == "[x](no-such.md)"  # the strict build refuses it


def test_every_metric_and_every_alert_is_in_the_reference():
    page = metrics_reference.page()
    assert [f.name for f in (*LEDGER_FAMILIES, *WORKER_FAMILIES) if f"| `{f.name}` |" not in page] == []
    alerts = re.findall(r"- alert: (\w+)", metrics_reference.RULES.read_text())
    assert [name for name in alerts if f"| {name} (" not in page] == []
    assert len(alerts) > 15
