"""Flower's own settings file (``--conf``): how tasks are shown, and the password taken from a secret's file.

What stands here is set over the environment, what stands on the command line is set over this. Flower takes the names
it knows: `format_task`, `tasks_columns`, `basic_auth`.
"""

from __future__ import annotations

import os
from typing import Any

from flower.urls import settings as _tornado

from labrelay_worker.flower.display import format_task as _format_task
from labrelay_worker.flower.launch import read_auth_file as _read_auth_file
from labrelay_worker.flower.linking import LinkingLoader as _LinkingLoader
from labrelay_worker.flower.standing import ledger_standing as _ledger_standing
from labrelay_worker.settings import load_worker_settings as _load_worker_settings

_standing = _ledger_standing(_load_worker_settings())

# What a task did to which sessions comes first; its arguments say less, and stand on its own page.
tasks_columns = "state,result,received,runtime,worker,uuid"


def format_task(task: Any) -> Any:
    """Show a task's exports as they stand."""
    return _format_task(task, _standing)


_tornado["template_loader"] = _LinkingLoader(_tornado["template_path"])

# A secret's file keeps the password out of the process list and of `docker inspect`.
_auth_file = os.environ.get("FLOWER_BASIC_AUTH_FILE")
if _auth_file:
    basic_auth = _read_auth_file(_auth_file)
