"""One address, spelled for redis-py, kombu and Sentinel."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from labrelay.errors import InvalidInput
from labrelay.redis_address import RedisAddress
from labrelay.replicas import require_replicas
from labrelay.settings import ProducerSettings, load_settings

_TRIO = "sentinel://worker:p%40ss@a:26379,b:26380,c/2?master=labrelay"


@pytest.mark.parametrize(
    ("redis_url", "expected"),
    [
        ("redis://:pw@host:6379/1", "redis://:pw@host:6379/1"),
        ("rediss://host/0?ssl_ca_certs=/ca.pem", "rediss://host/0"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock"),
        ("unix:///with%20blank/r.sock?db=1", "redis+socket:///with blank/r.sock?db=1"),
    ],
)
def test_an_address_is_spelled_as_celery_wants_it(redis_url: str, expected: str) -> None:
    # Given an address for redis-py, when Celery uses it, then it is the same server
    assert RedisAddress(redis_url).broker()["broker_url"] == expected


def test_a_server_with_tls_is_checked_against_its_certificate_unless_told_otherwise() -> None:
    assert RedisAddress("rediss://host/0").broker()["broker_use_ssl"] == {"ssl_cert_reqs": "required"}
    lax = RedisAddress("rediss://host/0?ssl_ca_certs=/ca.pem&ssl_check_hostname=false&ssl_cert_reqs=none")
    assert lax.broker()["broker_use_ssl"] == {
        "ssl_cert_reqs": "none",
        "ssl_ca_certs": "/ca.pem",
        "ssl_check_hostname": False,
    }


def test_every_sentinel_carries_the_password_because_kombu_moves_on_with_its_address_alone() -> None:
    # Given three sentinels, when Celery is told of them
    settings = RedisAddress(_TRIO).broker()

    # Then each is an address of its own, with login and database, and the master has its name
    assert settings["broker_url"].split(";") == [
        "sentinel://worker:p%40ss@a:26379/2",
        "sentinel://worker:p%40ss@b:26380/2",
        "sentinel://worker:p%40ss@c:26379/2",
    ]
    assert settings["broker_transport_options"] == {"master_name": "labrelay", "sentinel_kwargs": {}}
    assert "broker_use_ssl" not in settings


def test_sentinels_may_ask_for_a_password_of_their_own_and_for_tls() -> None:
    # Given sentinels with a password, and certificates
    address = RedisAddress(f"{_TRIO}&sentinel_password=other&ssl_ca_certs=/ca.pem")

    # When Celery is told of them, then both reach the sentinels and the servers
    settings = address.broker()
    tls = {"ssl_cert_reqs": "required", "ssl_ca_certs": "/ca.pem"}
    assert settings["broker_transport_options"]["sentinel_kwargs"] == {"password": "other", "ssl": True, **tls}
    assert settings["broker_use_ssl"] == tls


@pytest.mark.parametrize(
    ("redis_url", "said"),
    [
        ("http://host", "must begin with redis://"),
        ("redis-cluster://host", "Redis Cluster"),
        ("sentinel://a,b/0", "no master"),
        ("sentinel:///0?master=m", "no sentinel"),
        ("sentinel://a:x/0?master=m", "no number"),
        ("sentinel://a/0?master=m&mastre=n", "unknown option 'mastre'"),
    ],
)
def test_what_is_no_address_is_refused_with_what_it_must_look_like(
    redis_url: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABRELAY_REDIS_URL", redis_url)
    with pytest.raises(InvalidInput, match=said):
        load_settings(ProducerSettings)


@pytest.mark.parametrize(
    ("redis_url", "is_local"),
    [
        ("redis://localhost/0", True),
        ("redis://u:p@127.0.0.1:6379/0", True),
        ("unix:///run/redis.sock", True),
        ("redis://redis.example.org/0", False),
        ("sentinel://127.0.0.1/0?master=m", False),
    ],
)
def test_only_a_server_that_cannot_be_elsewhere_is_local(redis_url: str, is_local: bool) -> None:
    assert RedisAddress(redis_url).is_local is is_local


def test_behind_sentinel_a_replica_must_hold_a_write_unless_told_otherwise() -> None:
    assert ProducerSettings(redis_url="redis://host/0").required_replicas == 0
    assert ProducerSettings(redis_url=_TRIO).required_replicas == 1
    assert ProducerSettings(redis_url=_TRIO, redis_replicas=0).required_replicas == 0


def test_a_write_that_too_few_replicas_hold_counts_as_a_lost_answer() -> None:
    require_replicas(2, 1)
    with pytest.raises(RedisConnectionError, match="only 0 of 1 replicas"):
        require_replicas(0, 1)


def test_an_address_keeps_its_password_out_of_its_repr() -> None:
    assert "p%40ss" not in repr(RedisAddress(_TRIO))
