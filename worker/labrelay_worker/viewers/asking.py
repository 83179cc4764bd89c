"""One question to the viewer that runs, on a connection of its own."""

from __future__ import annotations

from typing import Any

from labrelay_worker.viewers.frames import Message
from labrelay_worker.viewers.link import Link, import_zmq
from labrelay_worker.viewers.places import Place


def ask(
    place: Place,
    question: str,
    answer: str,
    *,
    port: int | None = None,
    join: float = 5.0,
    seconds: float = 30.0,
    **fields: Any,
) -> Message:
    """Ask, and return the answer of this kind.

    Parameters
    ----------
    place, port
        Where the viewer is; see `Link`.
    question, answer
        Kinds of the two messages.
    join, seconds
        In which it must prove itself, and answer.
    fields
        Of the question.

    Raises
    ------
    ViewerAway
        There is no viewer of ours, or it did not answer in time.
    """
    context = import_zmq().Context()
    try:
        link = Link(context, place, port, join)
        try:
            return link.ask(Message(question, {"id": 0, **fields}), answer, seconds)
        finally:
            link.close()
    finally:
        context.term()
