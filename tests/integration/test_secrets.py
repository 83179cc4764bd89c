"""Planted secrets appear nowhere they could be read: not in Redis, logs, trails, errors or Flower's task."""

from __future__ import annotations

import subprocess
import sys

import pytest

from labrelay.results import ExportState
from labrelay_worker.demo.receiver import Answer, Receiver

pytestmark = pytest.mark.integration

TOKEN = "tok-5ecret-value-0123456789"
HEADER = "hdr-5ecret-value-0123456789"
IN_URL = "sig-5ecret-value-0123456789"
SECRETS = (TOKEN, HEADER, IN_URL)


def everything_in_redis(client) -> str:
    """Return every key and value of the server as text."""
    found = []
    for key in client.keys("*"):
        kind = client.type(key)
        value = {
            "string": client.get,
            "hash": client.hgetall,
            "list": lambda k: client.lrange(k, 0, -1),
            "zset": lambda k: client.zrange(k, 0, -1),
            "set": client.smembers,
        }[kind](key)
        found.append(f"{key} {value}")
    return "\n".join(found)


def test_planted_secrets_are_found_nowhere(lab):
    # Given a receiver with a token, a secret header and a signed URL, which repeats the request in its errors
    with Receiver() as receiver:
        echo = f"denied: Authorization: Bearer {TOKEN}; X-Key: {HEADER}; {receiver.url}/in?sig={IN_URL}"
        receiver.script("/in", [Answer(status=500, body=echo.encode()), Answer(drop=True, accept=False)])
        lab.destinations["hook"] = {"type": "webhook", "idempotent": True, "url": f"{receiver.url}/in?sig={IN_URL}"}
        lab.destinations["gone"] = {"type": "webhook", "url": f"http://user:{TOKEN}@127.0.0.1:1/?sig={IN_URL}"}
        lab.write_settings()
        worker = lab.start_worker(
            LABRELAY_DESTINATIONS__HOOK__TOKEN=TOKEN, LABRELAY_DESTINATIONS__HOOK__HEADERS=f'{{"X-Key": "{HEADER}"}}'
        )

        # When deliveries fail and succeed
        with lab.client() as client:
            export_id = client.submit(lab.session(), destinations=["hook"]).export_id
            dead = client.submit(lab.session(2), destinations=["gone"]).export_id
            assert client.wait(export_id, 60).state is ExportState.DELIVERED
            lab.wait_until(lambda: client.status(dead).deliveries and client.status(dead).deliveries[0].error_kind)
            client.cancel(dead)

            # Then no secret is in Redis, in the log, in what commands print, or in the settings listing
            places = {
                "redis": everything_in_redis(client.ledger._redis),
                "log": worker.output(),
                "status": client.status(export_id).model_dump_json() + client.status(dead).model_dump_json(),
            }
        for command in (["settings"], ["destinations", "--check"], ["trail", export_id], ["trail", dead], ["list"]):
            environment = lab.environment | {"LABRELAY_DESTINATIONS__HOOK__TOKEN": TOKEN}
            answer = subprocess.run(
                [sys.executable, "-m", "labrelay", *command],
                env=environment, cwd=lab.folder, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert answer.returncode == 0, answer.stderr
            places[" ".join(command)] = answer.stdout + answer.stderr
    for place, text in places.items():
        for secret in SECRETS:
            assert secret not in text, f"{secret} in {place}"
