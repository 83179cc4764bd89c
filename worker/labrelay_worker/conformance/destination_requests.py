"""What every destination that speaks HTTP promises: each request of a delivery is hurt in each way, then it recovers.

How many requests there are is learned from a delivery that nothing hurts.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator

import pytest
from pydantic import SecretStr

from labrelay.context import ExportContext
from labrelay.errors import DeliveryError, Misconfigured, OutcomeUnknown, Rejected, Transient
from labrelay.results import Receipt
from labrelay_worker.conformance.destination_bench import Bench, Server, demand, until
from labrelay_worker.conformance.destination_cases import demand_taken_up, with_links
from labrelay_worker.conformance.destination_promises import DestinationConformance
from labrelay_worker.conformance.destination_sessions import Sessions
from labrelay_worker.conformance.faults import Fault
from labrelay_worker.conformance.serving import FaultProxy

#: The server may have done what was asked, or not: the client cannot know.
LOST = {
    "the answer is lost": Fault("close", after=True),
    "half of the answer arrives": Fault("half", after=True),
    "the request is lost": Fault("close"),
    "500 though it was done": Fault("status", after=True, status=500),
    "500": Fault("status", status=500),
}
_WAIT = 7.0
#: The server says that it did nothing, and when to come back.
BUSY = {
    "429": Fault("status", status=429, headers={"Retry-After": str(int(_WAIT))}),
    "503": Fault("status", status=503, headers={"Retry-After": str(int(_WAIT))}),
}
REFUSED = {f"{status}": Fault("status", status=status) for status in (400, 413, 422)}
_CLOSED_TO = {f"{status}": Fault("status", status=status, times=100) for status in (401, 403)}
_HANGS = {"before": Fault("hang"), "after": Fault("hang", after=True)}


def _each(faults: dict[str, Fault]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fault", faults.values(), ids=faults)


class HttpDestinationConformance(DestinationConformance):
    """The promises of a destination that speaks HTTP, and those of any."""

    @pytest.fixture
    def bench(self, server: Server) -> Iterator[Bench]:
        """Yield what calls destinations through a proxy that hurts them."""
        with FaultProxy(server.url) as proxy:
            yield Bench(self.make, server, proxy.faults, proxy.url)

    @property
    def dead_url(self) -> str:
        """An address where nobody listens."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return f"http://127.0.0.1:{free.getsockname()[1]}"

    # --- each request of a delivery -------------------------------------------------------------------------

    @_each(LOST)
    def test_a_lost_answer_makes_no_second_object(self, bench: Bench, sessions: Sessions, fault: Fault) -> None:
        """Whatever request's answer is lost: one object, whole; where nobody can be asked, a person decides."""
        for position, requests, context in _positions(bench, sessions):
            with bench.hurt(position, requests, fault):
                settled = bench.settle(context)
                if settled.is_parked:
                    asked = len(bench.faults.seen)
                    demand(not bench.can_ask, f"it is {settled}, though it can be asked")
                    demand(asked == position, f"it went on with {asked - position} requests after an unknown outcome")
                    demand(len(bench.server.kept(context)) <= 1, "the server keeps more than one object")
                else:
                    bench.require_one(context)

    @_each(BUSY)
    def test_a_busy_server_is_asked_again_when_it_says(self, bench: Bench, sessions: Sessions, fault: Fault) -> None:
        """429 and 503 are waited out for as long as the server says, and leave no doubt."""
        for position, requests, context in _positions(bench, sessions):
            with bench.hurt(position, requests, fault):
                settled = bench.settle(context)
                demand(not settled.is_parked, f"it is {settled}, though the server said that it did nothing")
                for error in settled.errors:
                    wait = getattr(error, "retry_after", None)
                    demand(isinstance(error, Transient), f"it is reported as {error!r}, not as Transient")
                    demand(wait == _WAIT, f"Retry-After was {_WAIT:g}, the error says {wait}")
                bench.require_one(context)

    @_each(REFUSED)
    def test_a_refusal_is_final(self, bench: Bench, sessions: Sessions, fault: Fault) -> None:
        """What the server refuses is not sent again by itself; once it takes it, there is one object."""
        for position, requests, context in _positions(bench, sessions):
            with bench.hurt(position, requests, fault):
                try:
                    bench.send(context)
                except DeliveryError as error:
                    final = isinstance(error, Rejected | Misconfigured)
                    demand(final, f"a refusal is reported as {error!r}, not as Rejected")
                    bench.faults.clear()
                    bench.settle(context)
                bench.require_one(context)

    @pytest.mark.parametrize("when", _HANGS)
    def test_a_worker_that_ends_at_any_request_is_followed_up(
        self, bench: Bench, sessions: Sessions, when: str
    ) -> None:
        """A call that ends before the server has a request, or before its answer: the next one completes it."""
        for position, requests, context in _positions(bench, sessions):
            with bench.hurt(position, requests, _HANGS[when]):
                asyncio.run(bench.cut_off(context))
                if bench.can_find and bench.find(context) is not None:
                    bench.require_one(context)
                demand_taken_up(bench, context, asyncio.CancelledError())

    def test_a_record_that_changes_between_requests_is_never_delivered(
        self, bench: Bench, sessions: Sessions
    ) -> None:
        """The server gets the record that was submitted, or none."""
        for position, requests, context in _positions(bench, sessions):
            submitted = context.xml_file_path.read_bytes()
            with bench.hurt(position, requests, Fault("hang", after=True)):
                answer = asyncio.run(_changed_while_it_hangs(bench, context, self.record("Another")))
                demand(isinstance(answer, Receipt | Rejected), f"a record that changed is reported as {answer!r}")
                for kept in bench.server.kept(context):
                    demand(kept.record in (None, submitted), "the server keeps a record that was not submitted")

    def test_closing_at_any_request_loses_nothing(self, bench: Bench, sessions: Sessions) -> None:
        """A delivery whose connections are closed ends in a receipt or a typed error, and can be taken up."""
        for position, requests, context in _positions(bench, sessions):
            with bench.hurt(position, requests, Fault("hang", after=True)):
                demand_taken_up(bench, context, asyncio.run(_closed_while_it_hangs(bench, context)))

    # --- each request of what comes later -------------------------------------------------------------------

    @_each(LOST)
    def test_an_update_whose_answer_is_lost_changes_the_one_object(
        self, bench: Bench, sessions: Sessions, fault: Fault
    ) -> None:
        """Whatever request of a new revision's delivery is lost: the server keeps it whole."""

        def revised() -> ExportContext:
            context = sessions.make()
            return sessions.next_revision(context, bench.send(context))

        for position, requests, context in _positions(bench, sessions, revised):
            with bench.hurt(position, requests, fault):
                settled = bench.settle(context)
                if bench.can_update:
                    bench.require_one(context)
                else:
                    demand(settled.is_parked <= (not bench.can_ask), f"it is {settled}, though it can be asked")

    @_each(LOST | BUSY)
    def test_a_link_whose_answer_is_lost_is_added_once(self, bench: Bench, sessions: Sessions, fault: Fault) -> None:
        """The engine repeats `link` after any failure: the entry has its link, and stays one."""
        if not bench.can_link:
            demand(not bench.send(sessions.make()).unlinked, "it promises a link that it cannot add")
            return

        def delivered() -> tuple[ExportContext, Receipt]:
            context = sessions.make()
            return with_links(context, bench), bench.send(context)

        clean = delivered()
        requests = bench.requests_of(lambda: bench.link(*clean))
        for position in range(1, len(requests) + 1):
            context, receipt = delivered()
            with bench.hurt(position, requests, fault):
                try:
                    linked = bench.link(context, receipt)
                except (Transient, OutcomeUnknown):
                    linked = bench.link(context, receipt)
                demand(not linked.unlinked, f"after `link`, unlinked is still {linked.unlinked}")
                bench.require_one(context)

    @_each(LOST | BUSY)
    def test_find_says_no_only_if_it_knows(self, bench: Bench, sessions: Sessions, fault: Fault) -> None:
        """A search that fails raises: "not there" would be answered with a second object."""
        context = sessions.make()
        bench.send(context)
        requests = bench.requests_of(lambda: bench.find(context)) if bench.can_find else []
        demand(requests or not bench.can_find, "`find` asks nobody")
        for position in range(1, len(requests) + 1):
            with bench.hurt(position, requests, fault):
                try:
                    demand(bench.find(context) is not None, "`find` says that it is not there when it cannot know")
                except DeliveryError as error:
                    demand(isinstance(error, Transient), f"a search that fails is reported as {error!r}")

    # --- settings -------------------------------------------------------------------------------------------

    @_each(_CLOSED_TO)
    def test_a_refused_token_asks_for_a_person(self, bench: Bench, sessions: Sessions, fault: Fault) -> None:
        """401 and 403 pause the destination; no error repeats a secret that the server repeats."""
        context = sessions.make()
        body = f"refused: {' '.join(bench.secrets)}"
        for position, requests, _ in _positions(bench, sessions):
            refused = Fault("status", status=fault.status, times=fault.times, body=body)
            with bench.hurt(position, requests, refused):
                try:
                    bench.send(context)
                except DeliveryError as error:
                    demand(isinstance(error, Misconfigured | Rejected), f"it is reported as {error!r}")
        bench.validate()

    def test_a_wrong_secret_is_named(self, bench: Bench) -> None:
        """`validate_config` says no to each wrong token, key or password, where the server looks at them."""
        given = {} if bench.options is None else dict(bench.options)
        secret_names = [name for name, value in given.items() if isinstance(value, SecretStr)]
        if bench.server.checks_access:
            demand(secret_names, "the server checks access, and no option of the destination is a SecretStr")
        for name in secret_names if bench.server.checks_access else ():
            options = bench.kind.Options.model_validate({**given, name: SecretStr("wrong-0123456789")})
            host = bench.host(bench.kind(bench.name, options))
            valid, message = bench.validate(host)
            demand(not valid and message, f"validate_config says {valid}, {message!r} with a wrong {name}")
            demand("wrong-0123456789" not in str(message), f"validate_config tells the wrong {name}: {message}")


def _positions(
    bench: Bench, sessions: Sessions, make: Callable[[], ExportContext] | None = None
) -> Iterator[tuple[int, list[str], ExportContext]]:
    """Yield each position of a delivery with all of its requests and a new session."""
    make = make or sessions.make
    clean = make()
    requests = bench.requests_of(lambda: bench.send(clean))
    demand(requests, "a delivery makes no request to the address that it was given")
    for position in range(1, len(requests) + 1):
        yield position, requests, make()


async def _changed_while_it_hangs(bench: Bench, context: ExportContext, record: bytes) -> Receipt | BaseException:
    host = bench.host()
    call = asyncio.ensure_future(host.export(context, attempt=1))
    try:
        await until(lambda: bench.faults.held or call.done(), "the request that hangs")
        context.xml_file_path.write_bytes(record)
        bench.faults.release()
        (answer,) = await asyncio.gather(call, return_exceptions=True)
        return answer
    finally:
        await host.close()


async def _closed_while_it_hangs(bench: Bench, context: ExportContext) -> Receipt | BaseException:
    host = bench.host()
    call = asyncio.ensure_future(host.export(context, attempt=1))
    await until(lambda: bench.faults.held or call.done(), "the request that hangs")
    await host.close()
    bench.faults.release()
    (answer,) = await asyncio.gather(call, return_exceptions=True)
    await host.close()
    return answer
