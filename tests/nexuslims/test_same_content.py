"""Whatever NexusLIMS's classes send of a session, labrelay's own destinations send too: compared field by field."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from nexus_servers import Servers, start
from nexus_site import CLASSES, Site
from repositories import REPOSITORIES
from tests.servers.cdcs import SUPERUSER

from labrelay.context import ExportContext
from labrelay.results import ExportState

pytestmark = pytest.mark.integration

RESERVATION = {
    "username": "alice", "user_email": "alice@lab.example", "user_first_name": "Alice", "user_last_name": "A",
}  # fmt: skip


class Facts(HTMLParser):
    """What an entry tells: its words, and what its links and images lead to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words, self.addresses = "", set[str]()
        self.list_items: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses |= {value for name, value in attrs if name in ("href", "src") and value}
        if tag in ("li", "small"):
            self.list_items.append("")

    def handle_data(self, data: str) -> None:
        self.words += data
        if self.list_items:
            self.list_items[-1] += data

    @property
    def values(self) -> list[str]:
        """What NexusLIMS lists, without the names before the colon, and of files the name alone."""
        return [
            item.split("\n")[0].partition(": ")[2] or item.split("\n")[0].split("/")[-1] for item in self.list_items
        ]


@pytest.fixture
def own() -> Iterator[Servers]:
    """Other servers of the same kinds, for labrelay's own destinations."""
    with start() as running:
        yield running


def context_of(site: Site) -> ExportContext:
    context = ExportContext.from_nexus_record(
        site.record(1),
        session_identifier=site.identifier(1),
        instrument_root=site.environment["NX_INSTRUMENT_DATA_PATH"],
        preview_root=site.environment["NX_DATA_PATH"],
    )
    told = ExportContext.parse(context.model_dump(by_alias=True, mode="json") | {"reservation_event": RESERVATION})
    # A file of two signals is there twice, with a preview of each.
    (activity,) = told.activities
    (preview,) = activity.previews
    assert preview is not None
    second = preview.with_name("image a.dm3_signal1.thumb.png")
    second.write_bytes(preview.read_bytes() + b"2")
    both = activity.model_copy(update={"files": activity.files * 2, "previews": (preview, second)})
    return told.model_copy(update={"user": "alice", "activities": (both,)})


async def send_with_own_destinations(context: ExportContext, servers: Servers) -> None:
    urls = {name: servers.environment[f"NX_{name.upper()}_URL"].rstrip("/") for name in CLASSES}
    for name in ("cdcs", "elabftw", "labarchives"):
        more: dict[str, Any] = {"category": 2, "status": 1} if name == "elabftw" else {}
        destination = REPOSITORIES[name]().destination(urls[name].removesuffix("/api"), **more)
        context.add_result(name, await destination.export(context))
        await destination.close()


def test_nothing_that_nexuslims_sends_is_missing(site: Site, own: Servers) -> None:
    # Given a session with everything that NexusLIMS's classes read
    context = context_of(site)
    # When a worker delivers it with those classes, and labrelay's own destinations deliver it to other servers
    site.start_worker(
        NX_CDCS_TOKEN=SUPERUSER, NX_CDCS_USER_OWNED_RECORDS="true",
        NX_ELABFTW_EXPERIMENT_CATEGORY="2", NX_ELABFTW_EXPERIMENT_STATUS="1",
    )  # fmt: skip
    with site.lab.client() as client:
        status = site.lab.finished(client.submit(context, destinations=list(CLASSES)).export_id)
    assert status.state is ExportState.DELIVERED, status.summary
    asyncio.run(send_with_own_destinations(context, own))

    # Then CDCS has the same title, template and owner, it is public, and the content is too but for the line ends,
    # which NexusLIMS changes
    (theirs,), (ours,) = site.servers.cdcs.records, own.cdcs.records
    assert (ours.title, ours.template) == (theirs.title, theirs.template)
    assert ours.workspace == own.cdcs.workspace.id
    assert ours.xml_content.replace("\r\n", "\n") == theirs.xml_content
    (alice, hers), users = [_alice(servers) for servers in (site.servers, own)], (theirs.user_id, ours.user_id)
    assert users == (str(alice.id), str(hers.id))
    assert (alice.username, alice.email) == (hers.username, hers.email)

    # And eLabFTW has the same title, category, status and file, and no fewer tags, fields and facts
    (theirs_at,), (ours_at,) = site.servers.elabftw.alive(), own.elabftw.alive()
    for name in ("title", "category", "status", "content_type"):
        assert ours_at[name] == theirs_at[name], name
    assert set(theirs_at["tags"].split("|")) <= set(ours_at["tags"].split("|"))
    their_fields, our_fields = (at["metadata_decoded"]["extra_fields"] for at in (theirs_at, ours_at))
    for name, field in their_fields.items():
        assert _comparable(our_fields[name]["value"], own).startswith(_comparable(field["value"], site.servers)), name
        assert field.keys() <= our_fields[name].keys(), name
    _require_facts(theirs_at["body"], site.servers, ours_at["body"], own)
    assert own.experiments[0].uploads == site.servers.experiments[0].uploads
    (their_file,), (our_file,) = theirs_at["uploads"], ours_at["uploads"]
    assert our_file["comment"].startswith(their_file["comment"])

    # And LabArchives has the same folders, page and file, and no fewer facts, captions, links and images
    assert (own.folders, own.pages) == (site.servers.folders, site.servers.pages)
    (their_entry,), (our_entry,) = site.servers.entries, own.entries
    assert "(2 of 2)" in their_entry
    _require_facts(their_entry, site.servers, our_entry, own)
    assert own.attachments == site.servers.attachments
    (their_caption,), (our_caption,) = map(_captions, (site.servers, own))
    assert our_caption.startswith(their_caption)


def _require_facts(theirs: str, their_servers: Servers, ours: str, our_servers: Servers) -> None:
    their_facts, our_facts = Facts(_comparable(theirs, their_servers)), Facts(_comparable(ours, our_servers))
    assert len(their_facts.values) >= 5
    for value in their_facts.values:
        assert value in our_facts.words or value == "View in CDCS", value
    assert their_facts.addresses <= our_facts.addresses


def _comparable(text: str, servers: Servers) -> str:
    """Return a text with the same address for CDCS, and the same number for the record there."""
    (record,) = servers.cdcs.records
    return text.replace(f"{servers.environment['NX_CDCS_URL']}data?id={record.id}", "https://cdcs/data?id=0")


def _alice(servers: Servers) -> Any:
    (alice,) = [user for user in servers.cdcs.store.users.values() if user.username == "alice"]
    return alice


def _captions(servers: Servers) -> list[str]:
    entries = [entry for page in servers.labarchives.pages for entry in page["entries"]]
    return [entry["caption"] for entry in entries if entry["part_type"] == "Attachment"]
