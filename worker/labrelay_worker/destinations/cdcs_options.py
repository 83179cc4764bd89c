"""The options of ``type = "cdcs"``."""

from __future__ import annotations

from typing import Any

from pydantic import Field, HttpUrl, SecretStr, field_validator

from labrelay_worker.destinations.base import Options
from labrelay_worker.tls import TlsOptions


class CdcsOptions(Options):
    """Options of ``type = "cdcs"``."""

    url: HttpUrl = Field(description="address of the server, with the path it is served under, if any")
    token: SecretStr = Field(min_length=1, description="API token of the account that uploads")
    template: str | None = Field(
        None, description="title of the global template, or id of its current version; needed if there are several"
    )
    workspace: str | None = Field(
        None, description="title or id of the workspace records are published in; default: the global public one;"
        ' "": none, records stay private'
    )  # fmt: skip
    assign_owner: bool = Field(
        False, description="give each record to the person of its reservation; needs a superuser's token"
    )
    pid_prefix: str | None = Field(
        None, description="what this server's PIDs begin with, if it calls itself by another address than url"
    )
    max_record_mib: float = Field(64, gt=0, description="larger records are refused before they are sent")
    refresh_seconds: float = Field(
        60, ge=0, description="how long a worker remembers which templates and workspaces there are"
    )
    timeout: float = Field(60, gt=0, description="seconds for one request; a delivery makes about five")
    tls: TlsOptions = Field(
        default_factory=TlsOptions, description="how the server is trusted, and how labrelay proves itself"
    )

    @field_validator("template", "workspace", mode="before")
    @classmethod
    def _id_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
