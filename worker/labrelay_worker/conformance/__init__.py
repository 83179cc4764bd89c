"""Contract suites for plugins, run by pytest: sub-class one, say how to make yours, and it is tested.

    from labrelay_worker.conformance.backends import StorageConformance

    class TestTape(StorageConformance):
        def make(self, folder):
            return TapeBackend(folder)

pytest is needed by this package alone; nothing else in labrelay imports it.
"""

from pathlib import Path

import pytest

# Else a failing check would say "assert False" instead of what differed.
pytest.register_assert_rewrite(*(f"{__name__}.{path.stem}" for path in Path(__file__).parent.glob("[a-z]*.py")))
