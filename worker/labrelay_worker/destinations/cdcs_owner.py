"""The CDCS account of the person who measured: found by username or e-mail, or created, exactly once."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from labrelay.context import ReservationEvent
from labrelay.errors import Misconfigured, Rejected
from labrelay_worker.destinations.account import Account
from labrelay_worker.destinations.cdcs_answers import MissingRight
from labrelay_worker.destinations.cdcs_api import CdcsApi

NEEDS_SUPERUSER = (
    "option assign_owner: it needs a superuser's token: only such an account lists and creates users, gives records"
    " to them and still finds those records afterwards. Use one, or set assign_owner = false"
)
#: Django's rule for usernames.
_USERNAME = re.compile(r"[\w.@+-]{1,150}")


def user_of(reservation: ReservationEvent, users: Sequence[dict[str, str]]) -> str | None:
    """Return the id of the person's account, or None if there is none.

    The username wins; an e-mail address counts only if a single account has it, for CDCS does not keep them unique.
    """
    for user in users:
        if reservation.username and user["username"] == reservation.username:
            return user["id"]
    email = (reservation.user_email or "").strip().casefold()
    holders = [user["id"] for user in users if email and user["email"].strip().casefold() == email]
    return holders[0] if len(holders) == 1 else None


async def find_user(api: CdcsApi, reservation: ReservationEvent) -> str | None:
    """Return the id of the account of whoever reserved, None if there is none.

    Raises
    ------
    Misconfigured
        The token may not list users.
    """
    try:
        return user_of(reservation, await api.users())
    except MissingRight:
        raise Misconfigured(NEEDS_SUPERUSER) from None


async def find_or_create_user(api: CdcsApi, account: Account, reservation: ReservationEvent) -> str:
    """Return the id of the account of whoever reserved, made if need be.

    Raises
    ------
    Misconfigured
        The token may not.
    Rejected
        There is no account, and CDCS would refuse to make one under this name.
    """
    if not await api.is_superuser():
        raise Misconfigured(NEEDS_SUPERUSER)
    found = await find_user(api, reservation)
    if found is not None:
        return found
    if not _USERNAME.fullmatch(reservation.username or ""):
        raise Rejected(
            f"reservation_event.username {reservation.username!r} cannot be a CDCS username (letters, digits and"
            " @.+-_, at most 150); make an account with that person's e-mail address in CDCS, or correct the"
            " reservation"
        )
    # By name and e-mail alike somebody else's export may be about to make this very account.
    async with account.lock("cdcs users"):
        found = await find_user(api, reservation)
        return found if found is not None else await _create(api, reservation)


async def _create(api: CdcsApi, reservation: ReservationEvent) -> str:
    fields = {
        "username": reservation.username or "",
        "email": reservation.user_email or "",
        "first_name": reservation.user_first_name or "",
        "last_name": reservation.user_last_name or "",
        # Nobody knows it: the person logs in by the server's own means or asks for a new one.
        "password": secrets.token_urlsafe(32),
    }
    try:
        created = await api.create_user({name: value for name, value in fields.items() if value})
    except MissingRight:
        raise Misconfigured(NEEDS_SUPERUSER) from None
    except Rejected as error:
        # Somebody outside of labrelay was quicker, or the server's rules for names are stricter.
        found = await find_user(api, reservation)
        if found is None:
            raise Rejected(f"user {reservation.username!r} cannot be made: {error}") from None
        return found
    found = created or await find_user(api, reservation)
    if not found:
        raise Rejected(f"user {reservation.username!r} was made, but the server does not list it")
    return found
