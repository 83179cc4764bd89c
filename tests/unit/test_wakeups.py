"""Wake-ups: few messages, readable, without secrets, and settings that Celery's two ends agree on."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, current_app
from kombu.exceptions import OperationalError

from labrelay.names import QUEUE_EXPORTS, TASK_EXPORT
from labrelay.settings import ProducerSettings
from labrelay.wakeups import Wake, WakeUps, broker_settings, producer_app

SECRET = "hunter2-hunter2"


class Mailbox:
    """Publishes to Celery's transport in memory, and reads back what lies in the queue."""

    def __init__(self) -> None:
        self.app = Celery("test", broker="memory://", set_as_current=False)
        settings = broker_settings(ProducerSettings(redis_url="redis://host/0"))
        self.app.conf.update(settings | {"broker_url": "memory://", "broker_transport_options": {}})
        self.wake_ups = WakeUps(self.app)

    def messages(self) -> list[Any]:
        found = []
        with self.app.connection_for_read() as connection, connection.SimpleQueue(QUEUE_EXPORTS) as queue:
            while queue.qsize():
                message = queue.get_nowait()
                message.ack()
                found.append(message)
        return found


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    mailbox = Mailbox()
    mailbox.messages()  # the transport's queues belong to the process
    yield mailbox
    mailbox.messages()
    mailbox.wake_ups.close()


def wakes(count: int, **fields: str) -> list[Wake]:
    given = {"instrument": "FEI-Titan", "strategy": "all"} | fields
    return [Wake(f"id-{n}", **{"session": f"session-{n}"} | given) for n in range(count)]


def test_a_lone_wake_up_names_its_export_and_looks_for_others(mailbox: Mailbox) -> None:
    # When one export is woken
    mailbox.wake_ups.ring(1, wakes(1))
    # Then the message is the task with its id
    (message,) = mailbox.messages()
    assert message.payload[:2] == [[], {"ids": ["id-0"], "looks": True}]
    assert message.headers["task"] == TASK_EXPORT
    assert message.content_type == "application/json"


def test_a_wake_up_for_many_names_none(mailbox: Mailbox) -> None:
    # When the ledger asks for two wake-ups for a hundred exports, then they only ring
    mailbox.wake_ups.ring(2, wakes(100))
    assert [message.payload[1] for message in mailbox.messages()] == [{"ids": [], "looks": True}] * 2


def test_nothing_to_wake_sends_nothing(mailbox: Mailbox) -> None:
    # When no wake-up is needed, then there is no message
    mailbox.wake_ups.ring(0, wakes(3))
    assert mailbox.messages() == []


def test_a_lone_first_wake_up_carries_the_id_of_its_export(mailbox: Mailbox) -> None:
    # When one export is woken first, then Flower and `labrelay status` agree
    mailbox.wake_ups.ring(1, wakes(1))
    assert mailbox.messages()[0].headers["id"] == "id-0"


@pytest.mark.parametrize(("count", "again"), [(1, True), (2, False)])
def test_every_other_wake_up_has_an_id_of_its_own(mailbox: Mailbox, count: int, again: bool) -> None:
    # When an export is woken again, or with others, then it is another task
    mailbox.wake_ups.ring(1, wakes(count), again=again)
    assert uuid.UUID(mailbox.messages()[0].headers["id"])


def test_people_can_read_what_a_task_is_about(mailbox: Mailbox) -> None:
    # When an export is woken, then Flower shows session, instrument and strategy
    mailbox.wake_ups.ring(1, wakes(1, strategy=""))
    headers = mailbox.messages()[0].headers
    assert headers["kwargsrepr"] == "{session=session-0 instrument=FEI-Titan strategy=by route}"
    assert headers["argsrepr"] == "()"


def test_a_wake_up_for_many_shows_the_first_sessions(mailbox: Mailbox) -> None:
    # When many are woken at once, then the text stays short
    mailbox.wake_ups.ring(1, wakes(64))
    text = mailbox.messages()[0].headers["kwargsrepr"]
    assert "session-4" in text
    assert "session-5 " not in text
    assert text.endswith("; and 59 more}")


def test_no_secret_is_in_a_message(mailbox: Mailbox) -> None:
    # Given a session whose identifier is a signed address
    address = f"https://me:{SECRET}@nemo/api/?id=1&token={SECRET}"
    # When it is woken
    mailbox.wake_ups.ring(1, wakes(1, session=address))
    # Then neither header nor body tells
    (message,) = mailbox.messages()
    assert SECRET not in json.dumps(message.headers)
    assert SECRET not in json.dumps(message.payload)
    assert "id=1" in message.headers["kwargsrepr"]


def broken(*_: Any, **__: Any) -> None:
    lost: Any = None
    lost.client  # noqa: B018  what kombu does on a channel whose connection broke under it


def test_a_channel_that_lost_its_connection_is_an_outage(mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a broker that fails over while a wake-up is published
    monkeypatch.setattr(mailbox.app, "send_task", broken)
    # When it is published, then the caller hears of an outage, which it knows how to take
    with pytest.raises(OperationalError, match="broke while"):
        mailbox.wake_ups.ring(1, wakes(1))


def test_a_programming_error_stays_one(mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox.app, "send_task", lambda *_, **__: mailbox.no_such_member)  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no_such_member"):
        mailbox.wake_ups.ring(1, wakes(1))


def test_only_json_is_spoken() -> None:
    # Given the settings of both ends, then nothing else is accepted: pickle would be code execution
    settings = broker_settings(ProducerSettings(redis_url="redis://host/0"))
    assert settings["accept_content"] == ["json"]
    assert settings["task_serializer"] == settings["result_serializer"] == "json"


def test_the_keys_of_celery_have_the_prefix_of_the_installation() -> None:
    # Given two installations on one Redis, then their queues do not mix
    settings = broker_settings(ProducerSettings(redis_url="redis://host/0", key_prefix="lab2:"))
    assert settings["broker_transport_options"]["global_keyprefix"] == "lab2:"


def test_a_producer_never_waits_for_ever() -> None:
    # Given a Redis that is frozen, then every wait has an end
    settings = broker_settings(ProducerSettings(redis_url="redis://host/0"))
    assert settings["broker_pool_acquire_timeout"]
    assert settings["broker_transport_options"]["socket_timeout"]
    assert settings["broker_transport_options"]["socket_connect_timeout"]
    assert settings["task_publish_retry_policy"]["max_retries"] == 1


def test_the_app_of_labrelay_does_not_replace_that_of_a_pipeline() -> None:
    # Given a pipeline that uses Celery itself
    before = current_app._get_current_object()
    # When labrelay makes its own app, then the pipeline's stays the current one
    app = producer_app(ProducerSettings(redis_url="redis://host/0"))
    assert app.conf.broker_url == "redis://host/0"
    assert current_app._get_current_object() is before is not app
