"""What every destination promises of odd sessions: names, files that are empty, missing, changed or too large."""

from __future__ import annotations

from pathlib import Path

import pytest

from labrelay.errors import Rejected, Transient
from labrelay_worker.conformance.destination_bench import Bench, demand
from labrelay_worker.conformance.destination_cases import DestinationCases, demand_found, failure_of
from labrelay_worker.conformance.destination_sessions import ODD_NAMES, Sessions

#: Bytes of a record that hardly anybody has a limit below, and that is more than one piece to stream.
_LARGE = 3 * 2**20


class OddSessions(DestinationCases):
    """The promises about sessions that are not ordinary."""

    @pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
    def test_an_odd_name_arrives(self, bench: Bench, sessions: Sessions, name: str) -> None:
        """Names as people give them arrive; what is shown of them can do nothing."""
        context = sessions.odd(name)
        bench.settle(context)
        demand("<script" not in bench.require_one(context).text, "a name reaches the page as markup: escape it")
        demand_found(bench, context)

    def test_names_that_become_alike_stay_two_sessions(self, bench: Bench, sessions: Sessions) -> None:
        """Two sessions whose names differ only in what a server cannot keep are two objects."""
        pair = [sessions.make(instrument_pid="One", session_identifier=name) for name in ("run a/b", "run a_b")]
        for context in pair:
            bench.settle(context)
        for context in pair:
            bench.require_one(context)
            demand_found(bench, context)

    def test_an_empty_file_is_a_file(self, bench: Bench, sessions: Sessions) -> None:
        """A data file of no bytes holds nothing up."""
        context = sessions.make(file=b"")
        bench.settle(context)
        bench.require_one(context)

    def test_an_empty_record_arrives_or_is_refused(self, bench: Bench, sessions: Sessions) -> None:
        """A record of no bytes cannot become right by trying again."""
        context = sessions.make(record=b"")
        error = failure_of(bench, context)
        if error is None:
            bench.require_one(context)
        else:
            demand(isinstance(error, Rejected), f"an empty record is reported as {error!r}, not as Rejected")

    def test_a_missing_record_is_waited_for(self, bench: Bench, sessions: Sessions) -> None:
        """A record that is not there may be on a share that is not mounted: it is tried again."""
        context = sessions.make()
        away = context.xml_file_path.rename(context.xml_file_path.with_suffix(".away"))
        error = failure_of(bench, context)
        demand(isinstance(error, Transient), f"a missing record is reported as {error!r}, not as Transient")
        demand(not bench.server.kept(context), "the server keeps an object of a session whose record is missing")
        away.rename(context.xml_file_path)
        bench.settle(context)
        bench.require_one(context)

    def test_a_missing_file_is_waited_for_where_it_is_sent(self, bench: Bench, sessions: Sessions) -> None:
        """A data file that is not there is waited for, or is not needed."""
        context = sessions.make()
        data = Path(context.activities[0].files[0])
        away = data.rename(data.with_suffix(".away"))
        error = failure_of(bench, context)
        demand(error is None or isinstance(error, Transient), f"a missing data file is reported as {error!r}")
        away.rename(data)
        if error is not None:
            bench.settle(context)
        bench.require_one(context)

    def test_a_changed_record_is_refused(self, bench: Bench, sessions: Sessions) -> None:
        """What was not submitted is not delivered."""
        context = sessions.make()
        context.xml_file_path.write_bytes(self.record("Another"))
        error = failure_of(bench, context)
        demand(isinstance(error, Rejected), f"a changed record is reported as {error!r}, not as Rejected")
        demand(not bench.server.kept(context), "the server keeps an object of a session whose record changed")

    def test_a_changed_file_is_refused_where_it_is_sent(self, bench: Bench, sessions: Sessions) -> None:
        """A data file that changed is refused for good, or is not needed."""
        context = sessions.make()
        Path(context.activities[0].files[0]).write_bytes(b"another")
        error = failure_of(bench, context)
        demand(error is None or isinstance(error, Rejected), f"a changed data file is reported as {error!r}")

    def test_a_large_record_arrives_or_is_refused_before(self, bench: Bench, sessions: Sessions) -> None:
        """A record above the limit is refused and nothing of it is kept; below, any size arrives."""
        comment = f"<!-- {'x' * ((self.too_large or _LARGE) + 1)} -->\n".encode()
        context = sessions.make(record=self.record("Large") + comment)
        if self.too_large is None:
            bench.settle(context)
            bench.require_one(context)
            return
        error = failure_of(bench, context)
        demand(isinstance(error, Rejected), f"a record above the limit is reported as {error!r}, not as Rejected")
        demand(
            not any(kept.record for kept in bench.server.kept(context)), "the server keeps a record above the limit"
        )
