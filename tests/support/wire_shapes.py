"""What one release writes into Redis, recorded: `python tests/support/wire_shapes.py tests/wire/RELEASE`.

An export that waits with its wake-up, one that a worker left half done, and one that needs a person.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import redis

FOLDER = "{FOLDER}"
_SCHEMA = Path(__file__).resolve().parents[2] / "producer" / "labrelay" / "schema" / "export_context.json"
_KEYS = ("export:", "trail:", "state:", "due", "sessions", "labrelay.exports")


def record(client: redis.Redis, folder: Path) -> dict[str, Any]:
    """Return every key of the ledger and the wake-ups, with the folder of the session's files taken out."""
    shapes: dict[str, Any] = {}
    for key in sorted(client.scan_iter("labrelay:*")):
        if key.removeprefix("labrelay:").startswith(_KEYS):
            kind = client.type(key)
            value = {
                "hash": lambda key=key: client.hgetall(key),
                "list": lambda key=key: client.lrange(key, 0, -1),
                "zset": lambda key=key: client.zrange(key, 0, -1, withscores=True),
            }[kind]()
            shapes[key] = {"type": kind, "value": value}
    return json.loads(json.dumps(shapes).replace(str(folder), FOLDER))


def replay(client: redis.Redis, shapes: dict[str, Any], folder: Path) -> None:
    """Write recorded keys into a Redis."""
    for key, shape in json.loads(json.dumps(shapes).replace(FOLDER, str(folder))).items():
        if shape["type"] == "hash":
            client.hset(key, mapping=shape["value"])
        elif shape["type"] == "list":
            client.rpush(key, *shape["value"])
        else:
            client.zadd(key, dict(shape["value"]))


def _main(target: Path) -> None:
    from lab import laboratory, wait_until

    with tempfile.TemporaryDirectory() as place, laboratory(Path(place)) as lab:
        folder = lab.folder
        refuse = folder / "refuse"
        lab.recorder("archive", find_in_log=True)
        lab.recorder("portal", hold_while=lab.held, refuse_while=refuse, find_in_log=True)
        with lab.client() as client:
            # Dead, with a receipt; then killed between intent and receipt; then waiting with its wake-up.
            refuse.touch()
            worker = lab.start_worker()
            client.wait(client.submit(lab.session(1)).export_id, 60)
            refuse.unlink()
            worker.send(15)
            worker.wait()
            lab.held.touch()
            worker = lab.start_worker()
            half = client.submit(lab.session(3)).export_id
            wait_until(lambda: lab.events(event="export", name="portal", id=half), what="the call that is cut off")
            wait_until(lambda: "delivered" in repr(client.trail(half)), what="the receipt of the other destination")
            worker.kill()
            lab.held.unlink()
            client.submit(lab.session(2))
        connection = redis.Redis.from_url(lab.environment["LABRELAY_REDIS_URL"], decode_responses=True)
        target.mkdir(parents=True, exist_ok=True)
        (target / "keys.json").write_text(json.dumps(record(connection, folder), indent=1) + "\n")
        shutil.copy(_SCHEMA, target / "export_context.json")


if __name__ == "__main__":
    _main(Path(sys.argv[1]).absolute())
