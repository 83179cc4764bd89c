"""The plans: each hurts a world in one way, seeded and bounded, while exports are submitted and delivered."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from fault_world import CALL_TIMEOUT, CAN_BE_ASKED, PLUGINS, Figures, World, world

from labrelay.wakeups import Wake
from labrelay_worker.demo.receiver import Answer

EVERYWHERE = ("archive", *CAN_BE_ASKED)
Plan = Callable[[World, float], None]
PLANS: dict[str, Plan] = {}


def plan(function: Plan) -> Plan:
    """Register a plan under its name."""
    PLANS[function.__name__] = function
    return function


def run(name: str, seed: int, size: float = 1.0) -> Figures:
    """Run one plan and return its figures; `size` scales exports and faults."""
    with world(name, seed) as made:
        PLANS[name](made, size)
        return made.settle()


def _slow(w: World, count: int, delay: float = 0.3) -> None:
    """Let receivers answer late, which widens the window between accepting and confirming."""
    w.misbehave({name: [Answer(delay=w.random.uniform(0, delay)) for _ in range(count * 2)] for name in CAN_BE_ASKED})


@plan
def worker_killed(w: World, size: float) -> None:
    """SIGKILL whole workers at any moment."""
    count = int(60 * size)
    _slow(w, count)
    w.start_worker()
    w.start_worker()
    with w.submitting(count, 6 * size, EVERYWHERE):
        for _ in range(int(6 * size) or 1):
            time.sleep(w.random.uniform(0.1, 1))
            w.kill_worker(w.any_worker())


@plan
def child_killed(w: World, size: float) -> None:
    """SIGKILL children of a prefork pool at any moment."""
    count = int(60 * size)
    _slow(w, count)
    w.start_worker("prefork", 3)
    with w.submitting(count, 6 * size, EVERYWHERE):
        for _ in range(int(12 * size)):
            time.sleep(w.random.uniform(0.1, 0.6))
            w.kill_child()


@plan
def killed_while_the_remote_accepted(w: World, size: float) -> None:
    """SIGKILL in the moment between the remote's acceptance and its answer, at receivers that cannot be asked too."""
    count = int(20 * size)
    w.misbehave({name: [Answer(delay=1.0)] * count for name in (*CAN_BE_ASKED, "blind")})
    w.start_worker()
    with w.submitting(count, 1, (*EVERYWHERE, "blind")):
        for _ in range(int(3 * size) or 1):
            seen = len(w.inbox.arrivals)
            w.until(lambda seen=seen: len(w.inbox.arrivals) > seen, 30)
            w.kill_worker(w.any_worker())


@plan
def wake_ups_lost(w: World, size: float) -> None:
    """Delete the queue again and again."""
    w.start_worker()
    with w.submitting(int(80 * size), 4 * size, EVERYWHERE):
        for _ in range(int(20 * size)):
            w.client.ledger._redis.delete("labrelay:labrelay.exports")
            time.sleep(0.2)


@plan
def wake_ups_doubled(w: World, size: float) -> None:
    """Publish every id five times to two workers."""
    w.start_worker()
    w.start_worker()
    with w.submitting(int(60 * size), 3 * size, EVERYWHERE):
        for _ in range(4):
            time.sleep(0.7 * size)
            w.client._link.wake_ups.publish([Wake(i, "s", "i", "all") for i in w.ids], again=True)


@plan
def redis_killed(w: World, size: float) -> None:
    """SIGKILL Redis and start it again with its append-only file."""
    _slow(w, int(60 * size))
    w.start_worker()
    w.start_worker("prefork", 2)
    with w.submitting(int(60 * size), 6 * size, EVERYWHERE):
        for _ in range(int(3 * size) or 1):
            time.sleep(w.random.uniform(0.5, 1.5))
            # everysec may lose a second of what was confirmed if the machine dies; a killed process loses nothing
            w.kill_redis(away=w.random.uniform(0.2, 1.5))


@plan
def redis_frozen(w: World, size: float) -> None:
    """SIGSTOP Redis: connections stay, nothing answers."""
    _slow(w, int(40 * size))
    w.start_worker()
    w.start_worker()
    with w.submitting(int(40 * size), 4 * size, EVERYWHERE):
        time.sleep(1)
        w.freeze_redis(20 * size)


@plan
def redis_full(w: World, size: float) -> None:
    """Let Redis refuse writes while exports are delivered."""
    _slow(w, int(40 * size))
    w.start_worker()
    with w.submitting(int(40 * size), 4 * size, EVERYWHERE):
        time.sleep(1)
        w.fill_redis(5 * size)


@plan
def connections_dropped(w: World, size: float) -> None:
    """Close every connection to Redis, as a failover does."""
    _slow(w, int(60 * size))
    w.start_worker()
    w.start_worker()
    with w.submitting(int(60 * size), 5 * size, EVERYWHERE):
        for _ in range(int(10 * size)):
            time.sleep(w.random.uniform(0.1, 0.8))
            w.drop_connections()


@plan
def network_misbehaves(w: World, size: float) -> None:
    """Resets, hangs, half answers, late acceptance, 429, 503, 500."""
    count = int(40 * size)
    kinds = [
        Answer(drop=True),
        Answer(drop=True, accept=False),
        Answer(delay=CALL_TIMEOUT + 1),
        Answer(headers={"Content-Length": "5000", "Connection": "close"}),
        Answer(status=429, headers={"Retry-After": "1"}),
        Answer(status=503),
        Answer(status=500),
        Answer(status=500, accept=True),
        Answer(),
        Answer(),
    ]
    w.misbehave({name: [w.random.choice(kinds) for _ in range(count * 2)] for name in CAN_BE_ASKED})
    w.start_worker()
    with w.submitting(count, 4 * size, EVERYWHERE):
        pass


@plan
def worker_frozen(w: World, size: float) -> None:
    """SIGSTOP a worker for longer than its lease, then let it go on: its late writes are fenced off."""
    _slow(w, int(40 * size))
    w.start_worker()
    w.start_worker()
    with w.submitting(int(40 * size), 8 * size, EVERYWHERE):
        for _ in range(int(2 * size) or 1):
            time.sleep(0.5)
            w.freeze_worker(4.5)


@plan
def clock_wrong(w: World, size: float) -> None:
    """One of two workers has a clock that is an hour ahead; workers are killed too."""
    _slow(w, int(40 * size))
    w.start_worker(PYTHONPATH=str(PLUGINS / "skewed"))
    w.start_worker()
    with w.submitting(int(40 * size), 4 * size, EVERYWHERE):
        time.sleep(1)
        w.kill_worker(w.any_worker())


@plan
def shut_down(w: World, size: float) -> None:
    """Every way to stop a worker, under load, one worker after the other."""
    _slow(w, int(60 * size), delay=0.6)
    for _ in range(3):
        w.start_worker()
    ways = [
        (signal.SIGTERM, False), (signal.SIGINT, False), (signal.SIGQUIT, False), (signal.SIGTERM, True),
    ]  # fmt: skip
    with w.submitting(int(60 * size), 8 * size, EVERYWHERE):
        for number, group in ways[: int(len(ways) * size) or 2]:
            w.kill_worker(w.any_worker(), number, group=group)
