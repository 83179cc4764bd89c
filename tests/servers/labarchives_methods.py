"""What each method of the LabArchives test server does to its store, and what it answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement

from tests.servers.labarchives_store import ApiError, Entry, Node, Store, User

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Call:
    """One checked request."""

    parameters: Mapping[str, str]
    body: bytes
    caller: User | None
    now_ms: int

    @property
    def user(self) -> User:
        assert self.caller is not None
        return self.caller

    def __getitem__(self, name: str) -> str:
        value = self.parameters.get(name)
        if not value:
            raise ApiError(4500, f"{name}: mandatory parameter is missing")
        if _NOT_XML.search(value):
            raise ApiError(4529, f"{name}: parameter contains invalid value")
        return value


def _epoch_time(store: Store, call: Call) -> Element:
    return _typed(Element("utilities"), "epoch-time", call.now_ms)


def _access_info(store: Store, call: Call) -> Element:
    root = Element("users")
    add_texts(root, {"id": call.user.uid, "fullname": call.user.name, "email": call.user.email})
    notebooks = SubElement(root, "notebooks", type="array")
    for notebook in call.user.notebooks:
        add_texts(SubElement(notebooks, "notebook"), {"id": notebook, "name": store.names[notebook]})
    return root


def _max_file_size(store: Store, call: Call) -> Element:
    return _typed(Element("users"), "max-file-size", call.user.max_file_size)


def _tree_level(store: Store, call: Call) -> Element:
    notebook = store.notebook_of(call.user, call["nbid"])
    root = Element("tree-tools")
    level = SubElement(root, "level-nodes", type="array")
    for node in store.level(notebook, call["parent_tree_id"]):
        level.append(_node(node, "level-node", can_write=call.user.notebooks[notebook]))
    return root


def _insert_node(store: Store, call: Call) -> Element:
    notebook = store.notebook_of(call.user, call["nbid"], writes=True)
    if call["is_folder"] not in ("true", "false"):
        raise ApiError(4529, "is_folder: parameter contains invalid value")
    made = store.insert(notebook, call["parent_tree_id"], call["display_text"], is_page=call["is_folder"] == "false")
    return _under("tree-tools", _node(made, "node", can_write=True))


def _update_node(store: Store, call: Call) -> Element:
    store.notebook_of(call.user, call["nbid"], writes=True)
    node = store.nodes.get(call["tree_id"])
    if node is None:
        raise ApiError(4529, "tree_id: parameter contains invalid value", 404)
    node.text = call.parameters.get("display_text", node.text)
    return _under("tree-tools", _node(node, "node", can_write=True))


def _entries_for_page(store: Store, call: Call) -> Element:
    notebook = store.notebook_of(call.user, call["nbid"])
    page = store.page(notebook, call["page_tree_id"])
    root = Element("tree-tools")
    entries = SubElement(root, "entries", type="array")
    for entry in store.entries.values():
        if entry.page == page:
            entries.append(_entry(entry, with_data=call.parameters.get("entry_data") == "true"))
    return root


def _add_entry(store: Store, call: Call) -> Element:
    notebook = store.notebook_of(call.user, call["nbid"], writes=True)
    if call["part_type"] not in ("text entry", "plain text entry", "heading"):
        raise ApiError(4529, "part_type: parameter contains invalid value")
    data = call["entry_data"]
    entry = store.add(notebook, call["pid"], call["part_type"])
    entry.data = data
    return _under("entries", _entry(entry, with_data=True))


def _update_entry(store: Store, call: Call) -> Element:
    entry = store.entry(call.user, call["eid"], writes=True)
    entry.data = call["entry_data"]
    entry.version += 1
    return _under("entries", _entry(entry, with_data=True))


def _add_attachment(store: Store, call: Call) -> Element:
    notebook = store.notebook_of(call.user, call["nbid"], writes=True)
    page = store.page(notebook, call["pid"])
    _require_file(call)
    return _attached(store.add(notebook, page, "Attachment"), call)


def _update_attachment(store: Store, call: Call) -> Element:
    entry = store.entry(call.user, call["eid"], writes=True)
    if not entry.is_attachment:
        raise ApiError(4529, "eid: parameter contains invalid value")
    _require_file(call)
    entry.version += 1
    return _attached(entry, call)


def _require_file(call: Call) -> None:
    call["filename"]  # clients in use send neither caption nor change_description
    if len(call.body) > call.user.max_file_size:
        raise ApiError(4529, "the file is larger than the account allows", 413)


def _attached(entry: Entry, call: Call) -> Element:
    entry.file_name, entry.content = call["filename"], call.body
    entry.caption = call.parameters.get("caption", entry.caption)
    return _under("entries", _entry(entry, with_data=False))


def _entry_attachment(store: Store, call: Call) -> Entry:
    entry = store.entry(call.user, call["eid"])
    if not entry.is_attachment:
        raise ApiError(4529, "eid: parameter contains invalid value", 404)
    return entry


def _entry_info(store: Store, call: Call) -> Element:
    entry = store.entry(call.user, call["eid"])
    return _under("entries", _entry(entry, with_data=call.parameters.get("entry_data") == "true"))


METHODS: dict[str, tuple[str, Callable[[Store, Call], Element | Entry]]] = {
    "utilities/epoch_time": ("GET", _epoch_time),
    "users/user_access_info": ("GET", _access_info),
    "users/max_file_size": ("GET", _max_file_size),
    "tree_tools/get_tree_level": ("GET", _tree_level),
    "tree_tools/insert_node": ("GET", _insert_node),
    "tree_tools/update_node": ("GET", _update_node),
    "tree_tools/get_entries_for_page": ("GET", _entries_for_page),
    "entries/add_entry": ("POST", _add_entry),
    "entries/update_entry": ("POST", _update_entry),
    "entries/add_attachment": ("POST", _add_attachment),
    "entries/update_attachment": ("POST", _update_attachment),
    "entries/entry_attachment": ("GET", _entry_attachment),
    "entries/entry_info": ("GET", _entry_info),
}


def _under(name: str, child: Element) -> Element:
    root = Element(name)
    root.append(child)
    return root


def add_texts(element: Element, texts: Mapping[str, str]) -> Element:
    for name, text in texts.items():
        SubElement(element, name).text = text
    return element


def _typed(root: Element, name: str, value: int) -> Element:
    SubElement(root, name, type="integer").text = str(value)
    return root


def _node(node: Node, name: str, *, can_write: bool) -> Element:
    element = add_texts(Element(name), {"tree-id": node.tree_id, "display-text": node.text})
    SubElement(element, "is-page", type="boolean").text = str(node.is_page).lower()
    access = SubElement(element, "user-access")
    add_texts(access, {"can-read": "true", "can-write": str(can_write).lower()})
    return element


def _entry(entry: Entry, *, with_data: bool) -> Element:
    element = add_texts(
        Element("entry"),
        {
            "eid": entry.eid,
            "part-type": entry.part_type,
            "caption": entry.caption,
            "attach-file-name": entry.file_name,
            "version": str(entry.version),
        },
    )
    _typed(element, "attach-file-size", len(entry.content))
    if with_data:
        SubElement(element, "entry-data").text = entry.caption if entry.is_attachment else entry.data
    return element
