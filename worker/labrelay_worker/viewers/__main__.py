"""``python -m labrelay_worker.viewers KIND``: the viewer command where no console script is on the path."""

from labrelay_worker.viewers.commands import main

main()
