"""The command blocks of the documents: what is run, by whom, or why not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Languages that somebody would type in; a block without one counts when it begins like a command.
_TYPED = frozenset({"console", "bash", "sh", "shell", "python"})
_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[\w-]*)\s*$")
_MARKER = re.compile(r"<!--\s*(?P<kind>[a-z ]+):\s*(?P<text>.*?)\s*-->")
_LOOKS_TYPED = re.compile(r"\s*(\$ |labrelay\b)")
#: A marker for a whole document: what must be there before its first block.
GIVEN = "<!-- given: an installation -->"


@dataclass(frozen=True)
class Block:
    """One block that somebody would type in."""

    path: Path
    line: int
    language: str
    text: str
    #: Of the marker above it, if any: its kind (``not run``, or that of another test) and what it says.
    kind: str
    said: str

    @property
    def where(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The commands of a console block, continued lines joined; what they answered is left out."""
        joined = self.text.replace("\\\n", " ")
        return [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]


def documents() -> list[Path]:
    """Return the documents whose blocks must hold."""
    pages = (path for path in (ROOT / "docs").rglob("*.md") if "site" not in path.relative_to(ROOT).parts)
    return [ROOT / "README.md", *sorted(pages)]


def blocks_of(path: Path) -> Iterator[Block]:
    """Yield the command blocks of a document, in order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    start = None
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if start is None and fence:
            start, language, ticks, indent = number, fence["language"], fence["ticks"], len(fence["indent"])
        elif start is not None and line.strip() == ticks:
            text = "\n".join(each[indent:] for each in lines[start + 1 : number])
            if language in _TYPED or (not language and _LOOKS_TYPED.match(text)):
                above = next((each for each in reversed(lines[:start]) if each.strip()), "")
                marker = _MARKER.fullmatch(above.strip()) if lines[start - 1].strip() else None
                kind, said = (marker["kind"].strip(), marker["text"]) if marker else ("", "")
                yield Block(path, start + 1, language or "console", text, kind, said)
            start = None
