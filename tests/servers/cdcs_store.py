"""What the CDCS test server keeps, and the rules a real one (core_main_app 2.18 and 2.23) was measured to hold."""

from __future__ import annotations

import io
import re
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lxml import etree

XSD = (Path(__file__).parent / "cdcs.xsd").read_bytes()
OTHER_XSD = b"""<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"><xs:element name="Other"/></xs:schema>"""

#: Documents that one list answers with ``all`` (MAX_DOCUMENT_LIST).
MAX_DOCUMENT_LIST = 100
PAGE = 10


class Failure(Exception):
    """An answer other than success: a status and what stands under ``message`` (or ``detail``)."""

    def __init__(self, status: int, message: Any, *, key: str = "message") -> None:
        super().__init__(message)
        self.status, self.body = status, {key: message}


@dataclass
class User:
    id: int
    username: str
    email: str = ""
    token: str = ""
    is_staff: bool = False
    is_superuser: bool = False
    may_publish: bool = False


@dataclass
class Template:
    """One version of a template."""

    id: int
    manager: int
    xsd: bytes
    disabled: bool = False


@dataclass
class Manager:
    """A template with its versions."""

    id: int
    title: str
    versions: list[int] = field(default_factory=list)
    is_disabled: bool = False


@dataclass
class Workspace:
    id: int
    title: str
    owner: str | None = None
    is_public: bool = False


@dataclass
class Data:
    id: int
    template: int
    title: str
    xml_content: str
    user_id: str
    workspace: int | None = None
    creation_date: str = ""
    last_modification_date: str = ""

    @property
    def root(self) -> etree._Element:
        return etree.fromstring(self.xml_content.encode())


class Store:
    """Everything a server keeps."""

    def __init__(self) -> None:
        self.users: dict[int, User] = {}
        self.templates: dict[int, Template] = {}
        self.managers: dict[int, Manager] = {}
        self.workspaces: dict[int, Workspace] = {}
        self.records: dict[int, Data] = {}
        self._next = 0

    def number(self) -> int:
        self._next += 1
        return self._next

    def add_user(self, username: str, **fields: Any) -> User:
        user = User(self.number(), username, **fields)
        self.users[user.id] = user
        return user

    def add_template(self, title: str, *versions: bytes) -> Manager:
        manager = Manager(self.number(), title)
        self.managers[manager.id] = manager
        for xsd in versions:
            self.add_version(manager, xsd)
        return manager

    def add_version(self, manager: Manager, xsd: bytes) -> Template:
        template = Template(self.number(), manager.id, xsd)
        self.templates[template.id] = template
        manager.versions.append(template.id)
        return template

    def add_workspace(self, title: str, **fields: Any) -> Workspace:
        workspace = Workspace(self.number(), title, **fields)
        self.workspaces[workspace.id] = workspace
        return workspace

    def insert(self, fields: dict[str, Any], user: User) -> Data:
        """Create a record; ``fields`` are those of a request that passed `checked_title` and the like."""
        now = datetime.now(UTC).isoformat()
        data = Data(
            self.number(), fields["template"], fields["title"], fields["xml_content"], str(user.id),
            fields.get("workspace"), now, now,
        )  # fmt: skip
        self.records[data.id] = data
        return data

    def state(self) -> dict[str, Any]:
        return {
            "users": [asdict(user) for user in self.users.values()],
            "workspaces": [asdict(workspace) for workspace in self.workspaces.values()],
            "templates": [asdict(manager) for manager in self.managers.values()],
            "records": [asdict(record) for record in self.records.values()],
        }


def checked_title(value: Any) -> str:
    """Return a title as the server stores it; it strips outer white space."""
    if value is None:
        raise Failure(400, {"title": ["This field is required."]})
    if not isinstance(value, str):
        raise Failure(400, {"title": ["Not a valid string."]})
    title = value.strip()
    if not title:
        raise Failure(400, {"title": ["This field may not be blank."]})
    if len(title) > 200:
        raise Failure(400, {"title": ["Ensure this field has no more than 200 characters."]})
    if "\x00" in title:
        raise Failure(400, {"title": ["Null characters are not allowed."]})
    if title == "..":
        raise Failure(500, "Could not derive file name from '..'")
    return title


def require_valid(xml: Any, template: Template) -> None:
    """Validate as the server does: with libxml2, and 500 for whatever it refuses."""
    try:
        root = etree.parse(io.BytesIO(str(xml).encode()), etree.XMLParser(resolve_entities=True, no_network=True))
    except etree.XMLSyntaxError as error:
        raise Failure(500, str(error)) from None
    if root.docinfo.internalDTD is not None and list(root.docinfo.internalDTD.iterentities()):
        name = next(iter(root.docinfo.internalDTD.iterentities())).name
        raise Failure(500, f"Entity '{name}' not defined, line 1, column 1 (<string>, line 1)")
    schema = etree.XMLSchema(etree.fromstring(template.xsd))
    if not schema.validate(root):
        raise Failure(500, ", ".join(str(entry.message) for entry in schema.error_log))


def page_of(entries: list[Any], number: str, address: str) -> dict[str, Any]:
    """Return one page of ten; `page_size` is ignored."""
    if not re.fullmatch(r"\d+", number) or (int(number) > 1 and (int(number) - 1) * PAGE >= len(entries)):
        raise Failure(404, "Invalid page.", key="detail")
    start = (int(number) - 1) * PAGE
    more = start + PAGE < len(entries)
    return {
        "count": len(entries),
        "next": f"{address}?page={int(number) + 1}" if more else None,
        "previous": None if start == 0 else f"{address}?page={int(number) - 1}",
        "results": entries[start : start + PAGE],
    }


def value_at(record: Data, path: str) -> str | None:
    """Return the value at a dotted path such as ``Experiment.id``; numbers are stored as numbers."""
    *names, last = path.split(".")
    node: etree._Element | None = record.root
    if etree.QName(node).localname != (names or [last])[0]:
        return None
    for name in names[1:]:
        node = None if node is None else node.find("{*}" + name)
    if node is None:
        return None
    found = node.get(last[1:]) if last.startswith("@") else node.findtext("{*}" + last)
    return str(int(found)) if found is not None and found.isdigit() else found
