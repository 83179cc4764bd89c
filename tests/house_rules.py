"""House rules that no linter has: file sizes, and words that must stay in `names.py`. Run by `make check`."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [*ROOT.glob("producer/**/*.py"), *ROOT.glob("worker/**/*.py")]
LONGEST = 400
#: Files allowed to be longer, each with its reason.
EXCUSED: dict[str, str] = {}
#: Key and task names are spelled in one place only.
RESERVED = re.compile(r"""["'](labrelay\.export|labrelay\.exports|labrelay:[a-z_]+:?)["']""")


def problems() -> list[str]:
    """Return every broken rule as `file: what`."""
    found = []
    for path in SOURCES:
        name, text = path.relative_to(ROOT).as_posix(), path.read_text()
        lines = text.count("\n")
        if lines > LONGEST and name not in EXCUSED:
            found.append(f"{name}: {lines} lines; split it, or write the reason in {Path(__file__).name}")
        if path.name != "names.py" and (match := RESERVED.search(text)):
            found.append(f"{name}: {match.group(0)} belongs into names.py")
    return found


if __name__ == "__main__":
    broken = problems()
    print("\n".join(broken) or f"house rules: {len(SOURCES)} files hold them")
    sys.exit(bool(broken))
