"""Where a session lies in a notebook: folder, instrument, page; and which of the page's entries are labrelay's."""

from __future__ import annotations

from dataclasses import dataclass

from labrelay.errors import Rejected
from labrelay_worker.destinations.labarchives_answers import Entry, Node
from labrelay_worker.destinations.labarchives_api import ROOT, LabArchivesApi
from labrelay_worker.destinations.labarchives_page import Key, clean_name, key_in


@dataclass(frozen=True)
class Page:
    """A session's page, with the two entries that labrelay keeps there."""

    tree_id: str
    text: Entry | None = None
    text_key: Key | None = None
    record: Entry | None = None


@dataclass(frozen=True)
class Place:
    """How much of the path to a session's page is there; empty: not yet."""

    folder: str = ""
    instrument: str = ""
    page: Page | None = None


class Notebook:
    """One notebook with one folder for all records.

    Parameters
    ----------
    api
        The API's calls.
    notebook_id, folder
        Which notebook, and the name of its folder.
    """

    def __init__(self, api: LabArchivesApi, notebook_id: str, folder: str) -> None:
        self._api, self._id, self._folder = api, notebook_id, clean_name(folder)

    async def look(self, instrument: str, name: str, export_id: str) -> Place:
        """Follow the path as far as it is there. Of several pages with one name, the export's own is taken."""
        folder = _named(await self._api.tree_level(self._id, ROOT), self._folder, is_page=False)
        if not folder:
            return Place()
        level = await self._api.tree_level(self._id, folder[0].tree_id)
        here = _named(level, clean_name(instrument), is_page=False)
        if not here:
            return Place(folder[0].tree_id)
        pages = _named(await self._api.tree_level(self._id, here[0].tree_id), name, is_page=True)
        return Place(folder[0].tree_id, here[0].tree_id, await self._own(pages, export_id))

    async def make(self, place: Place, instrument: str, name: str) -> Page:
        """Make what is missing of the path, down to an empty page."""
        folder = place.folder or await self._api.insert_node(self._id, ROOT, self._folder, folder=True)
        here = place.instrument or await self._api.insert_node(self._id, folder, clean_name(instrument), folder=True)
        return Page(await self._api.insert_node(self._id, here, name, folder=False))

    async def read(self, tree_id: str, export_id: str) -> Page:
        """Return a page by its id."""
        return _page_of(tree_id, await self._api.entries(self._id, tree_id), export_id)

    async def read_known(self, tree_id: str, export_id: str) -> Page | None:
        """Return a page by an id from earlier; None if it has nothing of the export any more, or is gone."""
        try:
            page = await self.read(tree_id, export_id)
        except Rejected:
            return None
        return page if page.text or page.record else None

    async def _own(self, pages: list[Node], export_id: str) -> Page | None:
        free: Page | None = None
        for node in pages:
            entries = await self._api.entries(self._id, node.tree_id)
            page = _page_of(node.tree_id, entries, export_id)
            if page.text or page.record:
                return page
            # A page that begins alike may be another export's, whose longer name was shortened to the same.
            if free is None and not any(_key(entry) for entry in entries):
                free = page
        return free


def _named(nodes: list[Node], name: str, *, is_page: bool) -> list[Node]:
    return [node for node in nodes if node.is_page == is_page and clean_name(node.text) == name]


def _key(entry: Entry) -> Key | None:
    return key_in(entry.caption or entry.data) if entry.is_attachment else key_in(entry.data)


def _page_of(tree_id: str, entries: list[Entry], export_id: str) -> Page:
    own = [(entry, key) for entry in entries if (key := _key(entry)) is not None and key.export_id == export_id]
    text = next(((entry, key) for entry, key in own if not entry.is_attachment), (None, None))
    record = next((entry for entry, _ in own if entry.is_attachment), None)
    return Page(tree_id, text[0], text[1], record)
