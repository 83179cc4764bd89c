"""What a fault plan ends with: counts of what was submitted, delivered, lost, repeated and doubted."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

SETTLE_BOUND = 60.0
#: What must be none.
_PROMISED = ("lost", "twice", "asked_again", "unlisted", "unsettled_by_hand", "fallen")


@dataclass
class Figures:
    """One run of one plan."""

    plan: str
    seed: int
    submitted: int = 0
    delivered: int = 0
    lost: int = 0
    twice: int = 0
    asked_again: int = 0
    #: Requests that were handed to the network before the confirmation and arrived after it: by a worker that was
    #: frozen in between, and those a receiver was late to read, whose sender had given them up.
    asked_again_frozen: int = 0
    arrived_late: int = 0
    #: Refused with its reason because its files changed: that was the fault.
    refused: int = 0
    unknown: int = 0
    #: Of the unknown ones, those that `labrelay dead list` did not show, and those that replay did not settle.
    unlisted: int = 0
    unsettled_by_hand: int = 0
    #: Attempts that failed and were made again: the fault was felt.
    retried: int = 0
    #: Workers that ended although nobody killed or stopped them.
    fallen: int = 0
    recovery_seconds: float = 0.0
    unsettled: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Return the one line."""
        figures = [
            f"submitted {self.submitted}",
            f"delivered {self.delivered}",
            f"lost {self.lost}",
            f"delivered twice {self.twice}",
            f"asked again after confirming {self.asked_again}",
            f"by a frozen worker {self.asked_again_frozen}",
            f"arrived late {self.arrived_late}",
            f"refused {self.refused}",
            f"parked as unknown {self.unknown} (not listed {self.unlisted}, not settled {self.unsettled_by_hand})",
            f"attempts made again {self.retried}",
            f"workers fallen {self.fallen}",
            f"longest recovery {self.recovery_seconds:.1f} s",
            *self.notes,
        ]
        return f"{self.plan} seed={self.seed}: {', '.join(figures)}"

    def broken_promises(self) -> list[str]:
        """Return what must not be."""
        wrong = [f"{name} {getattr(self, name)}" for name in _PROMISED if getattr(self, name)]
        if self.unsettled:
            wrong.append(f"not settled {SETTLE_BOUND:g} s after the last fault: {self.unsettled}")
        return wrong

    def as_dict(self) -> dict[str, object]:
        """Return the figures for a report."""
        return asdict(self)
