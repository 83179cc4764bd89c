"""Plans that hurt what labrelay stands on: wake-ups, Redis, the network, disks and files."""

from __future__ import annotations

import time
from pathlib import Path

from disks import fill
from fault_plan import EVERYWHERE, PREFORK, THREADS, plan, under_load
from fault_world import CALL_TIMEOUT, CAN_BE_ASKED, World
from old_release import name_exports

from labrelay_worker.demo.receiver import Answer


@plan
def wake_ups_lost(w: World, size: float) -> None:
    """Flush the queues with a backlog in them, then steal messages from under a waiting worker."""
    count, redis = int(40 * size), w.client.ledger._redis
    with w.submitting(count, 0.1, EVERYWHERE):
        pass
    lost = sum(map(redis.llen, w.queues))
    redis.delete(*w.queues)
    w.start_worker()
    with w.submitting(count, 4 * size, EVERYWHERE, first=count):
        until = time.monotonic() + 4 * size
        while time.monotonic() < until:
            # Redis serves who waits longest: the worker and the thief take turns.
            lost += redis.brpop(w.queues, timeout=0.2) is not None
    w.figures.notes.append(f"{lost} messages lost")


@plan
def wake_ups_doubled(w: World, size: float) -> None:
    """Publish every id five times: as a backlog that two workers find, and again while they work."""
    count = int(40 * size)

    def ring_again() -> None:
        w.client._link.wake_ups.ring(5, [])
        name_exports(w.client, w.ids)

    with w.submitting(count, 0.1, EVERYWHERE):
        pass
    for _ in range(4):
        ring_again()
    w.start_worker()
    w.start_worker()
    with w.submitting(count, 3 * size, EVERYWHERE, first=count):
        for _ in range(4):
            time.sleep(0.7 * size)
            ring_again()


@plan
def redis_killed(w: World, size: float) -> None:
    """SIGKILL Redis and start it again with its append-only file."""
    with under_load(w, int(60 * size), 6 * size, THREADS, PREFORK):
        for _ in range(int(3 * size) or 1):
            time.sleep(w.random.uniform(0.5, 1.5))
            w.kill_redis(away=w.random.uniform(0.2, 1.5))


@plan
def redis_frozen(w: World, size: float) -> None:
    """SIGSTOP Redis: connections stay, nothing answers."""
    with under_load(w, int(40 * size), 4 * size, THREADS, THREADS):
        time.sleep(1)
        w.freeze_redis(20 * size)


@plan
def redis_full(w: World, size: float) -> None:
    """Let Redis refuse writes while exports are delivered."""
    with under_load(w, int(40 * size), 4 * size, THREADS):
        time.sleep(1)
        w.fill_redis(5 * size)


@plan
def redis_disk_full(w: World, size: float) -> None:
    """Let Redis find no room for its append-only file: it refuses writes until there is."""
    folder = w.redis_on_small_disk("16m")
    filler = folder / "filler"
    with under_load(w, int(40 * size), 4 * size, THREADS, PREFORK):
        time.sleep(1)
        fill(filler)
        time.sleep(5 * size)
        filler.unlink()


@plan
def connections_dropped(w: World, size: float) -> None:
    """Close every connection to Redis, as a failover does."""
    with under_load(w, int(60 * size), 5 * size, THREADS, THREADS):
        for _ in range(int(10 * size)):
            time.sleep(w.random.uniform(0.1, 0.8))
            w.drop_connections()


@plan
def redis_failed_over(w: World, size: float) -> None:
    """Make the replica the primary, again and again: the old one refuses writes, connections break and lead there."""
    pair = w.replicate_redis()
    with under_load(w, int(60 * size), 6 * size, THREADS, PREFORK):
        for _ in range(int(3 * size) or 1):
            time.sleep(w.random.uniform(0.5, 1.5))
            pair.fail_over(lingering=w.random.uniform(0, 1))


@plan
def network_misbehaves(w: World, size: float) -> None:
    """Resets, hangs, half answers, late acceptance, 429, bursts of 503, 500."""
    count = int(40 * size)
    kinds = [
        [Answer(drop=True)],
        [Answer(drop=True, accept=False)],
        [Answer(delay=CALL_TIMEOUT + 1)],
        [Answer(delay=CALL_TIMEOUT + 1, accept=False)],
        [Answer(headers={"Content-Length": "5000", "Connection": "close"})],
        [Answer(status=429, headers={"Retry-After": "1"})],
        [Answer(status=503)] * 5,
        [Answer(status=500)],
        [Answer(status=500, accept=True)],
        [Answer()] * 3,
    ]
    w.misbehave({name: [a for _ in range(count) for a in w.random.choice(kinds)] for name in CAN_BE_ASKED})
    w.start_worker()
    with w.submitting(count, 4 * size, EVERYWHERE):
        pass


@plan
def disk_full(w: World, size: float) -> None:
    """The archive's file system fills up while exports are delivered, and gets room again."""
    w.small_disk(w.disk_root, "2m")
    w.start_worker()
    filler = w.disk_root / "filler"
    with w.submitting(int(40 * size), 4 * size, EVERYWHERE):
        time.sleep(1)
        fill(filler)
        time.sleep(2)
    filler.unlink()


@plan
def disk_read_only(w: World, size: float) -> None:
    """The archive's file system is read-only for a while."""
    w.small_disk(w.disk_root, "2m")
    w.start_worker()
    with w.submitting(int(40 * size), 4 * size, EVERYWHERE):
        time.sleep(1)
        w.remount(w.disk_root, "ro")
        time.sleep(2)
    w.remount(w.disk_root, "rw")


@plan
def outbox_disk_full(w: World, size: float) -> None:
    """Redis is away and the outbox's file system fills up, then is read-only: what was taken counts."""
    folder, part = w.client.outbox.path.parent, int(20 * size)
    w.small_disk(folder, "512k")
    w.start_worker()
    numbers = iter(range(4 * part))
    with w.without_redis():

        def spool(count: int) -> list[int]:
            return [n for n, _ in zip(numbers, range(count), strict=False) if not w.spool(n, EVERYWHERE)]

        refused = spool(part)
        fill(folder / "filler")
        refused += spool(part)
        (folder / "filler").unlink()
        refused += spool(part)
        w.remount(folder, "ro")
        refused += spool(part)
        w.remount(folder, "rw")
    for number in refused:  # as its text says
        w.submit(number, EVERYWHERE)
    w.flush()
    w.figures.notes.append(f"{w.outcomes['spooled']} spooled, {w.outcomes['refused']} refused and submitted again")


@plan
def files_changed(w: World, size: float) -> None:
    """Between submit and delivery, records are changed, files change, and a share is away for a while."""
    count = int(30 * size)
    with w.submitting(count, 0.5, EVERYWHERE):
        pass
    for number in range(count):
        context = w.contexts[number]
        image = Path(context.activities[0].files[0])
        match number % 3:
            case 0:
                context.xml_file_path.write_text("<Experiment>another</Experiment>")
                w.spoilt.add(context.export_id)
            case 1:
                image.write_bytes(b"another")
                w.spoilt.add(context.export_id)
            case 2:
                image.rename(image.with_suffix(".away"))
    w.start_worker()
    time.sleep(2)
    for image in (w.folder / "data").rglob("*.away"):
        image.rename(image.with_suffix(".raw"))
