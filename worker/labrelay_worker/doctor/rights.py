"""Checks that this user of Redis may do what a worker needs beyond what a producer does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from labrelay.doctor.examining import Patient
from labrelay.doctor.findings import Finding
from labrelay.doctor.redis_rights import find_missing
from labrelay_worker.settings import WorkerSettings

#: As in `labrelay.doctor.redis_rights`: wrong on purpose where a right call would leave something behind.
WORKER_NEEDS: Mapping[str, Sequence[str]] = {
    "HDEL": ("{}", "nothing"),
    "HSET": ("{}", "probe", "1"),
    "DEL": ("{}-nothing",),
    "GET": ("{}",),
    "SET": ("{}", "probe", "no option"),
    "PEXPIRE": ("{}", "no number"),
    "HSETNX": ("{}", "probe", "1"),
    "LLEN": ("{}",),
    "INCRBY": ("{}", "1"),
    "DECR": ("{}",),
    "ZCOUNT": ("{}", "0", "1"),
    "ZSCORE": ("{}", "probe"),
    "ZPOPMIN": ("{}",),
    "ZREMRANGEBYSCORE": ("{}", "0", "1"),
    "ZREVRANGEBYSCORE": ("{}", "1", "0"),
}


def check(patient: Patient) -> Iterator[Finding]:
    """Try what a worker needs."""
    if isinstance(patient.settings, WorkerSettings):
        yield from find_missing(patient.settings, WORKER_NEEDS, "run a worker")
