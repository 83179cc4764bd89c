"""Checks that settings are understood, and that secrets are read, and kept from others."""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labrelay.doctor.findings import Finding, error, warning
from labrelay.redaction import is_secret_name
from labrelay.settings import ENV_PREFIX, config_file

if TYPE_CHECKING:
    from labrelay.doctor.examining import Patient

#: Variables that are read, and are no options: where settings are, and where the viewer's ImageJ is.
_VARIABLES = frozenset({"config", "secrets_dir", "imagej_classpath"})
_PASSWORD_IN_ADDRESS = re.compile(r"://[^/\s@]*:[^/\s@]+@")


def check(patient: Patient) -> Iterator[Finding]:
    """Look at the settings file, the environment and the secrets directory."""
    fields = set(type(patient.settings).model_fields)
    # A producer alone may share its environment and file with a worker, whose options it does not know.
    is_whole = "destinations" in fields
    path = config_file()
    if path.is_file():
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        if is_whole:
            yield from judge_unknown(str(path), table, fields)
        yield from judge_mode(path, path.stat().st_mode, holds_secret=holds_secret(table))
    if is_whole:
        named = {name[len(ENV_PREFIX) :].partition("__")[0].lower(): name for name in os.environ if _is_ours(name)}
        for option, variable in named.items():
            yield from judge_unknown(variable, [option], fields | _VARIABLES)
    directory = os.environ.get("LABRELAY_SECRETS_DIR")
    if directory:
        yield from judge_secrets(Path(directory))


def judge_unknown(where: str, names: Iterable[str], known: Collection[str]) -> Iterator[Finding]:
    """Find options that nobody reads, with the name that was meant."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"Did you mean {near[0]}? " if near else ""
            problem = f"there is no option {name!r}: what it was to change has its default"
            yield error("settings.unknown", where, problem, f"{meant}`labrelay settings` lists the options")


def judge_mode(path: Path, mode: int, *, holds_secret: bool) -> Iterator[Finding]:
    """Find a settings file with secrets that others of this machine may read."""
    if holds_secret and os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        yield warning(
            "settings.exposed",
            str(path),
            f"it holds secrets, and others on this machine may read it (mode {stat.S_IMODE(mode):o})",
            f"Run: chmod 600 {path}, or move the secrets into LABRELAY_SECRETS_DIR",
        )


def judge_secrets(directory: Path) -> Iterator[Finding]:
    """Find secrets that cannot be read, so that what needs them has none."""
    if not directory.is_dir():
        yield error(
            "settings.secrets",
            str(directory),
            "LABRELAY_SECRETS_DIR names no folder, so no secret is read from it",
            "Create it, mount it, or unset LABRELAY_SECRETS_DIR",
        )
        return
    for path in sorted(directory.iterdir()):
        if not path.name.lower().startswith(ENV_PREFIX.lower()):
            continue
        try:
            path.read_bytes()
        except OSError as trouble:
            yield error(
                "settings.secrets",
                str(path),
                f"this secret cannot be read ({trouble.strerror}), so what needs it has none",
                "Give the user of labrelay the right to read it, or put the secret there",
            )


def holds_secret(value: Any) -> bool:
    """Return whether settings hold a secret, however deep."""
    if isinstance(value, Mapping):
        return any((is_secret_name(str(key)) and item) or holds_secret(item) for key, item in value.items())
    if isinstance(value, list):
        return any(map(holds_secret, value))
    return isinstance(value, str) and _PASSWORD_IN_ADDRESS.search(value) is not None


def _is_ours(name: str) -> bool:
    return name.upper().startswith(ENV_PREFIX)
