"""What the LabArchives test server keeps: access keys, users, notebooks, their trees, entries and files."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any

ROOT = "0"


class ApiError(Exception):
    """An answer with LabArchives' error element."""

    def __init__(self, code: int, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.code, self.description, self.status = code, description, status


@dataclass
class User:
    """One user of one access key: the uid of another key is not valid here."""

    uid: str
    akid: str
    email: str
    name: str
    token: str
    #: Notebook to whether it may be written.
    notebooks: dict[str, bool]
    max_file_size: int = 250 * 2**20


@dataclass
class Node:
    """A folder or a page."""

    tree_id: str
    notebook: str
    parent: str
    text: str
    is_page: bool


@dataclass
class Entry:
    """A text entry or an attachment, with its earlier versions counted."""

    eid: str
    notebook: str
    page: str
    part_type: str
    data: str = ""
    caption: str = ""
    file_name: str = ""
    content: bytes = b""
    version: int = 1

    @property
    def is_attachment(self) -> bool:
        return self.part_type == "Attachment"


def _one() -> User:
    notebooks = {"nb/1+=": True, "nb-3": True}
    return User("uid+one/==", "akid-one", "one@lab.example", "Person One", "token-one", notebooks)


def _two() -> User:
    notebooks = {"nb-2": True, "nb-3": False}
    return User("uid+two/==", "akid-two", "two@lab.example", "Person Two", "token-two", notebooks)


@dataclass
class Store:
    """Everything of one server; two users of two access keys, one notebook of each, one that both may read."""

    passwords: dict[str, str] = field(
        default_factory=lambda: {"akid-one": "pass/word+one==", "akid-two": "pass/word+two=="}
    )
    users: list[User] = field(default_factory=lambda: [_one(), _two()])
    names: dict[str, str] = field(default_factory=lambda: {"nb/1+=": "Microscopy", "nb-2": "Two", "nb-3": "Shared"})
    nodes: dict[str, Node] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)

    def notebook_of(self, user: User, notebook: str, *, writes: bool = False) -> str:
        if notebook not in self.names:
            raise ApiError(4529, "nbid: parameter contains invalid value")
        if notebook not in user.notebooks:
            raise ApiError(4547, "the user is not an owner or member of this notebook", 404)
        if writes and not user.notebooks[notebook]:
            raise ApiError(4501, "the user has no right to write to this notebook", 401)
        return notebook

    def folder(self, notebook: str, tree_id: str) -> str:
        node = self.nodes.get(tree_id)
        if tree_id != ROOT and (node is None or node.notebook != notebook or node.is_page):
            raise ApiError(4529, "parent_tree_id: parameter contains invalid value", 404)
        return tree_id

    def page(self, notebook: str, tree_id: str) -> str:
        node = self.nodes.get(tree_id)
        if node is None or node.notebook != notebook or not node.is_page:
            raise ApiError(4529, "page: parameter contains invalid value", 404)
        return tree_id

    def level(self, notebook: str, parent: str) -> list[Node]:
        return [n for n in self.nodes.values() if (n.notebook, n.parent) == (notebook, self.folder(notebook, parent))]

    def insert(self, notebook: str, parent: str, text: str, *, is_page: bool) -> Node:
        """Make a node, whether there is one of this name or not."""
        tree_id = f"{len(self.nodes) + 1}/Tree+Node="
        node = Node(tree_id, notebook, self.folder(notebook, parent), text, is_page)
        self.nodes[tree_id] = node
        return node

    def add(self, notebook: str, page: str, part_type: str) -> Entry:
        eid = f"{len(self.entries) + 1}/Entry+="
        self.entries[eid] = Entry(eid, notebook, self.page(notebook, page), part_type)
        return self.entries[eid]

    def entry(self, user: User, eid: str, *, writes: bool = False) -> Entry:
        if eid not in self.entries:
            raise ApiError(4529, "eid: parameter contains invalid value", 404)
        self.notebook_of(user, self.entries[eid].notebook, writes=writes)
        return self.entries[eid]

    def path(self, node: Node) -> str:
        """Return a node's names from the uppermost folder on."""
        above = self.nodes.get(node.parent)
        return node.text if above is None else f"{self.path(above)} / {node.text}"

    def tree(self) -> list[dict[str, Any]]:
        """Return every folder and page with its path, and each page's entries, as JSON."""
        return [
            {
                "tree_id": node.tree_id,
                "notebook": node.notebook,
                "path": self.path(node),
                "is_page": node.is_page,
                "entries": [_as_json(entry) for entry in self.entries.values() if entry.page == node.tree_id],
            }
            for node in self.nodes.values()
        ]


def _as_json(entry: Entry) -> dict[str, Any]:
    facts: dict[str, Any] = {"eid": entry.eid, "part_type": entry.part_type, "version": entry.version}
    if not entry.is_attachment:
        return {**facts, "data": entry.data}
    return {
        **facts,
        "caption": entry.caption,
        "file_name": entry.file_name,
        "size": len(entry.content),
        "sha256": hashlib.sha256(entry.content).hexdigest(),
        "base64": base64.b64encode(entry.content).decode(),
    }
