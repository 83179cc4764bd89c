"""Enqueue contexts with one queue's client, in a process of its own, and say what it took.

Run in the peer's environment: ``python -m benchmarks.queue.produce PEER bulk|single|latency|urgent --count N``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

from benchmarks.queue import without
from benchmarks.queue.workload import RECEIVER, document


def latencies(single: Callable[[list[dict[str, Any]]], None], documents: list[dict[str, Any]]) -> list[float]:
    """Return seconds from each single enqueue to its last delivery, one at a time."""
    found = []
    for context in documents:
        began = time.monotonic()
        single([context])
        with urllib.request.urlopen(f"{RECEIVER}/done/{context['session_identifier']}", timeout=60) as answer:
            found.append(json.load(answer)["last"] - began)
    return found


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer")
    parser.add_argument("mode", choices=["bulk", "single", "latency", "urgent"])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, required=True)
    options = parser.parse_args()
    without.apply()
    peer = importlib.import_module(f"benchmarks.queue.peers.{options.peer}")
    documents = [document(options.first + number) for number in range(options.count)]
    with peer.producer() as producer:
        producer.single([document(-options.first - 1)])  # connections are made outside the figures
        cpu, began = time.process_time(), time.monotonic()
        each: list[float] = []
        if options.mode in ("latency", "urgent"):
            each = latencies(producer.urgent if options.mode == "urgent" else producer.single, documents)
        elif options.mode == "bulk":
            producer.bulk(documents)
        else:
            for context in documents:
                start = time.monotonic()
                producer.single([context])
                each.append(time.monotonic() - start)
        ended = time.monotonic()
        print(json.dumps({"began": began, "ended": ended, "cpu": time.process_time() - cpu, "each": each}))


if __name__ == "__main__":
    main()
