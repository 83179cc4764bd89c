"""Destination `webhook`: HTTP POST of the context as JSON with the record attached."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urljoin

import aiohttp
from pydantic import Field, HttpUrl, SecretStr, field_validator

from labrelay.context import ExportContext
from labrelay.errors import Rejected, Transient
from labrelay.results import ExportResult
from labrelay_worker.destinations.base import Destination, Options
from labrelay_worker.http import HttpClient, listens
from labrelay_worker.http_answers import Answer, error_of
from labrelay_worker.tls import TlsOptions


class WebhookOptions(Options):
    """Options of ``type = "webhook"``."""

    url: HttpUrl = Field(description="where the context is posted to")
    token: SecretStr | None = Field(None, description="sent as Authorization: Bearer")
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="further headers, all kept secret")
    attach: Literal["multipart", "inline", "none"] = Field(
        "multipart",
        description="multipart: parts context and record; inline: JSON with the record as base64; none: JSON",
    )
    id_field: str = Field("id", description="field of the JSON answer that holds the record's id")
    url_field: str = Field("url", description="field of the JSON answer that holds the record's address")
    idempotent: bool = Field(
        False, description="the receiver honours Idempotency-Key, so a doubtful send may be sent again"
    )
    timeout: float = Field(60.0, gt=0, description="seconds for one request")
    tls: TlsOptions = Field(default_factory=TlsOptions)

    @field_validator("headers", mode="before")
    @classmethod
    def _from_environment(cls, value: Any) -> Any:
        """Accept JSON text, the only form that an environment variable can give a table in."""
        return json.loads(value) if isinstance(value, str) else value


class WebhookDestination(Destination):
    """Posts to any HTTP receiver; the key ``Idempotency-Key`` is the same for every try of one revision."""

    name = "webhook"
    priority = 50
    Options: ClassVar[type[Options]] = WebhookOptions

    def __init__(self, name: str, options: WebhookOptions) -> None:
        super().__init__(name, options)
        self.idempotent = options.idempotent
        self.timeout = options.timeout + 5  # the client's own timeout comes first and says more
        self._options: WebhookOptions = options
        headers = {key: value.get_secret_value() for key, value in options.headers.items()}
        if options.token is not None:
            headers["Authorization"] = f"Bearer {options.token.get_secret_value()}"
        self._http = HttpClient(tls=options.tls, timeout=options.timeout, headers=headers)

    def validate_config(self) -> tuple[bool, str | None]:
        """Return whether somebody listens at the address; nothing is sent, for a webhook knows nothing but POST."""
        return listens(str(self._options.url), timeout=min(10.0, self._options.timeout))

    async def export(self, context: ExportContext) -> ExportResult:
        """Post the context and take id and URL from the answer."""
        attach = self._options.attach
        record = b"" if attach == "none" else await asyncio.to_thread(_read_record, context)
        headers = {"Idempotency-Key": f"{context.delivery_key}.{self.name}"}
        if attach == "multipart":
            form = aiohttp.FormData()
            form.add_field("context", context.to_json(), content_type="application/json")
            form.add_field(
                "record", io.BytesIO(record), filename=context.xml_file_path.name, content_type="application/xml"
            )
            answer = await self._http.request("POST", str(self._options.url), headers=headers, data=form)
        else:
            headers["Content-Type"] = "application/json"
            body = self._json_body(context, record)
            answer = await self._http.request("POST", str(self._options.url), headers=headers, data=body)
        error = error_of(answer)
        if error is not None:
            raise error
        return self._result(answer)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    def _json_body(self, context: ExportContext, record: bytes) -> bytes:
        if self._options.attach == "none":
            return context.to_json().encode()
        document = {
            "context": json.loads(context.to_json()),
            "record": {
                "name": context.xml_file_path.name,
                "sha256": context.xml_sha256,
                "base64": base64.b64encode(record).decode(),
            },
        }
        return json.dumps(document, ensure_ascii=False).encode()

    def _result(self, answer: Answer) -> ExportResult:
        fields = answer.json()
        url = fields.get(self._options.url_field) or self._location(answer)
        record_id = fields.get(self._options.id_field)
        return self.succeeded(
            None if record_id is None else str(record_id),
            None if url is None else str(url),
            verified=f"answered HTTP {answer.status}",
        )

    def _location(self, answer: Answer) -> str | None:
        location = answer.headers.get("Location")
        return location and urljoin(str(self._options.url), location)


def _read_record(context: ExportContext) -> bytes:
    try:
        data = Path(context.xml_file_path).read_bytes()
    except OSError as error:
        raise Transient(f"cannot read {context.xml_file_path} on this worker ({error.strerror})") from None
    if context.xml_sha256 is not None and hashlib.sha256(data).hexdigest() != context.xml_sha256:
        raise Rejected(f"{context.xml_file_path} changed since it was submitted; submit it again with --replace")
    return data
