"""The repositories that labrelay delivers to, each as a test server with the settings of a destination at it."""

from __future__ import annotations

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.servers.base import TestServer
from tests.servers.cdcs import SUPERUSER, CdcsServer
from tests.servers.elabftw import ElabServer
from tests.servers.elabftw_calls import WRITER
from tests.servers.labarchives import LabArchivesServer

from labrelay.context import ExportContext
from labrelay_worker.conformance.destinations import Kept, Server
from labrelay_worker.demo.inbox import Inbox, Stored
from labrelay_worker.demo.posted import Posted
from labrelay_worker.demo.receiver import Receiver
from labrelay_worker.destinations.cdcs import CdcsDestination
from labrelay_worker.destinations.elabftw import ElabDestination
from labrelay_worker.destinations.elabftw_entry import key_of
from labrelay_worker.destinations.labarchives import LabArchivesDestination
from labrelay_worker.destinations.labarchives_page import page_name
from labrelay_worker.destinations.webhook import WebhookDestination, WebhookOptions


class Repository(ABC):
    """One test server.

    Parameters
    ----------
    name
        Of the destination.
    server
        What plays the repository.
    """

    def __init__(self, name: str, server: TestServer | None) -> None:
        self.name, self.server = name, server

    @abstractmethod
    def options(self, url: str) -> dict[str, Any]:
        """Return the options of a destination that delivers to the server at an address."""

    @abstractmethod
    def destination(self, url: str, **options: Any) -> Any:
        """Return a destination that delivers to the server at an address."""

    @abstractmethod
    def kept(self, context: ExportContext) -> list[Kept]:
        """Return every object of a session, half-made ones too."""

    @contextmanager
    def serving(self) -> Iterator[Server]:
        """Serve it; the address has no path."""
        assert self.server is not None
        with self.server.thread() as thread:
            yield Server(thread.url, self.kept)


class Cdcs(Repository):
    """A CDCS whose token is a superuser's."""

    server: CdcsServer

    def __init__(self) -> None:
        super().__init__("cdcs", CdcsServer())

    def options(self, url: str) -> dict[str, Any]:
        return {"url": url, "token": SUPERUSER, "template": "Nexus Experiment Schema", "assign_owner": True}

    def kept(self, context: ExportContext) -> list[Kept]:
        """Return the records whose title is the file's stem, or the stem with the beginning of the export id."""
        stem, digits = context.xml_file_path.stem.strip(), context.export_id.replace("-", "")[:12]
        return [
            Kept(record.xml_content.encode())
            for record in self.server.records
            if record.title == stem or record.title.endswith(f"({digits})")
        ]

    def destination(self, url: str, **options: Any) -> CdcsDestination:
        return CdcsDestination("cdcs", CdcsDestination.Options.model_validate(self.options(url) | options))


class Elabftw(Repository):
    """An eLabFTW; what its documents forbid is counted as a violation."""

    server: ElabServer

    def __init__(self) -> None:
        super().__init__("elabftw", ElabServer())

    def options(self, url: str) -> dict[str, Any]:
        return {"url": url, "api_key": WRITER}

    def kept(self, context: ExportContext) -> list[Kept]:
        key = key_of(context, self.name)
        return [self._kept(entry) for entry in self.server.alive() if key in json.dumps(entry)]

    def _kept(self, entry: dict[str, Any]) -> Kept:
        records = [content for name, content in self.server.content(entry["id"]).items() if name.endswith(".xml")]
        return Kept(records[0] if len(records) == 1 else None, entry["body"])

    def destination(self, url: str, **options: Any) -> ElabDestination:
        return ElabDestination("elabftw", ElabDestination.Options.model_validate(self.options(url) | options))


class LabArchives(Repository):
    """A LabArchives, in one notebook."""

    server: LabArchivesServer

    def __init__(self) -> None:
        super().__init__("labarchives", LabArchivesServer())

    def options(self, url: str) -> dict[str, Any]:
        return {
            "url": f"{url}/api",
            "access_key_id": "akid-one",
            "access_password": "pass/word+one==",
            "user_id": "uid+one/==",
            "notebook_id": "nb/1+=",
        }

    def kept(self, context: ExportContext) -> list[Kept]:
        """Return the pages that name the export, and those of the session's name that nothing is on yet."""
        name = page_name(context)
        return [
            self._kept(page)
            for page in self.server.pages
            if context.export_id in json.dumps(page["entries"])
            or (not page["entries"] and page["path"].endswith(f"/ {name}"))
        ]

    def _kept(self, page: dict[str, Any]) -> Kept:
        texts = [entry["data"] for entry in page["entries"] if entry["part_type"] != "Attachment"]
        records = [base64.b64decode(one["base64"]) for one in page["entries"] if one["part_type"] == "Attachment"]
        whole = len(texts) == len(records) == 1
        return Kept(records[0] if whole else None, "".join(texts))

    def destination(self, url: str, **options: Any) -> LabArchivesDestination:
        given = LabArchivesDestination.Options.model_validate(self.options(url) | options)
        return LabArchivesDestination("labarchives", given)


class Forgetful(Inbox):
    """Keeps whatever comes, as most receivers do: a key means nothing to it."""

    def accept(self, path: str, key: str | None, posted: Posted, base_url: str) -> tuple[Stored, bool]:
        return super().accept(path, None, posted, base_url)


class Webhook(Repository):
    """A receiver of webhooks.

    Parameters
    ----------
    honours_keys
        Whether it stores a delivery once that comes twice.
    """

    def __init__(self, name: str = "webhook", *, honours_keys: bool = True) -> None:
        super().__init__(name, None)
        self.honours_keys = honours_keys
        self.inbox = Inbox() if honours_keys else Forgetful()

    def options(self, url: str) -> dict[str, Any]:
        return {"url": f"{url}/submit", "token": "bearer-0123456789", "idempotent": self.honours_keys}

    def kept(self, context: ExportContext) -> list[Kept]:
        ours = [one for one in self.inbox.deliveries if one.accepted and one.export_id == context.export_id]
        return [Kept(one.record_bytes) for one in ours]

    @contextmanager
    def serving(self) -> Iterator[Server]:
        with Receiver(inbox=self.inbox) as receiver:
            yield Server(receiver.url, self.kept, checks_access=False)

    def destination(self, url: str, **options: Any) -> WebhookDestination:
        return WebhookDestination(self.name, WebhookOptions.model_validate(self.options(url) | options))


REPOSITORIES: dict[str, Callable[[], Repository]] = {
    "cdcs": Cdcs,
    "elabftw": Elabftw,
    "labarchives": LabArchives,
    "webhook": Webhook,
    "webhook_blind": lambda: Webhook("webhook_blind", honours_keys=False),
}
