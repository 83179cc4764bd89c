"""Hosting: any object with the seed's five members, whatever it does, is one well-behaved destination."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from labrelay.context import ExportContext
from labrelay.errors import (
    Conflict,
    DeliveryError,
    Misconfigured,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    Transient,
    Unavailable,
)
from labrelay.redaction import Redactor
from labrelay.results import DestinationInfo, ExportResult, Receipt, utc_now
from labrelay_worker.guarding import RecordGuard
from labrelay_worker.hosting import HostedDestination
from labrelay_worker.unserved import UnservedDestination

T = TypeVar("T")
Build = Callable[..., ExportContext]
SECRET = "hunter2-hunter2"


class Seed:
    """A class as NexusLIMS has them: five members and nothing of labrelay."""

    name = "seed"
    priority = 100

    def __init__(self, act: Callable[[ExportContext], Any] | None = None) -> None:
        self.act = act
        self.called_in: list[str] = []

    @property
    def enabled(self) -> bool:
        return True

    def validate_config(self) -> tuple[bool, str | None]:
        return True, None

    def export(self, context: ExportContext) -> Any:
        self.called_in.append(threading.current_thread().name)
        return success() if self.act is None else self.act(context)


def success(**fields: Any) -> ExportResult:
    return ExportResult(success=True, destination_name="seed", record_id="7", record_url="https://x/7", **fields)


def failure(text: str | None = None, **metadata: Any) -> ExportResult:
    return ExportResult(success=False, destination_name="seed", error_message=text, metadata=metadata)


def host(destination: Any, *, call_timeout: float = 20.0, threads: int = 2, roots: tuple[Path, ...] = ()) -> Any:
    return HostedDestination(
        destination,
        DestinationInfo(name="seed", type="seed"),
        records=RecordGuard(roots),
        redact=Redactor([SECRET]),
        call_timeout=call_timeout,
        threads=threads,
    )


def export(destination: Any, context: ExportContext, **options: Any) -> Receipt:
    return asyncio.run(host(destination, **options).export(context, attempt=3))


def refused(destination: Any, context: ExportContext, **options: Any) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        export(destination, context, **options)
    return caught.value


def raising(error: BaseException) -> Seed:
    def act(_: ExportContext) -> Any:
        raise error

    return Seed(act)


@pytest.fixture
def context(make_context: Build) -> ExportContext:
    return make_context()


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Return an event that hanging plugins wait for, set at the end whatever happens."""
    event = threading.Event()
    yield event
    event.set()


# --- what a plugin may be ------------------------------------------------------------------------------


def test_a_class_with_the_five_members_alone_is_hosted_as_it_is(context: ExportContext) -> None:
    # Given a class that knows nothing of labrelay
    seed = Seed()
    # When it is exported to
    receipt = export(seed, context)
    # Then there is a receipt, and the loop was not blocked meanwhile
    assert (receipt.destination, receipt.record_id, receipt.record_url) == ("seed", "7", "https://x/7")
    assert receipt.attempt == 3
    assert not receipt.adopted
    assert seed.called_in == ["labrelay-seed"]


def test_an_async_export_runs_on_the_loop(context: ExportContext) -> None:
    # Given a destination whose export is a coroutine
    class Async(Seed):
        async def export(self, context: ExportContext) -> ExportResult:
            self.called_in.append(threading.current_thread().name)
            return success()

    destination = Async()
    # When it is exported to, then no thread is spent on it
    export(destination, context)
    assert destination.called_in == [threading.current_thread().name]


def test_a_plain_function_may_return_an_awaitable(context: ExportContext) -> None:
    # Given an export that is wrapped, so that it only looks like a plain function
    async def later() -> ExportResult:
        return success()

    # When it is exported to, then its answer is awaited
    assert export(Seed(lambda _: later()), context).record_id == "7"


def test_a_destination_may_return_a_receipt(context: ExportContext) -> None:
    # Given a destination that makes its own proof
    own = Receipt(destination="seed", record_id="9", verified="read back", at=utc_now())
    # When it is exported to, then that is the receipt
    assert export(Seed(lambda _: own), context) == own


def test_what_a_result_says_is_kept_in_the_receipt(context: ExportContext) -> None:
    # Given a result with details
    metadata = {"verified": "sha256 equal", "files": ["a", "b"], "count": 2, "note": f"token {SECRET}"}
    # When it is exported to
    receipt = export(Seed(lambda _: success(metadata=metadata)), context)
    # Then they are kept, without secrets
    assert receipt.verified == "sha256 equal"
    assert receipt.metadata["count"] == 2
    assert receipt.metadata["files"] == ["a", "b"]
    assert SECRET not in receipt.model_dump_json()


def test_a_result_without_the_usual_fields_is_a_success_all_the_same(context: ExportContext) -> None:
    # Given a plugin with a result class of its own
    class Bare:
        success = True

    # When it is exported to, then what is missing is not known
    receipt = export(Seed(lambda _: Bare()), context)
    assert (receipt.record_id, receipt.record_url) == (None, None)


def test_odd_metadata_does_not_lose_a_delivery(context: ExportContext) -> None:
    # Given a result whose metadata no JSON object can hold
    class Odd:
        success = True
        record_id = 7
        record_url = None
        metadata = {1: object(), None: b"\xff"}  # noqa: RUF012  a plugin may do that

    # When it is exported to, then the delivery counts
    assert export(Seed(lambda _: Odd()), context).record_id == "7"


# --- errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Transient, RateLimited, Unavailable, Rejected, Conflict, Misconfigured])
def test_a_typed_error_stays_what_it_is(context: ExportContext, kind: type[DeliveryError]) -> None:
    # When a plugin says what the caller must do, then that is kept
    error = refused(raising(kind("because")), context)
    assert type(error) is kind
    assert str(error) == "because"


def test_the_pause_a_destination_asks_for_is_kept(context: ExportContext) -> None:
    # When a plugin says how long to wait, then that is kept
    error = refused(raising(RateLimited("slow down", retry_after=30)), context)
    assert error.retry_after == 30


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (ConnectionRefusedError(111, "refused"), Unavailable),
        (socket.gaierror(-2, "unknown host"), Unavailable),
        (ConnectionResetError(104, "reset"), OutcomeUnknown),
        (ValueError("odd answer"), OutcomeUnknown),
        (StopIteration("odd"), OutcomeUnknown),
        (SystemExit(3), OutcomeUnknown),
        (KeyboardInterrupt(), OutcomeUnknown),
    ],
)
def test_whatever_else_is_raised_is_typed(
    context: ExportContext, raised: BaseException, kind: type[DeliveryError]
) -> None:
    # When a plugin raises anything at all, then the worker lives, and what may have been sent counts as doubtful
    error = refused(raising(raised), context)
    assert type(error) is kind
    assert type(raised).__name__ in str(error)


@pytest.mark.parametrize("raised", [SystemExit(3), ValueError("odd"), asyncio.CancelledError()])
def test_an_async_plugin_cannot_end_the_worker_either(context: ExportContext, raised: BaseException) -> None:
    # Given an async export that raises, a stray cancellation included
    class Async(Seed):
        async def export(self, context: ExportContext) -> ExportResult:
            raise raised

    # When it is exported to, then it is one failed delivery
    assert type(refused(Async(), context)) is OutcomeUnknown


def test_a_real_cancellation_passes_through(context: ExportContext) -> None:
    # Given an async export that hangs
    class Async(Seed):
        async def export(self, context: ExportContext) -> ExportResult:
            hangs.set()
            await asyncio.Event().wait()
            return success()

    hangs = asyncio.Event()

    async def cut_off() -> None:
        task = asyncio.create_task(host(Async()).export(context, attempt=1))
        await hangs.wait()
        # When the process shuts down
        task.cancel()
        # Then the call ends, and is not taken for a failure
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cut_off())


def test_a_timeout_inside_a_plugin_keeps_its_own_words(context: ExportContext) -> None:
    # When a plugin's own library gives up, then the text is not about labrelay's limit
    error = refused(raising(TimeoutError("connect timed out")), context)
    assert type(error) is OutcomeUnknown
    assert str(error) == "connect timed out"


def test_no_secret_is_in_an_error(context: ExportContext) -> None:
    # Given errors of each way that carry a secret
    for seed in (
        raising(ValueError(f"login with {SECRET} failed")),
        raising(Rejected(f"401 for {SECRET}")),
        raising(ConnectionRefusedError(f"http://me:{SECRET}@host")),
        Seed(lambda _: failure(f"bad token {SECRET}")),
    ):
        # When they are reported, then without it
        assert SECRET not in str(refused(seed, context))


@pytest.mark.parametrize(
    ("result", "kind", "text"),
    [
        (failure("disk full"), Transient, "disk full"),
        (failure(), Transient, "the destination reported a failure"),
        (failure("bad XML", error_kind="rejected"), Rejected, "bad XML"),
        (failure("no token", error_kind="misconfigured"), Misconfigured, "no token"),
        (failure("lost", error_kind="outcome_unknown"), OutcomeUnknown, "lost"),
        (failure("odd", error_kind="invented"), Transient, "odd"),
    ],
)
def test_a_reported_failure_is_typed(
    context: ExportContext, result: ExportResult, kind: type[DeliveryError], text: str
) -> None:
    # When a plugin returns success=False, then it is an error of the kind it names
    error = refused(Seed(lambda _: result), context)
    assert type(error) is kind
    assert str(error) == text


@pytest.mark.parametrize("answer", [None, True, "https://x/7"])
def test_an_export_that_returns_no_result_may_have_been_sent(context: ExportContext, answer: Any) -> None:
    # Given a plugin that forgets to return a result
    # When it is exported to, then the outcome is unknown: trying again could make thirty objects
    assert type(refused(Seed(lambda _: answer), context)) is OutcomeUnknown


# --- time and threads ----------------------------------------------------------------------------------


def test_a_hanging_export_ends_in_doubt(context: ExportContext, release: threading.Event) -> None:
    # Given a plugin that hangs
    error = refused(Seed(lambda _: release.wait()), context, call_timeout=0.01)
    # Then the engine goes on, not knowing what became of it
    assert type(error) is OutcomeUnknown
    assert str(error) == "no answer within 0.01 s"


def test_the_timeout_of_a_destination_comes_before_the_setting(
    context: ExportContext, release: threading.Event
) -> None:
    # Given a plugin that says how long its calls may take
    seed = Seed(lambda _: release.wait())
    seed.timeout = 0.02
    # When it hangs, then that time counts
    assert "0.02 s" in str(refused(seed, context, call_timeout=1000))


def test_a_hanging_call_keeps_its_place_until_it_returns(context: ExportContext, release: threading.Event) -> None:
    # Given a destination of one thread, whose first call hangs
    returned = threading.Event()

    def act(_: ExportContext) -> ExportResult:
        release.wait()
        returned.set()
        return success()

    hosted = host(Seed(act), call_timeout=0.01, threads=1)

    async def deliver() -> Receipt:
        async with hosted.slot():
            return await hosted.export(context, attempt=1)

    async def story() -> None:
        with pytest.raises(OutcomeUnknown):
            await deliver()
        # When another export comes, then it is told to wait, and no second thread is spent
        with pytest.raises(RateLimited, match="busy or hung"):
            await deliver()
        # And when the hung call returns at last, then the place is free again
        release.set()
        await asyncio.to_thread(returned.wait)
        hosted._limit.seconds = hosted._threads._patience = 20
        assert (await deliver()).record_id == "7"

    asyncio.run(story())


def test_a_call_that_returns_just_as_its_time_ends_gives_its_place_back(context: ExportContext) -> None:
    # Given a destination of one thread, and a call that is cancelled in the moment it returns
    inside = threading.Event()
    go_on = threading.Event()
    threads: list[threading.Thread] = []

    def act(_: ExportContext) -> ExportResult:
        threads.append(threading.current_thread())
        inside.set()
        go_on.wait()
        return success()

    hosted = host(Seed(act), threads=1)

    async def deliver() -> Receipt:
        async with hosted.slot():
            return await hosted.export(context, attempt=1)

    async def story() -> None:
        task = asyncio.create_task(deliver())
        await asyncio.to_thread(inside.wait)
        go_on.set()
        threads[0].join()  # blocks the loop: the answer waits in its queue
        asyncio.get_running_loop().call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        # When the next export comes, then there is a place for it
        assert (await deliver()).record_id == "7"

    asyncio.run(asyncio.wait_for(story(), 20))


def test_blocking_calls_are_bounded(context: ExportContext) -> None:
    # Given a destination of two threads
    running: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def act(_: ExportContext) -> ExportResult:
        with lock:
            running.append(1)
            most.append(len(running))
        with lock:
            running.pop()
        return success()

    hosted = host(Seed(act), threads=2)

    async def deliver() -> Receipt:
        async with hosted.slot():
            return await hosted.export(context, attempt=1)

    async def many() -> list[Receipt]:
        return await asyncio.gather(*(deliver() for _ in range(10)))

    # When ten exports come at once, then all are delivered, two at a time at the most
    assert len(asyncio.run(many())) == 10
    assert max(most) <= 2


# --- doubt ---------------------------------------------------------------------------------------------


def doubt(destination: Any, context: ExportContext) -> Receipt | None:
    return asyncio.run(host(destination).resolve_doubt(context, attempt=2))


def test_what_a_destination_finds_is_adopted(context: ExportContext) -> None:
    # Given a destination that can be asked and has the record
    seed = Seed()
    seed.find = lambda _: success()
    # When an earlier send is in doubt
    receipt = doubt(seed, context)
    # Then its receipt is that of the earlier send
    assert receipt.adopted
    assert receipt.record_id == "7"
    assert seed.called_in == []


def test_what_a_destination_does_not_find_may_be_sent(context: ExportContext) -> None:
    # Given a destination that certainly has not the record
    seed = Seed()
    seed.find = lambda _: None
    # When an earlier send is in doubt, then it may be sent
    assert doubt(seed, context) is None
    assert host(seed).can_ask


def test_a_find_that_fails_leaves_the_doubt(context: ExportContext) -> None:
    # Given a destination that cannot answer now
    def find(_: ExportContext) -> None:
        raise ValueError("odd answer")

    seed = Seed()
    seed.find = find
    # When it is asked, then that is an error that is tried again, and nothing was sent by asking
    with pytest.raises(Transient, match="odd answer"):
        doubt(seed, context)


def test_a_find_that_answers_something_else_leaves_the_doubt(context: ExportContext) -> None:
    # Given a plugin whose find answers False instead of None
    seed = Seed()
    seed.find = lambda _: False
    # When it is asked, then nobody concludes anything from it
    with pytest.raises(DeliveryError):
        doubt(seed, context)


def test_an_idempotent_destination_may_be_sent_to_again(context: ExportContext) -> None:
    # Given a destination that makes no second object
    seed = Seed()
    seed.idempotent = True
    # When an earlier send is in doubt, then it may be sent
    assert doubt(seed, context) is None
    assert host(seed).can_ask


def test_a_destination_that_can_do_neither_stays_in_doubt(context: ExportContext) -> None:
    # Given a class of the seed, when an earlier send is in doubt, then nobody can tell
    with pytest.raises(OutcomeUnknown, match="may have arrived"):
        doubt(Seed(), context)
    assert not host(Seed()).can_ask


# --- revisions, files, configuration, closing ----------------------------------------------------------


def test_a_new_revision_updates_the_object_of_the_previous(context: ExportContext) -> None:
    # Given a destination that can update, and a receipt of revision 1
    seed = Seed()
    updated: list[Receipt] = []

    def update(_: ExportContext, receipt: Receipt) -> ExportResult:
        updated.append(receipt)
        return success()

    seed.update = update
    previous = Receipt(destination="seed", record_id="6", at=utc_now())
    # When revision 2 is exported
    export(seed, context.of_revision(2, {"seed": previous, "other": previous}))
    # Then the object is changed in place
    assert updated == [previous]
    assert seed.called_in == []


def test_a_destination_that_cannot_update_is_exported_to(context: ExportContext) -> None:
    # Given a class of the seed and a receipt of revision 1
    previous = Receipt(destination="seed", record_id="6", at=utc_now())
    seed = Seed()
    # When revision 2 is exported, then as usual
    export(seed, context.of_revision(2, {"seed": previous}))
    assert len(seed.called_in) == 1


def test_a_record_that_changed_since_submit_is_not_sent(make_session: Build) -> None:
    # Given a record that is not what was submitted
    seed = Seed()
    context = make_session(xml_sha256="0" * 64)
    # When it is exported, then it is refused with the cure
    assert "changed since it was submitted; submit it again with --replace" in str(refused(seed, context))
    assert seed.called_in == []


def test_a_record_that_is_not_there_is_tried_again(make_context: Build) -> None:
    # Given a worker without the share, when the record is exported, then it waits
    error = refused(Seed(), make_context(xml_sha256="0" * 64))
    assert type(error) is Transient
    assert "is its share mounted here?" in str(error)


@pytest.mark.parametrize("outside", ["/etc/passwd", "{root}/../outside", "{root}/link"])
def test_a_file_outside_the_data_roots_is_not_opened(make_session: Build, tmp_path: Path, outside: str) -> None:
    # Given a context that names a file elsewhere, plainly, by dots or by a link
    root = tmp_path / "data"
    context = make_session(activities=[{"files": [outside.format(root=root)]}])
    (root / "link").symlink_to("/etc/passwd")
    seed = Seed()
    # When it is exported, then it is refused by name
    error = refused(seed, context, roots=(root,))
    assert type(error) is Rejected
    assert "lies outside data_roots" in str(error)
    assert seed.called_in == []


@pytest.mark.parametrize("name", ["loop", "with\0null", "x" * 5000])
def test_a_path_that_cannot_be_followed_is_one_failed_delivery(
    make_session: Build, tmp_path: Path, name: str
) -> None:
    # Given a context with a path that the system refuses to look at
    root = tmp_path / "data"
    context = make_session(activities=[{"files": [f"{root}/{name}"]}])
    (root / "loop").symlink_to(root / "loop")
    # When it is exported, then the other destinations are not affected: it is an error of this delivery
    assert type(refused(raising(Rejected("seen")), context, roots=(root,))) is Rejected


def test_a_broken_validation_is_an_answer(context: ExportContext) -> None:
    # Given a destination whose check raises
    class Broken(Seed):
        def validate_config(self) -> tuple[bool, str | None]:
            raise KeyError(SECRET)

    # When it is checked, then that is what is wrong with it, without secrets
    valid, message = asyncio.run(host(Broken()).validate_config())
    assert not valid
    assert "KeyError" in message
    assert SECRET not in message


@pytest.mark.parametrize("answer", [None, True, (True,)])
def test_a_check_that_answers_something_else_is_not_usable(answer: Any) -> None:
    # Given a destination whose check does not keep to the contract
    class Odd(Seed):
        def validate_config(self) -> Any:
            return answer

    # When it is checked, then the listing of the others goes on
    valid, message = asyncio.run(host(Odd()).validate_config())
    assert not valid
    assert message


def test_closing_calls_close_and_asks_for_none() -> None:
    # Given one destination with a close and one without
    closed: list[str] = []
    seed = Seed()
    seed.close = lambda: closed.append("seed")

    # When both are closed, then the one it has is called
    async def close() -> None:
        await host(seed).close()
        await host(Seed()).close()

    asyncio.run(close())
    assert closed == ["seed"]


def test_an_unserved_destination_waits_with_its_reason(context: ExportContext) -> None:
    # Given a destination that this worker does not serve
    unserved = UnservedDestination(DestinationInfo(name="cdcs", type="", reason="it is unavailable here"))

    async def ask(call: Coroutine[Any, Any, T]) -> T:
        async with unserved.slot():
            return await call

    # When it is sent to or asked, then a person must correct the settings
    for call in (unserved.export(context, attempt=1), unserved.resolve_doubt(context, attempt=1)):
        with pytest.raises(Misconfigured, match="it is unavailable here"):
            asyncio.run(ask(call))
