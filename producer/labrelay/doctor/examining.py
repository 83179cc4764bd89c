"""Run checks side by side, each within its time; whatever one of them does, there is a report."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points, version
from importlib.util import find_spec

from labrelay.doctor.findings import Finding, Report, error, worst_first
from labrelay.errors import LedgerUnavailable
from labrelay.names import ENTRY_POINTS_CHECKS
from labrelay.redaction import redact
from labrelay.results import utc_now
from labrelay.settings import ProducerSettings

_WORKER, _OF_THE_EXTRA = "labrelay_worker", "aiohttp"


@dataclass(frozen=True)
class Patient:
    """What checks look at.

    Parameters
    ----------
    settings
        The settings in force; those of the worker where it is installed and they are usable.
    seconds
        How long one answer may take: of a destination, of Redis.
    flower_url
        A Flower elsewhere to look at, besides the one of this home.
    """

    settings: ProducerSettings
    seconds: float = 10.0
    flower_url: str | None = None


@dataclass(frozen=True)
class Check:
    """One family of questions. A plugin offers its own, or a sequence of them, as entry point ``labrelay.checks``.

    Parameters
    ----------
    name
        One word, shown as what was checked.
    run
        Yields findings. It may raise `LedgerUnavailable` where Redis is away: another check says so.
    """

    name: str
    run: Callable[[Patient], Iterable[Finding]]


def known_checks() -> list[Check]:
    """Return the checks of this package and those that installed packages offer."""
    from labrelay.doctor import home, ledger, outbox, redis_rights, redis_server, restart, settings  # noqa: PLC0415  heavy

    checks = [
        Check("settings", settings.check),
        Check("home", home.check),
        Check("redis", redis_server.check),
        Check("restart", restart.check),
        Check("rights", redis_rights.check),
        Check("ledger", ledger.check),
        Check("outbox", outbox.check),
    ]
    for entry in entry_points(group=ENTRY_POINTS_CHECKS):
        # The worker's files are in every installation, what they import only with its extra.
        if entry.module.partition(".")[0] != _WORKER or find_spec(_OF_THE_EXTRA) is not None:
            checks += _offered(entry.name, entry.load)
    return checks


def examine(checks: Sequence[Check], patient: Patient, *, patience: float) -> Report:
    """Run every check and return what they found, the worst first.

    Parameters
    ----------
    checks, patient
        Who asks, and what.
    patience
        Seconds after which a check that still runs is given up.
    """
    found: dict[str, list[Finding]] = {}
    skipped: dict[str, str] = {}

    def run(check: Check) -> None:
        try:
            found[check.name] = list(check.run(patient))
        except LedgerUnavailable as trouble:
            skipped[check.name] = redact(f"Redis is away: {trouble.reason}")
        except Exception as trouble:  # noqa: BLE001  one check must not end the examination
            found[check.name] = [_failed(check.name, redact(f"{type(trouble).__name__}: {trouble}"))]

    # Daemons: one that hangs must not keep the command from ending.
    threads = [threading.Thread(target=run, args=(check,), daemon=True) for check in checks]
    for thread in threads:
        thread.start()
    deadline = threading.Event()
    timer = threading.Timer(patience, deadline.set)
    timer.daemon = True
    timer.start()
    for thread in threads:
        while thread.is_alive() and not deadline.is_set():
            thread.join(0.05)
    timer.cancel()
    done = {**found}
    for check in checks:
        if check.name not in done and check.name not in skipped:
            done[check.name] = [_failed(check.name, f"no answer within {patience:g} s")]
    return Report(
        version=version("labrelay"),
        host=socket.gethostname(),
        at=utc_now(),
        checked=tuple(check.name for check in checks if check.name in done),
        skipped=dict(skipped),
        findings=worst_first(list(dict.fromkeys(finding for each in done.values() for finding in each))),
    )


def _offered(name: str, load: Callable[[], object]) -> list[Check]:
    try:
        offered = load()
        checks = [offered] if isinstance(offered, Check) else list(offered)  # type: ignore[call-overload]
        if all(isinstance(check, Check) for check in checks):
            return checks
        reason = "it offers something else than checks"
    except Exception as trouble:  # noqa: BLE001  a broken plugin takes no check down
        reason = redact(f"{type(trouble).__name__}: {trouble}")
    return [Check(name, lambda _: [_failed(name, reason)])]


def _failed(name: str, reason: str) -> Finding:
    return error(
        "doctor.check-failed",
        name,
        f"this check could not be made ({reason}), so what it looks at is not known",
        "Correct what it names, or report it together with `labrelay doctor --bundle FILE`",
    )
