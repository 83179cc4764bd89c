"""One misfortune at one request of one delivery, with real workers: played, left alone to recover, and counted."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab import Lab, Worker, laboratory, wait_until
from repositories import Repository

from labrelay.client import Client
from labrelay.context import ExportContext
from labrelay.results import ExportState, ExportStatus
from labrelay_worker.conformance.destination_sessions import Sessions
from labrelay_worker.conformance.destinations import Kept, Server
from labrelay_worker.conformance.faults import Fault
from labrelay_worker.conformance.serving import FaultProxy

#: Seconds one request may take; a server that hangs is given up then.
TIMEOUT = 3.0
#: Seconds from the last fault until an export must be settled.
SETTLE_BOUND = 60.0
#: Processes of one worker: while one follows another, there are some that take work.
_CHILDREN = 3
_BUSY = {"Retry-After": "1"}


@dataclass(frozen=True)
class Misfortune:
    """What befalls a request, and whether the worker is killed while it hangs or right after its answer."""

    fault: Fault
    kills: bool = False
    answers_first: bool = False


MISFORTUNES: Mapping[str, Misfortune] = {
    "killed before": Misfortune(Fault("hang"), kills=True),
    "killed during": Misfortune(Fault("hang", after=True), kills=True),
    "killed after": Misfortune(Fault("hang", after=True), kills=True, answers_first=True),
    "answer lost": Misfortune(Fault("close", after=True)),
    "request lost": Misfortune(Fault("close")),
    "429": Misfortune(Fault("status", status=429, headers=_BUSY)),
    "500": Misfortune(Fault("status", status=500)),
    "500, done": Misfortune(Fault("status", status=500, after=True)),
    "503": Misfortune(Fault("status", status=503, headers=_BUSY)),
    "hang": Misfortune(Fault("hang", after=True)),
}


@dataclass
class Case:
    """What became of one session."""

    destination: str
    position: int
    request: str
    misfortune: str
    is_killed: bool = False
    state: str = ""
    summary: str = ""
    kept: list[Kept] = field(default_factory=list)
    is_whole: bool = False
    runs: int = 0
    parked: bool = False
    asked_again: int = 0
    seconds: float = 0.0

    def broken_promises(self) -> list[str]:
        """Return what must not be."""
        found = []
        if self.state != ExportState.DELIVERED:
            found.append(f"it ended {self.state or 'nowhere'}: {self.summary}")
        if len(self.kept) != 1:
            found.append(f"the server keeps {len(self.kept)} objects of it")
        elif not self.is_whole:
            found.append("the object at the server is not whole")
        if self.asked_again:
            found.append(f"{self.asked_again} requests came after it was confirmed")
        return found

    def line(self) -> str:
        """Return one line for people."""
        end = "parked, then settled by a person" if self.parked else f"{self.runs} runs"
        where = f"{self.destination} {self.position} {self.request}"
        return f"{where}: {self.misfortune}: {len(self.kept)} object, {end}, {self.seconds:.1f} s"


class Target:
    """One repository behind its proxy, as a destination of the workers."""

    def __init__(self, repository: Repository, server: Server, proxy: FaultProxy) -> None:
        self.repository, self.server, self.faults = repository, server, proxy.faults
        self.name = repository.name
        kind = "webhook" if self.name.startswith("webhook") else self.name
        self.table = {"type": kind, **repository.options(proxy.url), "timeout": TIMEOUT, "requests_per_second": 500.0}


class Cases:
    """Workers, repositories and sessions for cases; a delivery has a process of its own, which remembers nothing."""

    def __init__(self, lab: Lab, targets: Mapping[str, Target], client: Client, *, workers: int) -> None:
        self._lab, self.targets, self._client, self._size = lab, targets, client, workers
        self._sessions = Sessions(lab.folder / "sessions")
        self._fleet: list[Worker] = []
        self._requests: dict[str, list[str]] = {}

    def requests(self, name: str) -> list[str]:
        """Return the requests of a delivery that nothing hurts, as method and path."""
        if name not in self._requests:
            target = self.targets[name]
            case = self._settled(target, Case(name, 0, "", "nothing"), self._submit(target))
            assert not case.broken_promises(), case
            self._requests[name] = [f"{one.method} {one.target.partition('?')[0]}" for one in target.faults.seen]
        return self._requests[name]

    def play(self, name: str, position: int, misfortune: str) -> Case:
        """Let a misfortune befall one request, counted from 1, and wait until the session is settled."""
        target, plays = self.targets[name], MISFORTUNES[misfortune]
        case = Case(name, position, self.requests(name)[position - 1], misfortune, is_killed=plays.kills)
        self._muster()
        target.faults.clear()
        target.faults.plan(replace(plays.fault, nth=position))
        context = self._submit(target)
        if plays.kills:
            wait_until(lambda: target.faults.held, SETTLE_BOUND, f"{case.request} of {name}")
            worker = self._worker_of(context)
            if plays.answers_first:
                target.faults.release()
                while target.faults.held:  # at once: the receipt is written soon
                    time.sleep(0.0005)
            worker.kill()
            self._fleet.remove(worker)
            wait_until(lambda: not target.faults.held, what="the end of the killed worker's connection")
            target.faults.release()
        return self._settled(target, case, context)

    def _muster(self) -> None:
        """Have workers ready: a killed one is followed at once, and by the time of the next case there are enough."""
        while len(self._fleet) < self._size:
            self._fleet.append(self._lab.start_worker("prefork", _CHILDREN, "--max-tasks-per-child=1"))

    def _submit(self, target: Target) -> ExportContext:
        self._muster()
        context = self._sessions.make()
        self._client.submit(context, destinations=[target.name])
        return context

    def _worker_of(self, context: ExportContext) -> Worker:
        """Return the worker one of whose processes claimed the session last."""
        claims = [entry.worker for entry in self._client.trail(context.export_id) if entry.event == "claimed"]
        pid = int(claims[-1].rpartition("-")[2])
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return next(worker for worker in self._fleet if worker.pid in (pid, parent))

    def _settled(self, target: Target, case: Case, context: ExportContext) -> Case:
        began = time.monotonic()
        status = self._final(context)
        case.parked = status.state is ExportState.UNKNOWN
        if case.parked:  # as a person does: look whether it is there
            there = "delivered" if target.server.kept(context) else "missing"
            self._client.replay(context.export_id, assume=there)
            status = self._final(context)
        case.seconds = time.monotonic() - began
        case.state, case.summary, case.runs = str(status.state), status.summary, status.runs
        case.kept = list(target.server.kept(context))
        case.is_whole = [one.record for one in case.kept] == [context.xml_file_path.read_bytes()]
        confirmed = self._confirmed_at(context)
        case.asked_again = sum(one.at > confirmed for one in target.faults.seen)
        return case

    def _final(self, context: ExportContext) -> ExportStatus:
        def final() -> ExportStatus | None:
            status = self._client.status(context.export_id)
            return status if status.state.is_final else None

        found: ExportStatus = wait_until(final, SETTLE_BOUND, f"the end of {context.session_identifier}")
        return found

    def _confirmed_at(self, context: ExportContext) -> float:
        ends = [
            e.at.timestamp() for e in self._client.trail(context.export_id) if e.event in ("delivered", "adopted")
        ]
        return min(ends, default=float("inf"))


@contextmanager
def cases(folder: Path, repositories: Sequence[Repository], *, workers: int = 2) -> Iterator[Cases]:
    """Serve repositories and an installation that delivers to them, with leases and back-offs scaled down."""
    with ExitStack() as stack:
        lab = stack.enter_context(laboratory(folder))
        lab.environment |= {"LABRELAY_BREAKER__OPEN_SECONDS": "0.5", "LABRELAY_BREAKER__LONGEST_OPEN_SECONDS": "1"}
        targets = {}
        for repository in repositories:
            server = stack.enter_context(repository.serving())
            targets[repository.name] = Target(repository, server, stack.enter_context(FaultProxy(server.url)))
        lab.destinations |= {name: target.table for name, target in targets.items()}
        lab.write_settings()
        yield Cases(lab, targets, stack.enter_context(lab.client()), workers=workers)
