"""The PIDs of the CDCS test server: core_linked_records_app with AUTO_SET_PID, its local provider alone."""

from __future__ import annotations

import secrets
from typing import Any

from lxml import etree
from tests.servers.cdcs_store import Data, Failure, Store

_NAME = r"[a-zA-Z0-9_\-]+"


class Pids:
    """Who has which PID; off until `automatic` is set."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.installed = True
        self.automatic = False
        #: Address that the server calls itself by.
        self.server_uri = ""
        #: PID to record id: the unique key.
        self.taken: dict[str, int] = {}
        #: How many of the next refusals say that the PID was lost in a race.
        self.races = 0

    @property
    def provider(self) -> str:
        return f"{self.server_uri}/pid/rest/local"

    def settings(self) -> dict[str, Any]:
        return {
            "auto_set_pid": self.automatic,
            "path": "Experiment.@pid",
            "format": _NAME,
            "system_name": "local",
            "system_type": "core_linked_records_app.utils.providers.local.LocalIdProvider",
            "prefixes": ["cdcs"],
        }

    def written(self, xml: str, record_id: int | None) -> tuple[str, str]:
        """Return the XML as the server rewrites it, and its PID; nothing is registered yet."""
        if not self.automatic:
            return xml, ""
        root = etree.fromstring(xml.encode(), etree.XMLParser(remove_blank_text=True))
        if etree.QName(root).localname != "Experiment":
            return xml, ""
        pid = root.get("pid") or f"{self.provider}/cdcs/{secrets.token_hex(8).upper()}"
        if not pid.startswith(f"{self.provider}/cdcs/"):
            raise Failure(500, "An error occurred while assigning PID to new data.")
        if self.taken.get(pid, record_id) != record_id:
            if self.races:
                self.races -= 1
                raise Failure(500, "An error occurred while assigning PID to new data.")
            raise Failure(500, "PID already defined for another instance")
        root.set("pid", pid)
        return etree.tostring(root, encoding="unicode"), pid

    def register(self, record: Data, pid: str) -> None:
        """Give a record its PID, and free the one it had."""
        if pid:
            self.forget(record.id)
            self.taken[pid] = record.id

    def forget(self, record_id: int) -> None:
        """Free the PID of a deleted record."""
        self.taken = {pid: holder for pid, holder in self.taken.items() if holder != record_id}
