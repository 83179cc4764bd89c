"""A task in Flower says what became of which session, as the ledger has it, with addresses and without secrets."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from labrelay.errors import LedgerUnavailable, NoSuchExport
from labrelay.results import Delivery, DeliveryState, ExportState, Receipt, utc_now
from labrelay_worker.flower.display import CELERY_STATES, format_task
from labrelay_worker.flower.standing import Standing
from labrelay_worker.tasks import NeedsPerson, WaitsInLedger
from labrelay_worker.telling import by_session, tell_job

ID = "3f0c6c1e-8a55-5c43-b8fa-5b1f5a0e8a65"
OTHER = "aa548e39-4ca8-594b-881c-b57a71a800b7"


def job(export_id: str = ID, **deliveries: Delivery) -> SimpleNamespace:
    """Return an export delivered to cdcs, and to others as given."""
    receipt = Receipt(
        destination="cdcs", record_id="7", record_url="https://cdcs.example.org/data?id=7", at=utc_now()
    )
    return SimpleNamespace(
        export_id=export_id,
        instrument="FEI-Titan",
        strategy="all",
        receipts={"cdcs": receipt},
        deliveries={"cdcs": Delivery(state=DeliveryState.DELIVERED), **deliveries},
    )


DELIVERED = tell_job(job(), ExportState.DELIVERED, "1 of 1 delivered")
WAITING = tell_job(
    job(portal=Delivery(state=DeliveryState.RETRYING, error_kind="transient", error_message="down\nfor now")),
    ExportState.WAITING,
    "1 of 2 delivered; portal: transient",
)


def nobody(export_id: str) -> None:
    """Answer as a ledger that is away."""


def test_what_is_told_names_state_count_addresses_instrument_strategy_and_id() -> None:
    assert (
        "delivered: 1 of 1 delivered · cdcs https://cdcs.example.org/data?id=7 · FEI-Titan · strategy all · "
        f"export {ID}"
    ) == DELIVERED
    assert "portal retrying (transient): down for now" in WAITING


def test_two_exports_of_one_session_are_both_told() -> None:
    told = by_session([("s", ID, "delivered: a"), ("s", OTHER, "dead: b"), ("", ID, "nothing to do: finished")])
    assert list(told.values()) == ["delivered: a", "dead: b", "nothing to do: finished"]


def test_a_delivered_task_is_shown_line_by_line() -> None:
    # Given a task that succeeded
    task = SimpleNamespace(state="SUCCESS", result=repr({"session-1": DELIVERED}), exception=None)

    # When Flower shows it
    shown = format_task(task, nobody)

    # Then each place has a line with its address
    assert shown.state == "SUCCESS"
    assert shown.result.splitlines() == [
        "session-1: delivered: 1 of 1 delivered",
        "· cdcs https://cdcs.example.org/data?id=7",
        f"FEI-Titan · strategy all · export {ID}",
    ]


def test_a_task_whose_export_went_on_later_is_shown_as_the_export_stands_now() -> None:
    # Given a task that ended with a waiting export, which a later wake-up delivered
    task = SimpleNamespace(state="RETRY", result=None, exception=repr(WaitsInLedger({"s": WAITING})), traceback="…")

    # When Flower shows it
    shown = format_task(task, {ID: DELIVERED}.get)

    # Then it says both, and the colour is that of now
    assert shown.state == "SUCCESS"
    assert "s: delivered: 1 of 1 delivered (when this task ended: waiting: 1 of 2 delivered; portal:" in shown.result
    assert shown.exception is None
    assert shown.traceback is None


@pytest.mark.parametrize("answer", [nobody, lambda _: WAITING])
def test_a_task_whose_export_still_waits_is_to_be_retried(answer) -> None:
    task = SimpleNamespace(state="RETRY", result=None, exception=repr(WaitsInLedger({"s": WAITING})))
    shown = format_task(task, answer)
    assert shown.state == "RETRY"
    assert "when this task ended" not in shown.result


def test_of_several_exports_the_worst_decides_the_state() -> None:
    dead = tell_job(job(OTHER), ExportState.DEAD, "1 of 2 delivered")
    task = SimpleNamespace(state="FAILURE", result=None, exception=repr(NeedsPerson({"a": DELIVERED, "b": dead})))
    shown = format_task(task, nobody)
    assert shown.state == "FAILURE"
    assert "a: delivered" in shown.result
    assert "b: dead: 1 of 2 delivered" in shown.result


def test_every_state_of_an_export_has_a_word_of_celerys() -> None:
    assert CELERY_STATES.keys() == set(ExportState)


def test_no_secret_is_shown_even_if_a_destination_puts_one_into_an_address() -> None:
    hook = Delivery(state=DeliveryState.FAILED, error_kind="rejected", error_message="401 for token=tok-hush-1")
    text = tell_job(job(hook=hook), ExportState.DEAD, "0 of 1 delivered at https://me:hush@host/")
    shown = format_task(SimpleNamespace(result=repr({"s": text})), lambda _: text.replace("cdcs ", "api_key=hush "))
    assert "hush" not in text
    assert "hush" not in shown.result


def test_what_is_not_labrelays_is_shown_as_it_is() -> None:
    shown = format_task(SimpleNamespace(state="SUCCESS", result="[1, 2]", exception=None), nobody)
    assert (shown.state, shown.result) == ("SUCCESS", "[1, 2]")


def test_the_ledger_is_asked_again_after_a_moment_and_spared_while_it_is_away() -> None:
    # Given a ledger that answers, then is away, then has lost the export
    clock, answers, asked = [0.0], iter(["a", LedgerUnavailable(), NoSuchExport()]), []

    def ask(export_id: str) -> str:
        asked.append(export_id)
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    standing = Standing(ask, lambda: clock[0])

    # When it is asked twice at once, later, and later again
    assert [standing(ID), standing(ID)] == ["a", "a"]
    clock[0] = 3
    assert [standing(ID), standing(ID), standing(OTHER)] == [None, None, None]
    clock[0] = 60
    assert standing(ID) is None

    # Then it was asked three times
    assert asked == [ID, ID, ID]
