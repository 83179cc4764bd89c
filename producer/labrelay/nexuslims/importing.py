"""Translate NexusLIMS's settings into labrelay's: from ``NX_*`` to tables, secrets and what to tell the person. Pure.

Names and defaults are those of NexusLIMS 2.8.0 (``nexusLIMS/config.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from labrelay.errors import InvalidInput
from labrelay.strategies import parse_strategy


class Kind(StrEnum):
    """How a value is written."""

    TEXT = "text"
    NUMBER = "number"
    SWITCH = "switch"
    SECRET = "secret"  # noqa: S105  a kind, not a value


@dataclass(frozen=True)
class Option:
    """One setting of NexusLIMS and the option of a destination that takes its place."""

    variable: str
    destination: str
    option: str
    kind: Kind = Kind.TEXT
    #: NexusLIMS leaves the destination out while this is not set.
    needed: bool = False


OPTIONS = (
    Option("NX_CDCS_URL", "cdcs", "url", needed=True),
    Option("NX_CDCS_TOKEN", "cdcs", "token", Kind.SECRET, needed=True),
    Option("NX_CDCS_USER_OWNED_RECORDS", "cdcs", "assign_owner", Kind.SWITCH),
    Option("NX_ELABFTW_URL", "elabftw", "url", needed=True),
    Option("NX_ELABFTW_API_KEY", "elabftw", "api_key", Kind.SECRET, needed=True),
    Option("NX_ELABFTW_EXPERIMENT_CATEGORY", "elabftw", "category", Kind.NUMBER),
    Option("NX_ELABFTW_EXPERIMENT_STATUS", "elabftw", "status", Kind.NUMBER),
    Option("NX_LABARCHIVES_URL", "labarchives", "url"),
    Option("NX_LABARCHIVES_ACCESS_KEY_ID", "labarchives", "access_key_id", Kind.SECRET, needed=True),
    Option("NX_LABARCHIVES_ACCESS_PASSWORD", "labarchives", "access_password", Kind.SECRET, needed=True),
    Option("NX_LABARCHIVES_USER_ID", "labarchives", "user_id", Kind.SECRET, needed=True),
    Option("NX_LABARCHIVES_NOTEBOOK_ID", "labarchives", "notebook_id"),
)
#: What NexusLIMS takes when nothing is set, and what it has no setting for.
_GIVEN: Mapping[str, Mapping[str, str]] = {
    "labarchives": {"url": "https://api.labarchives.com/api", "folder": "NexusLIMS Records"},
    "cdcs": {"workspace": "Global Public Workspace"},
}
_PUBLIC = "NX_CDCS_ASSIGN_TO_PUBLIC_WORKSPACE"
_ROOTS = ("NX_INSTRUMENT_DATA_PATH", "NX_DATA_PATH", "NX_RECORDS_PATH")
_BUNDLE, _BUNDLE_FILE, _NO_VERIFY = "NX_CERT_BUNDLE", "NX_CERT_BUNDLE_FILE", "NX_DISABLE_SSL_VERIFY"
_TLS_OF = "destinations.{cdcs,elabftw}.tls"
#: NexusLIMS goes by the system's authorities there, whatever its settings say.
_OF_THE_SYSTEM = frozenset({"labarchives"})
_STAYS: Mapping[str, str] = {
    "NX_DB_PATH": "`labrelay nexuslims sweep` reads it from NexusLIMS's settings",
    "NX_LOG_PATH": "the workers log to standard output",
    "NX_EMAIL_": "labrelay sends no mail: `labrelay dead list` names what needs a person",
    "NX_NEMO_": "read by NexusLIMS alone",
    "NX_FILE_": "read by NexusLIMS alone",
    "NX_IGNORE_PATTERNS": "read by NexusLIMS alone",
    "NX_CLUSTERING_SENSITIVITY": "read by NexusLIMS alone",
    "NX_LOCAL_PROFILES_PATH": "read by NexusLIMS alone",
    "NX_TEST_MODE": "a switch for NexusLIMS's own tests",
}
#: The name of the certificates' file beside ``labrelay.toml``.
CERTIFICATES = "nexuslims-ca.pem"


@dataclass
class Translation:
    """What NexusLIMS's settings come to.

    Parameters
    ----------
    options
        Of the top level of ``labrelay.toml``.
    destinations
        Its ``[destinations.NAME]`` tables, without secrets.
    secrets
        Secrets by destination and option.
    certificates
        Text of a PEM file to write, if NexusLIMS has one in a variable.
    notes
        One line each: ``taken``, ``secret``, ``stays`` or ``to do``, and what.
    """

    options: dict[str, Any] = field(default_factory=dict)
    destinations: dict[str, dict[str, Any]] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    certificates: str = ""
    notes: list[tuple[str, str]] = field(default_factory=list)

    def note(self, kind: str, text: str) -> None:
        """Add a line for the person."""
        self.notes.append((kind, text))


def translate(settings: Mapping[str, str], folder: Path = Path()) -> Translation:
    """Return what NexusLIMS's settings are in labrelay.

    Parameters
    ----------
    settings
        NexusLIMS's, by name.
    folder
        Where ``labrelay.toml`` will be.

    Raises
    ------
    InvalidInput
        There are none, or one has a value that NexusLIMS would refuse.
    """
    if not settings:
        raise InvalidInput("NX_*", "no setting of NexusLIMS is there", "Set them, or give --env-file")
    result = Translation()
    _general(settings, result)
    used = {option.destination for option in OPTIONS if option.needed and option.variable in settings}
    for option in OPTIONS:
        text = settings.get(option.variable)
        if text is not None and option.destination in used:
            _take(option, text, result)
        elif text is not None:
            result.note("stays", f"{option.variable}: nothing else says that {option.destination} is used")
    for name in result.destinations:
        _complete(name, settings, result)
    _tls(settings, folder, result)
    _say_what_stays(settings, result)
    return result


def _general(settings: Mapping[str, str], result: Translation) -> None:
    if strategy := settings.get("NX_EXPORT_STRATEGY"):
        result.options["strategy"] = parse_strategy(strategy).value
        result.note("taken", "NX_EXPORT_STRATEGY: strategy")
    roots: list[str] = []
    for variable in _ROOTS:
        if text := settings.get(variable):
            root = Path(text).expanduser()
            if not any(root.is_relative_to(known) for known in roots):
                roots.append(str(root))
            result.note("taken", f"{variable}: data_roots")
    if roots:
        result.options["data_roots"] = roots
        result.note("to do", "if the workers see these folders under other names, write [path_map]")


def _take(option: Option, text: str, result: Translation) -> None:
    table = result.destinations.setdefault(option.destination, {})
    target = f"destinations.{option.destination}.{option.option}"
    if option.kind is Kind.SECRET:
        result.secrets.setdefault(option.destination, {})[option.option] = text
        result.note("secret", f"{option.variable}: {target}, in the secrets folder")
        return
    if option.kind is Kind.NUMBER:
        table[option.option] = _number(option.variable, text)
    else:
        table[option.option] = _switch(option.variable, text) if option.kind is Kind.SWITCH else text
    result.note("taken", f"{option.variable}: {target}")


def _complete(name: str, settings: Mapping[str, str], result: Translation) -> None:
    """Add what NexusLIMS takes without being told, and leave out what it would leave out."""
    table = result.destinations[name]
    for option, value in _GIVEN.get(name, {}).items():
        table.setdefault(option, value)
    missing = [o.variable for o in OPTIONS if o.destination == name and o.needed and o.variable not in settings]
    if missing:
        table["enabled"] = False
        result.note("to do", f"destinations.{name} is written switched off: {', '.join(missing)} is not set")
    if name == "cdcs":
        result.note("to do", "NexusLIMS takes the server's first template: name one in destinations.cdcs.template")
        if (text := settings.get(_PUBLIC)) is not None:
            if _switch(_PUBLIC, text):
                result.note("taken", f"{_PUBLIC}: destinations.cdcs.workspace")
            else:
                table["workspace"] = ""
                result.note("taken", f"{_PUBLIC}: destinations.cdcs.workspace, empty: records stay private")
    if name == "labarchives" and "notebook_id" not in table:
        result.note("to do", "NexusLIMS writes to the Inbox: name a notebook in destinations.labarchives.notebook_id")


def _tls(settings: Mapping[str, str], folder: Path, result: Translation) -> None:
    tls: dict[str, Any] = {}
    if bundle := settings.get(_BUNDLE):
        result.certificates = bundle.replace("\\n", "\n").strip() + "\n"
        tls["ca_file"] = str(folder / CERTIFICATES)
        result.note("taken", f"{_BUNDLE}: {_TLS_OF}.ca_file, written to {CERTIFICATES}")
    elif file := settings.get(_BUNDLE_FILE):
        tls["ca_file"] = file
        result.note("taken", f"{_BUNDLE_FILE}: {_TLS_OF}.ca_file")
    if tls:
        result.note(
            "to do", "ca_file takes the place of the system's authorities: add any that are still needed to it"
        )
    if (text := settings.get(_NO_VERIFY)) is not None and _switch(_NO_VERIFY, text):
        tls["verify"] = False
        result.note("taken", f"{_NO_VERIFY}: {_TLS_OF}.verify")
        result.note("to do", "no certificate is verified: give ca_file instead, and take tls.verify out")
    for name, table in result.destinations.items() if tls else ():
        if name not in _OF_THE_SYSTEM:
            table["tls"] = dict(tls)


def _say_what_stays(settings: Mapping[str, str], result: Translation) -> None:
    told = {option.variable for option in OPTIONS} | {*_ROOTS, _PUBLIC, _BUNDLE, _BUNDLE_FILE, _NO_VERIFY}
    for variable in sorted(settings.keys() - told - {"NX_EXPORT_STRATEGY"}):
        why = next((why for name, why in _STAYS.items() if variable.startswith(name)), "not known; left alone")
        result.note("stays", f"{variable}: {why}")


def _number(variable: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(variable, "is not a whole number", "Correct it, or leave it out") from None


def _switch(variable: str, text: str) -> bool:
    word = text.strip().lower()
    if word in ("true", "1", "yes", "on", "t", "y"):
        return True
    if word in ("false", "0", "no", "off", "f", "n"):
        return False
    raise InvalidInput(variable, "is neither true nor false", "Correct it, or leave it out")
