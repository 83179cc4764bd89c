"""Flower's password where nobody chose one: made once, kept in a file that only its owner reads."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from labrelay_worker.settings import WorkerSettings

_USER = "labrelay"


def account_file(settings: WorkerSettings) -> Path:
    """Return where a made-up ``user:password`` is kept."""
    return settings.home / "flower" / "account"


def stored_account(settings: WorkerSettings) -> str | None:
    """Return the ``user:password`` of the settings, else the one made up earlier, else None."""
    if settings.flower_basic_auth is not None:
        return settings.flower_basic_auth.get_secret_value()
    try:
        return account_file(settings).read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None


def make_account(settings: WorkerSettings) -> str:
    """Make up a password, keep it, and return it as ``user:password``."""
    path = account_file(settings)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    account = f"{_USER}:{secrets.token_urlsafe(15)}"
    fresh = path.with_name("account.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{account}\n")
    fresh.replace(path)
    return account
