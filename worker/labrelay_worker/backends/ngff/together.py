"""Do the parts of one piece of work at the same time, in a few threads that all callers of a process share.

For work that lets other threads run meanwhile, as decoding does. The caller works, too, so a plane is never waited
for longer than its own thread would have taken.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

#: More processors than this do not decode a plane sooner: its pixels come through the same memory.
_MOST = 4

Step = Callable[[], None]


def together(steps: Sequence[Step]) -> None:
    """Run every step, in any order. Raises what a step raised; others may have run or not by then."""
    waiting = deque(steps)

    def work() -> None:
        while waiting:
            try:
                step = waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            step()

    count = min(len(waiting), _processors()) - 1
    helpers = [_pool().submit(work) for _ in range(count)]
    try:
        work()
    finally:
        waiting.clear()
        # A helper that other callers kept busy has nothing left to do here.
        started = [helper for helper in helpers if not helper.cancel()]
        for helper in started:
            helper.result()


@lru_cache
def _processors() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MOST)


@lru_cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_processors() - 1, "labrelay-decode")


# A forked process has none of its parent's threads.
os.register_at_fork(after_in_child=_pool.cache_clear)
