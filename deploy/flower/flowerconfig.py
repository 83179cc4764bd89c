"""For a Flower that something else starts: `celery -A labrelay_worker.app flower --conf=…/flowerconfig.py`.

`labrelay flower` and `labrelay up` take the same from the package, so that an installation from a wheel has it too.
Add options of your own below: https://flower.readthedocs.io/en/latest/config.html
"""

from labrelay_worker.flower.config import *  # noqa: F403
