"""Put on PYTHONPATH, it sets a process's wall clock an hour ahead, as a worker with a wrong clock has it."""

import time

_real = time.time
time.time = lambda: _real() + 3600
