"""Put on PYTHONPATH, it sets a process's wall clock ``TEST_CLOCK_SKEW`` seconds ahead, or behind if negative."""

import os
import time

_real, _skew = time.time, float(os.environ["TEST_CLOCK_SKEW"])
time.time = lambda: _real() + _skew
