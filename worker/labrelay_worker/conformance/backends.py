"""What every backend promises, as suites to sub-class: `StorageConformance` and `StreamConformance`.

What a backend cannot do it says in its class attribute `cannot` (`labrelay_worker.backends.rules.CAPABILITIES`). The
tests of that capability then check that it refuses with Unsupported; none is left out.
"""

from __future__ import annotations

from labrelay_worker.conformance.backend_errors import AddressesAndErrors
from labrelay_worker.conformance.backend_folders import Folders
from labrelay_worker.conformance.backend_links import Links
from labrelay_worker.conformance.backend_lives import Lives
from labrelay_worker.conformance.backend_payloads import Payloads
from labrelay_worker.conformance.backend_streams import StreamConformance
from labrelay_worker.conformance.backend_writes import Writes

__all__ = ["StorageConformance", "StreamConformance"]


class StorageConformance(Payloads, Writes, AddressesAndErrors, Folders, Links, Lives):
    """Everything a `StorageBackend` promises. Sub-class it, name the class ``Test…``, and define `make`.

    Override `payload` when the backend cannot keep bytes, and `array_name` when arrays need another suffix.
    """
