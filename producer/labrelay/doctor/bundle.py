"""The support archive: what somebody needs who helps from afar, without a secret in it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, SecretStr

from labrelay.doctor.settings import holds_secret
from labrelay.errors import InvalidInput, LabrelayError
from labrelay.ledger import Ledger, connect
from labrelay.redaction import MASK, Redactor, is_secret_name, mask_table
from labrelay.settings import ENV_PREFIX, ProducerSettings, config_file, effective_options

if TYPE_CHECKING:
    from labrelay.doctor.findings import Report

_TRAILS = 20
#: Of a log, so many bytes from its end.
_LOG_BYTES = 200_000
_ADDRESS = "://"
#: Variables of every shell, whose names sound like passwords.
_FOLDERS = frozenset({"PWD", "OLDPWD"})


def write_bundle(path: Path, report: Report, settings: ProducerSettings | None) -> None:
    """Write the archive, readable for its owner alone.

    Raises
    ------
    InvalidInput
        It cannot be written.
    """
    redact = Redactor(known_secrets(settings))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("doctor.json", _json(scrub(report.document(), redact)))
            archive.writestr("versions.json", _json(versions()))
            if settings is None:
                return
            options = [option.model_dump() for option in effective_options(settings)]
            archive.writestr("settings.json", _json(scrub(options, redact)))
            if (toml := config_file()).is_file():
                table = mask_table(tomllib.loads(toml.read_text(encoding="utf-8")))
                archive.writestr("labrelay.toml.json", _json(scrub(table, redact)))
            archive.writestr("environment.json", _json(scrub(_environment(), redact)))
            archive.writestr("ledger.json", _json(scrub(_ledger(settings), redact)))
            for log in sorted(settings.home.rglob("*.log")):
                archive.writestr(f"logs/{log.relative_to(settings.home)}", _log(log, redact))
    except OSError as trouble:
        raise InvalidInput("--bundle", f"cannot write {path} ({trouble.strerror})", "Name another file") from None


def known_secrets(settings: ProducerSettings | None) -> set[str]:
    """Return every secret that this installation could know: what the archive must not hold, wherever it turns up."""
    found: set[str] = set()
    for name, value in os.environ.items():
        if is_secret_name(name) and name not in _FOLDERS:
            found.add(value)
        elif name.upper().startswith(ENV_PREFIX):
            found.update(_passwords(value))
            found.update(_in_json(value, named=name.upper().endswith("HEADERS")))
    if settings is not None:
        found.update(_secrets(settings))
        account = settings.home / "flower" / "account"
        if account.is_file():
            found.add(account.read_text(errors="replace").strip())
    # Of what cannot be read no text is in the archive either.
    with suppress(ValueError, OSError):
        found.update(_secrets(tomllib.loads(config_file().read_text(encoding="utf-8"))))
    for path in _secret_files():
        with suppress(OSError):
            text = path.read_text(errors="replace").strip()
            found.add(text)
            found.update(_passwords(text))
            found.update(_in_json(text))
    # `user:password` also turns up as its second half.
    return found | {secret.partition(":")[2] for secret in found if ":" in secret and _ADDRESS not in secret}


def scrub(value: Any, redact: Redactor) -> Any:
    """Return JSON data without secrets: by the names they have, by their values, and by their looks."""
    if isinstance(value, Mapping):
        return {
            redact(str(key)): MASK if is_secret_name(str(key)) and item else scrub(item, redact)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [scrub(item, redact) for item in value]
    return redact(value) if isinstance(value, str) else value


def versions() -> dict[str, Any]:
    """Return what is installed here."""
    packages = {each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}
    return {
        "python": sys.version,
        "platform": platform.platform(),
        "packages": dict(sorted(packages.items(), key=lambda pair: str(pair[0]).lower())),
    }


def _ledger(settings: ProducerSettings) -> dict[str, Any]:
    try:
        with connect(settings) as client:
            ledger = Ledger(client, settings.keys, settings.wake_up_grace)
            exports = ledger.recent(limit=_TRAILS)
            return {
                "counts": {str(state): count for state, count in ledger.counts().items()},
                "workers": [worker.model_dump(mode="json") for worker in ledger.workers()],
                "exports": [export.model_dump(mode="json") for export in exports],
                "trails": {
                    export.export_id: [entry.model_dump(mode="json") for entry in ledger.trail(export.export_id)]
                    for export in exports
                },
            }
    except LabrelayError as trouble:
        return {"unavailable": str(trouble)}


def _environment() -> dict[str, str]:
    return {name: value for name, value in sorted(os.environ.items()) if name.upper().startswith(ENV_PREFIX)}


def _log(path: Path, redact: Redactor) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LOG_BYTES))
        text = file.read().decode(errors="replace")
    return "\n".join(redact(line) for line in text.splitlines())


def _secret_files() -> Iterator[Path]:
    directory = os.environ.get("LABRELAY_SECRETS_DIR")
    if directory and Path(directory).is_dir():
        yield from (path for path in Path(directory).iterdir() if path.is_file())


def _secrets(value: Any, *, named: bool = False) -> Iterator[str]:
    """Yield what is secret in settings by type, by name, or as the password of an address."""
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
        yield from _passwords(value.get_secret_value())
    elif isinstance(value, BaseModel):
        # `dict` of a model with an attribute `keys` would call that.
        yield from _secrets({name: getattr(value, name) for name in type(value).model_fields})
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _secrets(item, named=named or is_secret_name(str(key)) or str(key).lower() == "headers")
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _secrets(item, named=named)
    elif isinstance(value, str):
        yield from [value] if named else _passwords(value)
        yield from _in_json(value, named=named)


def _passwords(text: str) -> Iterable[str]:
    """Return the password of an address."""
    if _ADDRESS not in text or not holds_secret(text):
        return ()
    return (text.partition(_ADDRESS)[2].rpartition("@")[0].partition(":")[2],)


def _in_json(text: str, *, named: bool = False) -> Iterable[str]:
    """Return what is secret in a text that holds a table, as variables and files do."""
    if not text.lstrip().startswith("{"):
        return ()
    try:
        return tuple(_secrets(json.loads(text), named=named))
    except ValueError:
        return ()


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
