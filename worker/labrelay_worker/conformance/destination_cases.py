"""What the destination suites share: how a destination is made, its server, and what is demanded again and again."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from labrelay.context import ExportContext
from labrelay.errors import DeliveryError, OutcomeUnknown, Transient
from labrelay.results import ExportResult, Receipt
from labrelay_worker.conformance.destination_bench import Bench, Server, demand
from labrelay_worker.conformance.destination_sessions import Sessions, nexus_record
from labrelay_worker.conformance.faults import Faults

_LINK = "https://records.example/data?id=7&part=1"


class DestinationCases(ABC):
    """A subclass defines `make` and the fixture `server`, and may override the rest."""

    #: Bytes of a record that are above the limit of what `make` returns; None: it has no limit of its own.
    too_large: ClassVar[int | None] = None

    @abstractmethod
    def make(self, url: str) -> Any:
        """Return a new destination that delivers to the server at this address."""

    @pytest.fixture
    def server(self) -> Iterator[Server]:
        """Yield a fresh server."""
        raise NotImplementedError("define the fixture `server`, which yields a `Server`")

    def record(self, title: str) -> bytes:
        """Return a record that the server takes."""
        return nexus_record(title)

    @property
    def dead_url(self) -> str:
        """An address where nothing answers."""
        return "http://127.0.0.1:9"

    @pytest.fixture
    def sessions(self, tmp_path: Path) -> Sessions:
        """Return a maker of sessions."""
        return Sessions(tmp_path / "sessions", self.record)

    @pytest.fixture
    def bench(self, server: Server) -> Bench | Iterator[Bench]:
        """Return what calls destinations at the server."""
        return Bench(self.make, server, Faults(), server.url)


def with_links(context: ExportContext, bench: Bench) -> ExportContext:
    """Return the context as it is once everything that the destination waits for has delivered."""
    results = {
        name: ExportResult(success=True, destination_name=name, record_id="7", record_url=_LINK)
        for name in bench.waits_for
    }
    return context.model_copy(update={"previous_results": results})


def demand_taken_up(bench: Bench, context: ExportContext, answer: Receipt | BaseException) -> None:
    """Demand that a delivery that was ended somewhere ends well, or is left to a person where nobody can be asked."""
    if isinstance(answer, DeliveryError):
        bench.require_no_secret(str(answer))
    elif not isinstance(answer, Receipt | asyncio.CancelledError):
        demand(False, f"a delivery that was ended raises {answer!r} instead of a DeliveryError")
    if isinstance(answer, Receipt):
        bench.require_one(context)
        return
    # Anything but a plain "not now" leaves the engine's intent open.
    settled = bench.settle(context, in_doubt=not isinstance(answer, Transient))
    if settled.is_parked:
        demand(not bench.can_ask, f"it is {settled}, though it can be asked")
        demand(len(bench.server.kept(context)) <= 1, "it was sent again though nobody knew whether it had arrived")
    else:
        bench.require_one(context)


def failure_of(bench: Bench, context: ExportContext) -> DeliveryError | None:
    """Return how sending fails, None if it does not."""
    try:
        bench.send(context)
    except DeliveryError as error:
        return error
    return None


def demand_answer_to_doubt(bench: Bench, context: ExportContext, expected: Receipt | None) -> None:
    """Demand what the engine relies on after a crash: an answer, leave to send again, or a refusal to guess."""
    try:
        found = bench.find(context)
    except OutcomeUnknown:
        demand(not bench.can_ask, "it declares `find` or `idempotent`, yet a doubt is not resolved")
        return
    demand(bench.can_ask, "it declares neither `find` nor `idempotent`, yet a doubt would be sent again")
    if not bench.can_find or expected is None:
        demand(found is None, f"`find` returns {found!r} of what was never sent")
    else:
        demand(found is not None, "`find` does not find what was sent")
        same = found is not None and found.record_id == expected.record_id
        demand(same, f"`find` returns {found!r} of what was sent as {expected.record_id}")


def demand_found(bench: Bench, context: ExportContext) -> None:
    """Demand that what was sent is found, if it can be asked for."""
    if bench.can_find:
        demand(bench.find(context) is not None, "`find` does not find what was sent")


def demand_link(bench: Bench, context: ExportContext) -> None:
    """Demand that people see the link of `with_links`."""
    text = bench.require_one(context).text.replace("&amp;", "&")
    demand(_LINK in text, f"the link {_LINK} is not in what the server shows: {text[:2000]!r}")
