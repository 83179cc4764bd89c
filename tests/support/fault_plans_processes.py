"""Plans that hurt labrelay's own processes: workers and producers killed, frozen, stopped, with a wrong clock."""

from __future__ import annotations

import signal
import time
from collections import Counter

from fault_plan import EVERYWHERE, THREADS, plan, slow, under_load
from fault_world import CAN_BE_ASKED, PLUGINS, World

from labrelay_worker.demo.receiver import Answer


@plan
def worker_killed(w: World, size: float) -> None:
    """SIGKILL whole workers at any moment."""
    count = int(60 * size)
    with under_load(w, count, 6 * size, THREADS, THREADS):
        for _ in range(int(6 * size) or 1):
            time.sleep(w.random.uniform(0.1, 1))
            w.kill_worker(w.any_worker())


@plan
def child_killed(w: World, size: float) -> None:
    """SIGKILL children of a prefork pool at any moment."""
    count = int(60 * size)
    with under_load(w, count, 6 * size, ("prefork", 3)):
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
            w.until(lambda seen=seen: len(w.inbox.arrivals) > seen, 60, "a request")
            w.kill_worker(w.any_worker())


@plan
def killed_at_every_step(w: World, size: float) -> None:
    """SIGKILL children and whole workers right after a step: popped, claimed, intent, accepted, receipt, settled."""
    lots = w.folder / "kills"
    lots.mkdir()
    for number in range(int(30 * size)):
        (lots / f"lot-{number}").touch()
    doomed = {
        "PYTHONPATH": str(PLUGINS / "killing"),
        "LABRELAY_TEST_KILLS": str(lots),
        "LABRELAY_TEST_SEED": str(w.figures.seed),
    }
    w.start_worker("prefork", 3, **doomed)
    w.start_worker(**doomed)
    with w.submitting(int(60 * size), 6 * size, EVERYWHERE):
        until = time.monotonic() + 6 * size
        while time.monotonic() < until:
            w.revive()
            time.sleep(0.1)
    used = Counter(path.name.rpartition("-")[2] for path in lots.glob("used-*"))
    for lot in lots.glob("lot-*"):
        lot.unlink(missing_ok=True)
    w.revive()
    w.figures.notes.append("killed after " + ", ".join(f"{step} {count}" for step, count in sorted(used.items())))


@plan
def producers_killed(w: World, size: float) -> None:
    """SIGKILL producers while they submit and Redis while they do: whatever they said was accepted counts."""
    w.start_worker()
    chunks = int(3 * size) or 1
    for chunk in range(chunks):
        contexts = [w.context(1000 * chunk + number) for number in range(int(200 * size))]
        file = w.folder / f"contexts-{chunk}.jsonl"
        file.write_text("\n".join(context.to_json() for context in contexts))
        w.produce_and_kill(file, EVERYWHERE, after=w.random.uniform(0.02, 0.2))
        with w.without_redis():
            w.produce_and_kill(file, EVERYWHERE, after=w.random.uniform(0.02, 0.5))
    w.flush()
    w.figures.notes.append(
        "killed producers had heard " + ", ".join(f"{count} {what}" for what, count in w.outcomes.items())
    )


@plan
def worker_frozen(w: World, size: float) -> None:
    """SIGSTOP a worker for longer than its lease, then let it go on: its late writes are fenced off."""
    with under_load(w, int(40 * size), 8 * size, THREADS, THREADS):
        for _ in range(int(2 * size) or 1):
            time.sleep(0.5)
            w.freeze_worker(4.5)


@plan
def clock_wrong(w: World, size: float) -> None:
    """One worker's clock is an hour ahead, another's an hour behind; workers are killed too."""
    slow(w, int(40 * size))
    for seconds in (3600, -3600):
        w.start_worker(PYTHONPATH=str(PLUGINS / "skewed"), TEST_CLOCK_SKEW=str(seconds))
    w.start_worker()
    with w.submitting(int(40 * size), 4 * size, EVERYWHERE):
        time.sleep(1)
        w.kill_worker(w.any_worker())


@plan
def shut_down(w: World, size: float) -> None:
    """Every way to stop a worker, under load and during long calls, one worker after the other."""
    slow(w, int(60 * size), delay=1.5)
    w.start_worker()
    w.start_worker(LABRELAY_DRAIN_SECONDS="0.3")  # its calls are cut off
    w.start_worker("prefork", 2)
    ways = [
        (signal.SIGTERM, False), (signal.SIGINT, False), (signal.SIGQUIT, False), (signal.SIGTERM, True),
    ]  # fmt: skip
    with w.submitting(int(60 * size), 8 * size, EVERYWHERE):
        for number, group in w.random.sample(ways, int(len(ways) * size) or 1):
            w.kill_worker(w.any_worker(), number, group=group)
        w.kill_worker(w.any_worker(), signal.SIGTERM, again_after=0.3)


@plan
def rolling_restart(w: World, size: float) -> None:
    """Restart three workers under load, one after the other, on two pools."""
    slow(w, int(60 * size), delay=0.6)
    fleet = [w.start_worker(), w.start_worker(), w.start_worker("prefork", 2)]
    with w.submitting(int(60 * size), 8 * size, EVERYWHERE):
        for pid in fleet:
            w.kill_worker(pid, signal.SIGTERM)
