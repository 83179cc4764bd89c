"""The conformance suite of destinations: subclass it, say how yours is made, give a server, and run pytest.

    from labrelay_worker.conformance.destinations import HttpDestinationConformance, Kept, Server

    class TestShelf(HttpDestinationConformance):
        def make(self, url):
            return ShelfDestination("shelf", ShelfOptions(url=url, token="a-token-0123"))

        @pytest.fixture
        def server(self):
            with ShelfServer() as shelf:
                yield Server(shelf.url, lambda context: [Kept(book.record) for book in shelf.books_of(context)])

`docs/writing-a-destination.md` has the whole of it.
"""

from labrelay_worker.conformance.destination_bench import Kept, NotConforming, Server
from labrelay_worker.conformance.destination_promises import DestinationConformance
from labrelay_worker.conformance.destination_requests import HttpDestinationConformance

__all__ = ["DestinationConformance", "HttpDestinationConformance", "Kept", "NotConforming", "Server"]
