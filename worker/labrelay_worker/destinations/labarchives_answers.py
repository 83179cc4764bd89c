"""What LabArchives answers: XML read into plain data, and its error codes typed by what to do. Pure.

The order of children is not fixed, every answer repeats the request in an element ``request`` (with the user id), and
an error element may come under any HTTP status, 200 included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from labrelay.errors import DeliveryError, Misconfigured, OutcomeUnknown, Rejected, Transient
from labrelay_worker.http_answers import Answer, error_of

_NOT_FOUND = 404
_SERVER_FAILED = 500
_LONGEST_DESCRIPTION = 300
_EARLY_1973_MS = 10**11

_EXPIRED = 4504
_UNKNOWN_ERROR = 4999
#: A person must correct a setting (NexusLIMS counts 4507 among them).
_PAUSING = {
    4506: "correct access_key_id",
    4507: "check access_key_id and user_id",
    4514: "check user_id; `labrelay labarchives login` gets one for this access key",
    4520: "correct access_password",
    4533: "the login has ended; `labrelay labarchives login` gets a new user_id",
}


class WrongClock(Misconfigured):
    """LabArchives finds that the request was signed at another time than now: correct this machine's clock."""


@dataclass(frozen=True)
class Node:
    """A folder or page of a notebook."""

    tree_id: str
    text: str
    is_page: bool
    can_write: bool = True


@dataclass(frozen=True)
class Entry:
    """One entry of a page."""

    eid: str
    part_type: str = ""
    data: str = ""
    caption: str = ""
    file_name: str = ""
    file_size: int | None = None

    @property
    def is_attachment(self) -> bool:
        """Whether it is a file."""
        return self.part_type.strip().lower() == "attachment"


@dataclass(frozen=True)
class Access:
    """Who logged in, and the notebooks that are open to that person, as (id, name)."""

    user_id: str
    full_name: str
    notebooks: tuple[tuple[str, str], ...]


def error_in(answer: Answer, *, safe: bool, is_file: bool = False) -> DeliveryError | None:
    """Return the error an answer stands for, or None.

    Parameters
    ----------
    answer
        What LabArchives answered.
    safe
        Whether the request changed nothing there, so that a failure of the server leaves no doubt.
    is_file
        Whether a file was asked for: its content is not read, unless the status says that something failed.
    """
    root = _tree(answer.body)
    succeeded = error_of(answer) is None
    error = _error_element(root, is_file=is_file and succeeded)
    if error is not None:
        return _typed(error, answer, safe=safe)
    if answer.status == _NOT_FOUND:
        return Misconfigured("HTTP 404 without LabArchives' error text: correct url, it ends in /api")
    if not succeeded:
        return error_of(answer, safe=safe)
    return None if is_file or root is not None else _not_the_api(answer, safe=safe)


def nodes_of(answer: Answer) -> list[Node]:
    """Return the folders and pages of a level, or the one that was made."""
    return [
        Node(
            tree_id=_text(element, "tree-id"),
            text=_text(element, "display-text"),
            is_page=_text(element, "is-page").lower() == "true",
            can_write=(element.findtext("user-access/can-write") or "true").strip().lower() == "true",
        )
        for element in _elements(_tree(answer.body), "level-node", "node")
    ]


def entries_of(answer: Answer) -> list[Entry]:
    """Return the entries of a page, or the one that was made."""
    return [
        Entry(
            eid=_text(element, "eid"),
            part_type=_text(element, "part-type"),
            data=_text(element, "entry-data"),
            caption=_text(element, "caption"),
            file_name=_text(element, "attach-file-name"),
            file_size=_number(_text(element, "attach-file-size")),
        )
        for element in _elements(_tree(answer.body), "entry")
    ]


def access_of(answer: Answer) -> Access:
    """Return what a login answered; an empty user id: nothing of use."""
    root = _tree(answer.body)
    notebooks = tuple((_text(each, "id"), _text(each, "name")) for each in _elements(root, "notebook"))
    if root is None:
        return Access("", "", notebooks)
    return Access(_text(root, "id"), _text(root, "fullname"), notebooks)


def max_file_size_of(answer: Answer) -> int | None:
    """Return the largest file of the account, bytes."""
    return next((_number(each.text or "") for each in _elements(_tree(answer.body), "max-file-size")), None)


def epoch_of(answer: Answer) -> int | None:
    """Return the server's time, milliseconds since 1970."""
    root = _tree(answer.body)
    numbers = [_number(element.text or "") for element in (root if root is not None else ())]
    return next((number for number in numbers if number is not None and number > _EARLY_1973_MS), None)


def _not_the_api(answer: Answer, *, safe: bool) -> DeliveryError:
    text = "the answer is not LabArchives' XML; is url the address of its API, ending in /api?"
    if not safe:
        return OutcomeUnknown(text)
    # A web page is what a wrong address answers, anything else was damaged on its way.
    return Misconfigured(text) if b"<html" in answer.body[:1000].lower() else Transient(text)


def _typed(error: Element, answer: Answer, *, safe: bool) -> DeliveryError:
    code = _number(_text(error, "error-code") or _text(error, "code"))
    said = (_text(error, "error-description") or _text(error, "description"))[:_LONGEST_DESCRIPTION]
    text = f"LabArchives error {code or 'without a code'}: {said or 'no explanation'}"
    if code == _EXPIRED:
        return WrongClock(f"{text}; correct this machine's clock")
    if code in _PAUSING:
        return Misconfigured(f"{text}; {_PAUSING[code]}")
    if code == _UNKNOWN_ERROR or (code is None and answer.status >= _SERVER_FAILED):
        return Transient(text) if safe else OutcomeUnknown(text)
    if code is None:
        return error_of(answer, safe=safe) or Rejected(text)
    return Rejected(text)


def _error_element(root: Element | None, *, is_file: bool) -> Element | None:
    if root is None:
        return None
    if root.tag in ("error", "errors"):
        found = root if root.tag == "error" else root.find("error")
        return found if found is not None else root
    # A file that was asked for may hold any element.
    return None if is_file else next(_elements(root, "error"), None)


def _elements(root: Element | None, *tags: str) -> Iterator[Element]:
    """Yield the elements with these tags, wherever they lie but in the repeated request."""
    for child in root if root is not None else ():
        if child.tag in tags:
            yield child
        elif child.tag != "request":
            yield from _elements(child, *tags)


def _tree(body: bytes) -> Element | None:
    try:
        root: Element = fromstring(body)
    except (ParseError, DefusedXmlException, ValueError, LookupError):
        return None
    return root


def _text(element: Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _number(text: str) -> int | None:
    try:
        return int(text.strip())
    except ValueError:
        return None
