"""Checks that Flower asks for a password."""

from __future__ import annotations

import ipaddress
import urllib.error
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

from labrelay.doctor.examining import Patient
from labrelay.doctor.findings import Finding, error, warning
from labrelay_worker.flower.process import FlowerHome
from labrelay_worker.settings import WorkerSettings

_REPAIR = "Set LABRELAY_FLOWER_BASIC_AUTH to user:password, unset flower_open, and start it again without --open"
#: A busy machine takes its time to start one.
_STARTING_SECONDS = 60.0
_UNAUTHORIZED, _FORBIDDEN = 401, 403
_EVERY_INTERFACE = ("0.0.0.0", "::", None)  # noqa: S104  it is asked, not bound


def check(patient: Patient) -> Iterator[Finding]:
    """Ask the Flower of this home, and the one that was named, as a stranger would."""
    if not isinstance(patient.settings, WorkerSettings):
        return
    home = FlowerHome(patient.settings)
    running = home.running()
    for url in filter(None, dict.fromkeys([running[1] if running else None, patient.flower_url])):
        status = answer_to_stranger(url, patient.seconds)
        if status is None and url != patient.flower_url and home.age() < _STARTING_SECONDS:
            continue
        yield from judge(url, status)


def judge(url: str, status: int | None) -> Iterator[Finding]:
    """Find a Flower that shows its tasks to whoever asks.

    Parameters
    ----------
    url
        Where it is.
    status
        HTTP status of its task list without credentials; None: no answer.
    """
    if status is None:
        problem = "it does not answer, so nobody sees what is delivered"
        yield warning("flower.silent", url, problem, "See flower/flower.log below LABRELAY_HOME, and start it again")
    elif status not in (_UNAUTHORIZED, _FORBIDDEN):
        who = "every user of this machine" if is_local(url) else "everybody in the network"
        make = warning if is_local(url) else error
        problem = f"it asks for no password: {who} sees sessions, users and errors"
        yield make("flower.open", url, problem, _REPAIR)


def is_local(url: str) -> bool:
    """Return whether only this machine reaches an address."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def answer_to_stranger(url: str, seconds: float) -> int | None:
    """Ask for the task list without credentials and return the HTTP status, None without an answer."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        return None
    # An address that means "every interface" is asked on this machine.
    host = "127.0.0.1" if parts.hostname in _EVERY_INTERFACE else parts.netloc.rpartition("@")[2].rsplit(":", 1)[0]
    port = f":{parts.port}" if parts.port else ""
    tasks = f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}/tasks"
    try:
        with urllib.request.urlopen(tasks, timeout=seconds) as answer:  # noqa: S310  its scheme is looked at above
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        return refusal.code
    except (OSError, ValueError):
        return None
