"""What every destination promises, of whatever kind it is.

Nothing is left out: where a destination cannot be asked, updated or linked, the tests demand what the engine relies
on instead.
"""

from __future__ import annotations

import asyncio
from typing import Any

from labrelay.context import ExportContext
from labrelay.errors import DeliveryError, Misconfigured, OutcomeUnknown, Transient
from labrelay.results import Receipt
from labrelay_worker.conformance.destination_bench import Bench, demand
from labrelay_worker.conformance.destination_cases import (
    demand_answer_to_doubt,
    demand_found,
    demand_link,
    demand_taken_up,
    with_links,
)
from labrelay_worker.conformance.destination_odd import OddSessions
from labrelay_worker.conformance.destination_sessions import Sessions
from labrelay_worker.destinations.account import OwnAccount

_AT_ONCE = 6


class DestinationConformance(OddSessions):
    """The promises of any destination; each test has a server of its own."""

    # --- delivering -----------------------------------------------------------------------------------------

    def test_a_session_arrives_once_and_whole(self, bench: Bench, sessions: Sessions) -> None:
        """A receipt stands for one object with the very bytes of the record."""
        context = sessions.make()
        receipt = bench.send(context)
        demand(receipt.destination == bench.name, f"the receipt is of {receipt.destination!r}, not of {bench.name!r}")
        bench.require_one(context)

    def test_before_anything_was_sent_nothing_is_found(self, bench: Bench, sessions: Sessions) -> None:
        """`find` says None of what is not there; without `find` and `idempotent` the doubt goes to a person."""
        context = sessions.make()
        demand_answer_to_doubt(bench, context, None)
        bench.settle(sessions.make())  # the server is no longer empty
        demand_answer_to_doubt(bench, context, None)

    def test_what_was_sent_is_found_and_another_revision_is_not(self, bench: Bench, sessions: Sessions) -> None:
        """`find` returns what `export` returned, of this very revision."""
        context = sessions.make()
        receipt = bench.send(context)
        demand_answer_to_doubt(bench, context, receipt)
        if bench.can_find:
            found = bench.find(sessions.next_revision(context, receipt))
            demand(found is None, "`find` returns the revision before as if it were the new one")

    def test_a_delivery_repeated_makes_no_second_object(self, bench: Bench, sessions: Sessions) -> None:
        """Sending again finds the first object; where it cannot be asked, the engine does not send again."""
        context = sessions.make()
        first = bench.send(context)
        if bench.can_ask:
            again = bench.send(context)
            demand(again.record_id == first.record_id, f"sent again, the id is {again.record_id}: {first.record_id}")
        else:
            demand(bench.settle(context, in_doubt=True).is_parked, "it cannot be asked, yet a doubt did not park it")
        bench.require_one(context)

    def test_two_deliveries_at_once_make_one_object(self, bench: Bench, sessions: Sessions) -> None:
        """Two workers that share the account, one of them back from a freeze, send the same session."""
        context, account = sessions.make(), OwnAccount()

        async def both() -> list[Receipt | BaseException]:
            hosts = [bench.host(account=account) for _ in range(2)]
            try:
                calls = (host.export(context, attempt=1) for host in hosts)
                return await asyncio.gather(*calls, return_exceptions=True)
            finally:
                for host in hosts:
                    await host.close()

        if not bench.can_ask:
            return demand_answer_to_doubt(bench, context, None)  # what the engine relies on instead
        answers = asyncio.run(both())
        for error in (answer for answer in answers if isinstance(answer, BaseException)):
            demand(isinstance(error, Transient | OutcomeUnknown), f"one of two at once ends with {error!r}")
        bench.settle(context, in_doubt=True)
        bench.require_one(context)
        return None

    def test_sessions_of_one_instrument_arrive_side_by_side(self, bench: Bench, sessions: Sessions) -> None:
        """Sessions that begin at once, as after an outage, do not get into each other's way."""
        same: dict[str, Any] = {
            "instrument_pid": "One-Instrument",
            "user": "somebody",
            "reservation_event": {"username": "somebody"},
        }
        contexts, account = [sessions.make(**same) for _ in range(_AT_ONCE)], OwnAccount()

        async def all_of_them() -> None:
            hosts = [bench.host(account=account) for _ in range(2)]
            try:
                calls = (hosts[n % 2].export(context, attempt=1) for n, context in enumerate(contexts))
                await asyncio.gather(*calls, return_exceptions=True)
            finally:
                for host in hosts:
                    await host.close()

        asyncio.run(all_of_them())
        for context in contexts:
            if bench.can_ask:
                bench.settle(context, in_doubt=True)
            bench.require_one(context)

    # --- later ----------------------------------------------------------------------------------------------

    def test_a_new_revision_takes_the_place_of_the_old(self, bench: Bench, sessions: Sessions) -> None:
        """`update` changes the object of the receipt; without it, the new revision arrives as an object."""
        context = sessions.make()
        receipt = bench.send(context)
        revised = sessions.next_revision(context, receipt)
        again = bench.send(revised)
        if bench.can_update:
            same = again.record_id == receipt.record_id
            demand(same, f"`update` made {again.record_id} instead of changing {receipt.record_id}")
            bench.require_one(revised)
            demand_found(bench, revised)
        else:
            wanted = revised.xml_file_path.read_bytes()
            demand(wanted in [kept.record for kept in bench.server.kept(revised)], "the new revision did not arrive")

    def test_a_link_that_comes_late_is_added_once(self, bench: Bench, sessions: Sessions) -> None:
        """`link` adds what is known by now, as often as it is called; without it, no link may be promised."""
        context = sessions.make()
        receipt = bench.send(context)
        if not bench.can_link:
            demand(not receipt.unlinked, "it says that a link is missing, and has no `link` to add it")
            return
        demand(receipt.unlinked == bench.waits_for, f"unlinked is {receipt.unlinked} instead of {bench.waits_for}")
        linked = with_links(context, bench)
        for _ in range(2):
            receipt = bench.link(linked, receipt)
            demand(not receipt.unlinked, f"after `link`, unlinked is still {receipt.unlinked}")
            demand_link(bench, linked)

    def test_a_link_that_is_known_goes_out_at_once(self, bench: Bench, sessions: Sessions) -> None:
        """The results of the destinations that it waits for are in what it sends."""
        context = with_links(sessions.make(), bench)
        receipt = bench.send(context)
        demand(not receipt.unlinked, f"the links were known, yet unlinked is {receipt.unlinked}")
        if bench.can_link:
            demand_link(bench, context)
        else:
            bench.require_one(context)

    # --- ending ---------------------------------------------------------------------------------------------

    def test_closing_twice_is_safe(self, bench: Bench, sessions: Sessions) -> None:
        """`close` may be called before anything was sent, and again."""

        async def closings() -> None:
            for used in (False, True):
                host = bench.host()
                if used:
                    await host.export(sessions.make(), attempt=1)
                await host.close()
                await host.close()

        asyncio.run(closings())

    def test_closing_during_a_delivery_loses_nothing(self, bench: Bench, sessions: Sessions) -> None:
        """A delivery that is closed under its hands ends in a receipt or a typed error, and can be taken up."""
        context = sessions.make()

        async def closed_at_once() -> Receipt | BaseException:
            host = bench.host()
            call = asyncio.ensure_future(host.export(context, attempt=1))
            await asyncio.sleep(0)
            await host.close()
            (answer,) = await asyncio.gather(call, return_exceptions=True)
            await host.close()
            return answer

        demand_taken_up(bench, context, asyncio.run(closed_at_once()))

    def test_a_delivery_cut_off_is_taken_up(self, bench: Bench, sessions: Sessions) -> None:
        """A call that ends at any moment leaves nothing that the next one cannot complete."""
        for pauses in range(1, 20, 3):
            context = sessions.make()

            async def cut_off(context: ExportContext = context, pauses: int = pauses) -> Receipt | BaseException:
                host = bench.host()
                call = asyncio.ensure_future(host.export(context, attempt=1))
                for _ in range(pauses):
                    await asyncio.sleep(0.001)
                call.cancel()
                (answer,) = await asyncio.gather(call, return_exceptions=True)
                await asyncio.to_thread(bench.await_end)
                await host.close()
                return answer

            demand_taken_up(bench, context, asyncio.run(cut_off()))

    # --- settings -------------------------------------------------------------------------------------------

    def test_right_settings_are_valid_and_asking_changes_nothing(self, bench: Bench, sessions: Sessions) -> None:
        """`validate_config` says yes where a delivery would succeed."""
        context = sessions.make()
        for _ in range(2):
            valid, message = bench.validate()
            demand(valid, f"validate_config refuses the settings of a server that is there: {message}")
        bench.settle(context)
        bench.require_one(context)

    def test_a_dead_server_is_reported(self, bench: Bench, sessions: Sessions) -> None:
        """`validate_config` says no and why; an export waits."""
        valid, message = bench.validate(bench.host(url=self.dead_url))
        demand(not valid and message, f"validate_config says {valid}, {message!r} of {self.dead_url}, which is dead")
        error = None
        try:
            host = bench.host(url=self.dead_url)
            bench.call(lambda host: host.export(sessions.make(), attempt=1), host=host)
        except DeliveryError as raised:
            error = raised
        demand(isinstance(error, Transient | Misconfigured), f"an export to a dead server ends with {error!r}")
