"""A viewer beside an export: it runs, and no strategy waits for it, counts it or fails because of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from labrelay.context import ExportContext
from labrelay.errors import DeliveryError, Held, OutcomeUnknown, Rejected, Unavailable
from labrelay.priorities import Priority
from labrelay.results import DeliveryState, DestinationInfo, ExportState, Receipt, utc_now
from labrelay_worker.inline import run_inline
from labrelay_worker.planning import Hold, onlookers


class Host:
    """A destination that does as it is told."""

    can_ask = True
    can_link = False

    def __init__(
        self, name: str, outcome: DeliveryError | None = None, *, lossy: bool = False, priority: int = 0
    ) -> None:
        self.info = DestinationInfo(name=name, type="x", priority=priority, lossy=lossy, waits_for=())
        self._outcome, self.calls = outcome, 0

    def held(self) -> Hold | None:
        return Hold(9e9, "paused", whole_destination=True) if isinstance(self._outcome, Held) else None

    @asynccontextmanager
    async def slot(self, priority: Priority) -> AsyncIterator[None]:
        yield

    async def export(self, context: ExportContext, *, attempt: int) -> Receipt:
        self.calls += 1
        if self._outcome is not None:
            raise self._outcome
        return Receipt(destination=self.info.name, at=utc_now())

    async def resolve_doubt(self, context: ExportContext, *, attempt: int) -> Receipt | None:
        return None


def run(make_context: Callable[..., ExportContext], strategy: str, *hosts: Host):
    return asyncio.run(run_inline(make_context(), {host.info.name: host for host in hosts}, strategy))


@pytest.mark.parametrize("strategy", ["all", "first_success", "best_effort"])
@pytest.mark.parametrize(
    "outcome", [None, Rejected("nothing was shown"), Unavailable("away"), OutcomeUnknown("silent"), Held("paused")]
)
def test_whatever_a_viewer_does_the_export_ends_as_without_it(make_context, strategy, outcome) -> None:
    # Given an archive and a viewer of higher priority
    viewer = Host("screen", outcome, lossy=True, priority=90)
    archive = Host("archive")
    # When the export runs
    job, verdict = run(make_context, strategy, viewer, archive)
    # Then the archive alone decides, and the viewer's delivery is settled after one try at most
    assert (verdict.state, str(verdict)) == (ExportState.DELIVERED, "1 of 1 delivered")
    assert archive.calls == 1
    assert viewer.calls == (0 if isinstance(outcome, Held) else 1)
    expected = DeliveryState.DELIVERED if outcome is None else DeliveryState.SKIPPED
    assert job.deliveries["screen"].state is expected
    assert outcome is None or job.deliveries["screen"].reason


@pytest.mark.parametrize("strategy", ["all", "first_success", "best_effort"])
def test_a_viewer_that_saw_everything_does_not_make_a_failed_archive_a_success(make_context, strategy) -> None:
    job, verdict = run(
        make_context, strategy, Host("screen", lossy=True, priority=90), Host("archive", Rejected("no"))
    )
    assert (verdict.state, str(verdict)) == (ExportState.DEAD, "0 of 1 delivered")
    assert job.deliveries["screen"].state is DeliveryState.DELIVERED


@pytest.mark.parametrize(("outcome", "state"), [(None, ExportState.DELIVERED), (Rejected("x"), ExportState.DEAD)])
def test_an_export_of_viewers_alone_counts_them(make_context, outcome, state) -> None:
    _, verdict = run(make_context, "all", Host("screen", outcome, lossy=True))
    assert verdict.state is state


def test_onlookers_are_the_viewers_beside_something_else() -> None:
    keeps, shows = DestinationInfo(name="a", type="x"), DestinationInfo(name="b", type="x", lossy=True)
    assert onlookers([keeps, shows]) == {"b"}
    assert onlookers([shows]) == onlookers([keeps]) == frozenset()
