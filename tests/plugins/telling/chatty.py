"""A destination that logs as plugins do: with the standard library, in its thread, and of its own secret."""

from __future__ import annotations

import logging
import threading

from pydantic import SecretStr

from labrelay.context import ExportContext
from labrelay.results import ExportResult
from labrelay_worker.destinations.base import Destination, Options


class ChattyOptions(Options):
    """Its options."""

    token: SecretStr


class ChattyDestination(Destination):
    """Delivers nothing and tells of it; blocking, so it runs in a thread."""

    name = "chatty"
    Options = ChattyOptions

    def export(self, context: ExportContext) -> ExportResult:
        logger, token = logging.getLogger("chatty.client"), self.options.token.get_secret_value()
        logger.warning("%s sends with %s", threading.current_thread().name, token, extra={"bytes_sent": 17})
        try:
            raise ValueError("line one\nand " + token)
        except ValueError:
            logger.exception("it went wrong, for once")
        return self.succeeded("1", None, verified="by itself")
