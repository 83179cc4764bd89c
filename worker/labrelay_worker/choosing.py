"""Which hosts an export takes, and under which strategy: worked out once a second, not for every export."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from labrelay.plans import select
from labrelay.strategies import Strategy
from labrelay_worker.claimed import LedgerJob
from labrelay_worker.destinations.registry import ExporterRegistry
from labrelay_worker.engine import Host

#: Seconds for which a plugin's word counts that it is enabled: asking each for every export costs more than a send.
_FRESH = 1.0
_Question = tuple[str, str, tuple[str, ...]]


class Choices:
    """The hosts of exports, as settings and plugins have them now.

    Parameters
    ----------
    registry
        What this process serves.
    before
        Puts breakers and limits before hosts.
    default_strategy
        Where neither the submitter nor a route names one.
    """

    def __init__(
        self,
        registry: ExporterRegistry,
        before: Callable[[Mapping[str, Host]], dict[str, Host]],
        default_strategy: str,
    ) -> None:
        self._registry, self._before, self._default = registry, before, default_strategy
        self._routes = registry.routes
        self._chosen: dict[_Question, tuple[Strategy, dict[str, Host]]] = {}
        self._chosen_at = float("-inf")

    def hosts_of(self, job: LedgerJob) -> tuple[Strategy, dict[str, Host]]:
        """Return the strategy and the hosts of one export, highest priority first."""
        now = time.monotonic()
        if now - self._chosen_at >= _FRESH:
            self._chosen.clear()
            self._chosen_at = now
        question = (job.instrument, job.named_strategy, job.named)
        if question not in self._chosen:
            self._chosen[question] = self._choose(*question)
        return self._chosen[question]

    def _choose(self, instrument: str, strategy: str, named: tuple[str, ...]) -> tuple[Strategy, dict[str, Host]]:
        selection = select(instrument, strategy, named, self._registry.infos(), self._routes, self._default)
        return selection.strategy, self._before(self._registry.hosts(selection.names))
