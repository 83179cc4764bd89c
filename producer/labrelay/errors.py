"""Every error labrelay raises, typed by what the caller must do about it.

The docstring of a class is its message when none is given, so no error is without an explanation.
"""

from __future__ import annotations

import inspect


class LabrelayError(Exception):
    """Something went wrong in labrelay."""

    #: What the command line exits with when this error ends it.
    exit_code = 1

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.cleandoc(type(self).__doc__ or type(self).__name__))


# --- raised to the person or pipeline that submits ---------------------------------------------------


class InvalidInput(LabrelayError):
    """The input is not usable.

    Parameters
    ----------
    field
        Dotted path of the offending field, option or file, e.g. ``activities[0].files[2]``.
    problem
        What is wrong with it.
    cure
        What to do, as an imperative sentence.
    """

    exit_code = 2

    def __init__(self, field: str, problem: str, cure: str) -> None:
        self.field, self.problem, self.cure = field, problem, cure
        super().__init__(f"{field}: {problem}. {cure}")


class StillBeingWritten(InvalidInput):
    """A file of the session changes while it is read: submit again when the instrument has finished."""


class ExportConflict(LabrelayError):
    """This session was submitted before with other content; pass replace=True to make a new revision."""

    exit_code = 6


class LedgerUnavailable(LabrelayError):
    """Redis cannot be reached; nothing was accepted. Start it (`labrelay up`) and submit again."""

    exit_code = 3

    def __init__(self, message: str | None = None, *, reason: str | None = None) -> None:
        super().__init__(message)
        #: What happened alone, for where the cure is another one.
        self.reason = reason or str(self)


class NotPermitted(LabrelayError):
    """This user of Redis may not do that; nothing was changed. Use the address of a user that may."""

    exit_code = 3


class OutboxUnavailable(LedgerUnavailable):
    """The outbox on disk cannot be used. What it was to keep is not accepted: submit it again."""


class OutboxFull(OutboxUnavailable):
    """The outbox on disk is full. Bring Redis back, flush it, and submit again what it could not keep."""


class NoSuchExport(LabrelayError):
    """There is no export with this id."""

    exit_code = 4


class WaitTimeout(LabrelayError):
    """The export is not finished yet; it goes on by itself. Look again with `labrelay status`."""

    exit_code = 5


# --- raised at boot, to the operator -------------------------------------------------------------------


class PluginError(LabrelayError):
    """A plugin cannot be used."""


class DuplicatePlugin(PluginError):
    """Two plugins claim one name; rename or remove one of them."""


class BootError(LabrelayError):
    """The worker cannot start; it takes no work until this is repaired."""


# --- raised by destinations, to the engine (DESIGN section 7) --------------------------------------------


class DeliveryError(LabrelayError):
    """A delivery did not succeed."""

    #: Stable word for trails, metrics and filters.
    kind = "error"


class Transient(DeliveryError):
    """The destination failed for now; the delivery is tried again with back-off.

    Parameters
    ----------
    message
        What happened.
    retry_after
        Seconds the destination asked to wait, if it said so.
    """

    kind = "transient"

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimited(Transient):
    """The destination asks to slow down; waiting for it costs no attempt."""

    kind = "rate_limited"


class Unavailable(Transient):
    """The whole destination is down; every delivery to it waits."""

    kind = "unavailable"


class Held(DeliveryError):
    """The destination takes nothing now; nothing was tried, and the delivery is as it was."""

    kind = "held"


class Misconfigured(DeliveryError):
    """The destination refuses because of its settings; a person must correct them."""

    kind = "misconfigured"


class Rejected(DeliveryError):
    """The destination refuses this record for good; sending it again cannot help."""

    kind = "rejected"


class Conflict(Rejected):
    """The destination already holds something else under this name."""

    kind = "conflict"


class OutcomeUnknown(DeliveryError):
    """The request was sent and the answer is lost; the record may or may not have arrived."""

    kind = "outcome_unknown"


class LeaseLost(LabrelayError):
    """Another worker owns this export now; this one stops without writing anything more."""
