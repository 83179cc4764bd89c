"""A webhook for tests whose receiver can be asked: it does not honour keys, but knows what it has."""

import json
import urllib.parse

from labrelay.context import ExportContext
from labrelay.errors import Transient
from labrelay.results import ExportResult
from labrelay_worker.destinations.webhook import WebhookDestination
from labrelay_worker.http_answers import error_of


class FinderDestination(WebhookDestination):
    name = "finder"

    async def find(self, context: ExportContext) -> ExportResult | None:
        url = urllib.parse.urlsplit(str(self.options.url))
        query = urllib.parse.urlencode({"key": f"{context.delivery_key}.{self.name}", "path": url.path})
        answer = await self._http.request("GET", f"{url.scheme}://{url.netloc}/records?{query}")
        if answer.status == 404:
            return None
        if error := error_of(answer):
            raise error if isinstance(error, Transient) else Transient(str(error))
        found = json.loads(answer.body)
        return self.succeeded(found["id"], found["url"], verified="found by its key")
