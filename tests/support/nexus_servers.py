"""The test servers that NexusLIMS's classes are sent to, and NexusLIMS's settings for them.

They are those of `tests/servers`, with the accounts that a facility would have.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from tests.servers.cdcs import PUBLISHER, CdcsServer
from tests.servers.elabftw import ElabServer
from tests.servers.elabftw_calls import WRITER
from tests.servers.labarchives import LabArchivesServer
from tests.servers.labarchives_store import User

ACCESS = User(
    uid="uid-5ecret/0123456789==", akid="akid-5ecret-0123456789", email="nexus@lab.example", name="NexusLIMS",
    token="unused", notebooks={"nb/1+=": True},
)  # fmt: skip
PASSWORD = "password-5ecret/01234=="
SECRETS = (PUBLISHER, WRITER, ACCESS.akid, PASSWORD, ACCESS.uid)


@dataclass(frozen=True)
class Experiment:
    """One experiment of eLabFTW."""

    body: str
    tags: list[str]
    uploads: dict[str, bytes]


@dataclass(frozen=True)
class Servers:
    """The three systems, and how NexusLIMS is told of them."""

    cdcs: CdcsServer
    elabftw: ElabServer
    labarchives: LabArchivesServer
    environment: dict[str, str]

    @property
    def experiments(self) -> list[Experiment]:
        """Everything in eLabFTW."""
        return [
            Experiment(row["body"], (row["tags"] or "").split("|"), self.elabftw.content(row["id"]))
            for row in self.elabftw.alive()
        ]

    @property
    def folders(self) -> list[str]:
        """The folders of LabArchives, as paths."""
        return [node["path"] for node in self.labarchives.state()["tree"] if not node["is_page"]]

    @property
    def pages(self) -> list[str]:
        """The pages of LabArchives, as paths."""
        return [page["path"] for page in self.labarchives.pages]

    @property
    def entries(self) -> list[str]:
        """The HTML on the pages of LabArchives."""
        return [entry["data"] for entry in self._entries() if entry["part_type"] != "Attachment"]

    @property
    def attachments(self) -> dict[str, bytes]:
        """The files on the pages of LabArchives, by name."""
        attached = [entry for entry in self._entries() if entry["part_type"] == "Attachment"]
        return {entry["file_name"]: base64.b64decode(entry["base64"]) for entry in attached}

    def _entries(self) -> list[dict[str, Any]]:
        return [entry for page in self.labarchives.pages for entry in page["entries"]]


@contextmanager
def start() -> Iterator[Servers]:
    """Start all three on free ports."""
    made = CdcsServer(), ElabServer(), LabArchivesServer()
    cdcs, _, labarchives = made
    # NexusLIMS's class takes the first template, whichever it is.
    cdcs.store.managers.pop(cdcs.other_template.id)
    labarchives.store.users.append(ACCESS)
    labarchives.store.passwords[ACCESS.akid] = PASSWORD
    with ExitStack() as stack:
        urls = [stack.enter_context(server.thread()).url for server in made]
        yield Servers(*made, nexuslims_settings(*urls))


def nexuslims_settings(cdcs: str, elabftw: str, labarchives: str) -> dict[str, str]:
    """Return what NexusLIMS is told of CDCS, eLabFTW and LabArchives at their addresses."""
    return {
        "NX_CDCS_URL": f"{cdcs}/",
        "NX_CDCS_TOKEN": PUBLISHER,
        "NX_ELABFTW_URL": elabftw,
        "NX_ELABFTW_API_KEY": WRITER,
        "NX_LABARCHIVES_URL": f"{labarchives}/api",
        "NX_LABARCHIVES_ACCESS_KEY_ID": ACCESS.akid,
        "NX_LABARCHIVES_ACCESS_PASSWORD": PASSWORD,
        "NX_LABARCHIVES_USER_ID": ACCESS.uid,
        "NX_LABARCHIVES_NOTEBOOK_ID": "nb/1+=",
    }
