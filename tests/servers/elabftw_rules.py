"""What an eLabFTW does to what it is given: filters for title, text and tags, folding, and its search."""

from __future__ import annotations

import re
import unicodedata
from html import escape
from html.parser import HTMLParser
from typing import Any

LONGEST_BODY = 4_120_000

#: Elements and attributes that stay (``Filter::body``).
_ALLOWED: dict[str, set[str]] = {
    "a": {"href", "target"},
    "img": {"src", "style", "width", "height"},
    "table": {"style", "border"},
    "td": {"style", "colspan", "rowspan"},
    "th": {"style", "colspan", "rowspan"},
}
for _names, _attributes in [
    ("br sub sup strong b em u s dl dt dd blockquote hr code summary caption figure figcaption", set[str]()),
    ("div p h1 h2 h3 h4 h5 h6 details pre span ul li ol tr", {"style"}),
]:
    _ALLOWED |= dict.fromkeys(_names.split(" "), _attributes)


class _Purifier(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.kept: list[str] = []
        self.silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.silent += tag in ("script", "style")
        if tag in _ALLOWED:
            safe = [(k, v or "") for k, v in attrs if k in _ALLOWED[tag] and not _dangerous(k, v or "")]
            attributes = "".join(f' {name}="{escape(value)}"' for name, value in safe)
            self.kept.append(f"<{tag}{attributes}>")

    def handle_endtag(self, tag: str) -> None:
        self.silent -= tag in ("script", "style")
        if tag in _ALLOWED and tag not in ("br", "hr", "img"):
            self.kept.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.kept.append(escape(data, quote=False))


def purified(body: str) -> str:
    """Return a main text without what the server takes out."""
    purifier = _Purifier()
    purifier.feed(body)
    return "".join(purifier.kept)


def filtered_title(title: str) -> str:
    """Return a title as it is stored."""
    return re.sub(r"\r\n|\n|\r", " ", title.strip())[:255] or "Untitled"


def cleaned_tag(tag: str) -> str:
    """Return a tag as it is stored; an empty one is refused by the caller."""
    return tag.replace("\\", "").replace("|", " ").strip()


def folded(text: str) -> str:
    """Return a text as the database compares it: neither case nor accents count."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


def matches(query: str, entry: dict[str, Any]) -> bool:
    """Return whether an entry fits an extended query.

    Raises
    ------
    ValueError
        The query is not understood.
    """
    parsed = re.fullmatch(r'(extrafield:|title:)(s:)?(?:"([^"]+)"|(\w+)):?(?:"([^"]*)"|([\w%-]*))', query)
    if parsed is None:
        raise ValueError(query)
    field, strict, name, bare_name, quoted, bare = parsed.groups()
    if field == "title:":
        return _like(name or bare_name, entry["title"], strict=bool(strict))
    fields = (entry["metadata"] or {}).get("extra_fields") or {}
    value = next(
        (one.get("value") for key, one in fields.items() if key.lower() == (name or bare_name).lower()), None
    )
    return value is not None and _like(quoted or bare, str(value), strict=bool(strict))


def _like(pattern: str, text: str, *, strict: bool) -> bool:
    """Compare as MySQL's LIKE does: ``%`` and ``_`` are wildcards."""
    expression = "".join({"%": ".*", "_": "."}.get(c, re.escape(c)) for c in pattern.lower())
    return bool((re.fullmatch if strict else re.search)(expression, text.lower(), re.DOTALL))


def _dangerous(attribute: str, value: str) -> bool:
    scheme = value.strip().lower().partition(":")
    return attribute in ("href", "src") and bool(scheme[1]) and scheme[0] not in ("http", "https", "mailto", "ftp")
