"""A real S3 service on this machine: moto's, in a thread of the test process."""

from __future__ import annotations

import logging
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}


@dataclass
class Gate:
    """What every changing request passes before it is carried out.

    Parameters
    ----------
    application
        The service.
    opening
        Called at each of them; what it raises becomes an error of the service.
    """

    application: Any
    opening: Callable[[], None] | None = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if self.opening is not None and environ["REQUEST_METHOD"] in {"PUT", "POST", "DELETE"}:
            self.opening()
        return self.application(environ, start_response)


@dataclass(frozen=True)
class Service:
    """A running service."""

    endpoint: str
    gate: Gate


@pytest.fixture(scope="session")
def s3_service() -> Iterator[Service]:
    """Return a running service."""
    from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    gate = Gate(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, gate, True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Service(f"http://127.0.0.1:{server.server_port}", gate)
    finally:
        server.shutdown()
        thread.join()


@pytest.fixture
def s3(s3_service: Service, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the options of a zarr backend on an empty bucket."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    urllib.request.urlopen(urllib.request.Request(f"{s3_service.endpoint}/{bucket}", method="PUT")).close()
    return {"root": f"s3://{bucket}/lab", "endpoint": s3_service.endpoint, "region": REGION}
