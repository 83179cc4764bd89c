"""Build the documentation site: ``python docs/site/build.py FOLDER``. A warning is an error; nothing is fetched."""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from docs.site.assemble import assemble

#: What a browser would fetch by itself when it shows a page.
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video)\b[^>]*\bsrc=["'](?:https?:)?//|<link\b[^>]*\brel=["'](?:stylesheet|icon|"""
    r"""preload|preconnect)["'][^>]*\bhref=["'](?:https?:)?//|@import\s+(?:url\()?["']?(?:https?:)?//|"""
    r"""url\(["']?(?:https?:)?//""",
    re.IGNORECASE,
)


def fetching(folder: Path) -> list[str]:
    """Return the files of a site that would have a browser fetch something from elsewhere."""
    files = (path for kind in ("html", "css") for path in folder.rglob(f"*.{kind}"))
    return sorted(str(path.relative_to(folder)) for path in files if _FETCHED.search(path.read_text()))


def main(folder: Path) -> int:
    """Build into ``FOLDER/html``; return an exit code."""
    from sphinx.cmd.build import build_main  # noqa: PLC0415  its environment alone has it, tests use the rest

    pages = assemble(folder / "source")
    here, html = Path(__file__).parent, folder / "html"
    failed = build_main(
        ["-b", "html", "-c", str(here), "-d", str(folder / "doctrees"), "-W", "--keep-going", "-q", "-j", "2",
         str(folder / "source"), str(html)]
    )  # fmt: skip
    if failed:
        return failed
    if elsewhere := fetching(html):
        print(f"these would be fetched from elsewhere: {', '.join(elsewhere)}", file=sys.stderr)
        return 1
    print(f"{len(pages) + 1} pages in {html}/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
