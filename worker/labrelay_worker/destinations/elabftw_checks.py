"""What an eLabFTW says about the settings before anything is sent to it: one exact sentence, or nothing."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

from labrelay.errors import DeliveryError, Rejected
from labrelay_worker.destinations.elabftw_api import ElabApi

CHECK_SECONDS = 10.0


@dataclass(frozen=True)
class Expected:
    """What the settings say."""

    api_key: str
    team: int | None
    category: int | None
    status: int | None
    tags: bool


async def what_is_wrong(api: ElabApi, expected: Expected) -> str | None:
    """Return what would keep an export from succeeding and what to do about it; None if nothing is known to."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await _first_fault(api, expected)
    except TimeoutError:
        return f"url: no answer within {CHECK_SECONDS:g} s"
    except DeliveryError as error:
        return str(error)


async def _first_fault(api: ElabApi, expected: Expected) -> str | None:
    info = await api.read("info")
    if not isinstance(info, dict) or "elabftw_version" not in info:
        return "url: somebody answers there, but it is no eLabFTW. Give the address as people open it"
    key = own_key(await api.read("apikeys"), expected.api_key)
    if key.get("can_write") == 0:
        return "api_key: it may only read. Make an API key with permission to write"
    team = key.get("team")
    if expected.team is not None and team not in (None, expected.team):
        return (
            f"team: the api_key belongs to team {team}, not {expected.team}. Make a key while that team is selected"
        )
    where = f"teams/{team or expected.team or 'current'}"
    for option, chosen in (("category", expected.category), ("status", expected.status)):
        kind = "experiments_categories" if option == "category" else "experiments_status"
        if chosen is not None and (fault := _unknown(option, chosen, await api.read(f"{where}/{kind}"))):
            return fault
    return await _team_rules(api, where, expected)


async def _team_rules(api: ElabApi, where: str, expected: Expected) -> str | None:
    try:
        team = await api.read(where)
    except Rejected:
        return None  # only admins may read it: then the first export tells
    if not isinstance(team, dict):
        return None
    if team.get("force_exp_tpl") == 1:
        return "team: it enforces templates for experiments. Switch that off, or use an api_key of another team"
    if expected.tags and team.get("user_create_tag") == 0 and not await _is_admin(api, team.get("id")):
        return "tags: users of the team may not create tags. Allow it, use an admin's api_key, or set tags = false"
    return None


async def _is_admin(api: ElabApi, team: object) -> bool:
    me = await api.read("users/me")
    teams = me.get("teams") if isinstance(me, dict) else None
    return any(one.get("id") == team and one.get("is_admin") == 1 for one in teams or () if isinstance(one, dict))


def own_key(rows: Any, api_key: str) -> dict[str, Any]:
    """Return the row of the key in use; empty if it cannot be told: keys of old versions do not begin with an id."""
    number = re.match(r"([0-9]+)-", api_key)
    if number is None or not isinstance(rows, list):
        return {}
    return next((row for row in rows if isinstance(row, dict) and str(row.get("id")) == number[1]), {})


def _unknown(option: str, chosen: int, rows: Any) -> str | None:
    known = {row["id"]: row.get("title") for row in rows if isinstance(row, dict) and "id" in row}
    if chosen in known:
        return None
    listed = ", ".join(f"{number} ({title})" for number, title in sorted(known.items())) or "none"
    return f"{option}: the team has no {option} {chosen}. Use one of: {listed}"
