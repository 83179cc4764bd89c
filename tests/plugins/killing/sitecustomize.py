"""Put on PYTHONPATH, it kills its own process right after a step of an export, each process at another one.

``LABRELAY_TEST_KILLS`` names a folder; as many processes die as it has files, each of which is renamed to what it
was used for. ``LABRELAY_TEST_SEED`` makes the choice of the steps repeatable.
"""

import functools
import inspect
import os
import random
from pathlib import Path

from kombu.transport.redis import QoS

from labrelay_worker.claimed import LedgerJob
from labrelay_worker.hosting import HostedDestination
from labrelay_worker.intake import Intake
from labrelay_worker.ledger import WorkerLedger

STEPS = {
    "popped": (QoS, "append"),  # the message is off the queue and nowhere else yet
    "received": (Intake, "wake"),  # the task has begun, nothing is written yet
    "claimed": (WorkerLedger, "take"),
    "intent": (LedgerJob, "write_intent"),
    "accepted": (HostedDestination, "export"),  # the remote has it, no receipt yet
    "receipt": (LedgerJob, "write_receipt"),  # on its way
    "written": (LedgerJob, "_write"),  # whatever it was
    "settled": (LedgerJob, "settle"),
}


@functools.cache
def _doom(pid: int) -> tuple[str, list[int]]:
    """Return at which step this process dies, and how often it may still pass it."""
    chance = random.Random(f"{os.environ['LABRELAY_TEST_SEED']}-{pid}")
    return chance.choice(list(STEPS)), [chance.randint(0, 4)]


def _passed(step: str) -> None:
    doomed, left = _doom(os.getpid())
    if step != doomed:
        return
    if left[0]:
        left[0] -= 1
        return
    for lot in Path(os.environ["LABRELAY_TEST_KILLS"]).glob("lot-*"):
        try:
            lot.rename(lot.with_name(f"used-{lot.name}-{step}"))
        except FileNotFoundError:
            continue  # another process was quicker
        os.kill(os.getpid(), 9)


def _dying_before(step, function):
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def dying(*arguments, **options):
            _passed(step)
            return await function(*arguments, **options)

    else:

        @functools.wraps(function)
        def dying(*arguments, **options):
            _passed(step)
            return function(*arguments, **options)

    return dying


def _dying_after(step, function):
    assert inspect.iscoroutinefunction(function), f"{step}: {function} is no coroutine any more"

    @functools.wraps(function)
    async def dying(*arguments, **options):
        result = await function(*arguments, **options)
        _passed(step)
        return result

    return dying


for _step, (_owner, _name) in STEPS.items():
    _dying = _dying_before if _step in ("popped", "received") else _dying_after
    setattr(_owner, _name, _dying(_step, getattr(_owner, _name)))
