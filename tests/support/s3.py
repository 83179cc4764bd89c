"""A real S3 service on this machine: moto's server, in a thread of the test process."""

from __future__ import annotations

import logging
import urllib.request
import uuid
from collections.abc import Iterator

import pytest

REGION = "us-east-1"


@pytest.fixture(scope="session")
def s3_service() -> Iterator[str]:
    """Return the endpoint."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def s3(s3_service: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the options of a zarr backend on an empty bucket."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    urllib.request.urlopen(urllib.request.Request(f"{s3_service}/{bucket}", method="PUT")).close()
    return {"root": f"s3://{bucket}/lab", "endpoint": s3_service, "region": REGION}
