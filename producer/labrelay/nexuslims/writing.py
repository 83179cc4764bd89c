"""Write translated settings: ``labrelay.toml``, its certificates and a secrets folder; all of them or none."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labrelay.errors import InvalidInput
from labrelay.nexuslims.importing import CERTIFICATES, Translation

#: What `labrelay.settings` looks for in ``LABRELAY_SECRETS_DIR``.
SECRETS_FILE = "labrelay_destinations"
_HEAD = """\
# Written by `labrelay settings --import-nexuslims`. No secrets here: they are in {secrets}.
# `labrelay settings` prints what is in force; environment variables LABRELAY_* win over this file.
"""
_PATH_MAP = """
# Paths as the instrument computers see them, to those the workers see:
# [path_map]
# 'Z:\\' = "/data"
"""


def write(translation: Translation, target: Path, *, force: bool = False) -> list[Path]:
    """Write the settings to ``target`` and its secrets to ``secrets`` beside it; returns the files.

    Raises
    ------
    InvalidInput
        One of the files exists and `force` is not set, or cannot be written. Nothing was written then.
    """
    folder = target.absolute().parent
    secrets_file = folder / "secrets" / SECRETS_FILE
    texts = {target.absolute(): (toml_text(translation, secrets_file.parent), 0o644)}
    if translation.certificates:
        texts[folder / CERTIFICATES] = translation.certificates, 0o644
    if translation.secrets:
        secrets = {**_known_secrets(secrets_file), **translation.secrets}
        texts[secrets_file] = json.dumps(secrets, indent=2, ensure_ascii=False) + "\n", 0o600
    for path in texts:
        if path.exists() and not force:
            raise InvalidInput(str(path), "exists already; nothing was written", "Move it away, or give --force")
    partial: list[tuple[Path, Path]] = []
    try:
        for path, (text, mode) in texts.items():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            partial.append((path.with_name(f".{path.name}.{os.getpid()}"), path))
            _write_new(partial[-1][0], text, mode)
        for written, path in partial:
            written.replace(path)
    except OSError as error:
        raise InvalidInput(str(error.filename), f"cannot be written ({error.strerror})", "Choose --output") from None
    finally:
        for written, _ in partial:
            written.unlink(missing_ok=True)
    return list(texts)


def toml_text(translation: Translation, secrets: Path) -> str:
    """Return the text of ``labrelay.toml``."""
    lines = [_HEAD.format(secrets=secrets)]
    lines += [f"{name} = {_value(value)}" for name, value in translation.options.items()]
    lines.append(_PATH_MAP)
    for name, table in translation.destinations.items():
        lines += [f"[destinations.{name}]", *(f"{key} = {_value(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


def _value(value: Any) -> str:
    """Return a value as TOML spells it; for these types that is JSON but for tables."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _known_secrets(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        known = None
    if not isinstance(known, dict):
        raise InvalidInput(str(path), "holds no JSON object; nothing was written", "Correct it or move it away")
    return known


def _write_new(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
