"""A plugin that claims the name of a built-in one."""

from labrelay_worker.destinations.base import Destination


class PretenderDestination(Destination):
    name = "webhook"
