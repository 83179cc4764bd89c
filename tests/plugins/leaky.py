"""A destination for tests whose every error text repeats its credentials, as careless code does."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from labrelay.context import ExportContext
from labrelay.results import ExportResult
from labrelay_worker.destinations.base import Destination, Options


class LeakyOptions(Options):
    """Its credentials, and a file: while it exists, the destination does not raise but reports its failures."""

    password: SecretStr
    reports_while: Path


class LeakyDestination(Destination):
    name = "leaky"
    Options = LeakyOptions
    idempotent = True

    def validate_config(self) -> tuple[bool, str | None]:
        return True, f"logged in with {self._password}"

    def export(self, context: ExportContext) -> ExportResult:
        text = (
            f"cannot log in with {self._password}: GET https://anna:{self._password}@host/?sig={self._password} "
            f"Authorization: Bearer {self._password} answered {{'token': '{self._password}'}}"
        )
        if self.options.reports_while.exists():
            told = {"error_kind": "rejected", "asked": text}
            return ExportResult(success=False, destination_name=self.name, error_message=text, metadata=told)
        raise RuntimeError(text) from ValueError(text)

    @property
    def _password(self) -> str:
        return self.options.password.get_secret_value()
