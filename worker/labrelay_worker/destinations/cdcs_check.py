"""Whether a CDCS server can be delivered to as the options say: every wrong option by name, each with its cure."""

from __future__ import annotations

import asyncio

from labrelay.errors import DeliveryError, Misconfigured
from labrelay_worker.destinations.cdcs_answers import MissingRight
from labrelay_worker.destinations.cdcs_api import CdcsApi
from labrelay_worker.destinations.cdcs_options import CdcsOptions
from labrelay_worker.destinations.cdcs_owner import NEEDS_SUPERUSER
from labrelay_worker.destinations.cdcs_target import choose_template, choose_workspace
from labrelay_worker.http import HttpClient

#: Seconds in all: a probe must not hold up what it probes for.
_PATIENCE = 10.0


def headers_of(options: CdcsOptions) -> dict[str, str]:
    """Return what is sent with every request."""
    return {"Authorization": f"Token {options.token.get_secret_value()}", "Accept": "application/json"}


async def check(options: CdcsOptions) -> tuple[bool, str | None]:
    """Ask the server about every option; return whether all are right, and what is wrong if not."""
    try:
        async with asyncio.timeout(_PATIENCE):
            async with HttpClient(
                tls=options.tls, timeout=min(_PATIENCE, options.timeout), headers=headers_of(options)
            ) as http:
                wrong = await _wrong_options(CdcsApi(str(options.url), http), options)
    except TimeoutError:
        return False, f"the server did not answer within {_PATIENCE:g} s"
    except DeliveryError as error:
        return False, str(error)
    return not wrong, "; ".join(wrong) or None


async def _wrong_options(api: CdcsApi, options: CdcsOptions) -> list[str]:
    wrong = []
    templates = await api.templates()  # raises where nothing works at all: no server, no CDCS, no valid token
    workspaces = await api.workspaces()
    for choose in (
        lambda: choose_template(templates, options.template),
        lambda: choose_workspace(workspaces, options.workspace),
    ):
        try:
            choose()
        except Misconfigured as error:
            wrong.append(str(error))
    if options.assign_owner and not await _may_assign(api):
        wrong.append(NEEDS_SUPERUSER)
    return wrong


async def _may_assign(api: CdcsApi) -> bool:
    try:
        await api.users()
    except MissingRight:
        return False
    return await api.is_superuser()
