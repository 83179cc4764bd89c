"""Validation against a template's schema before anything is sent: CDCS answers 500 to what it refuses."""

from __future__ import annotations

import asyncio
import io
import logging
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from lxml import etree

from labrelay.errors import Rejected
from labrelay_worker.destinations.cdcs_record import RecordText, parsed

_logger = logging.getLogger(__name__)

_SCHEMAS_KEPT = 8
_FAULTS_SHOWN = 3


class Schemas:
    """The schemas of template versions, each fetched once: a version never changes.

    Parameters
    ----------
    fetch
        Returns the XSD of a template version by its id.
    """

    def __init__(self, fetch: Callable[[str], Awaitable[bytes]]) -> None:
        self._fetch = fetch
        self._known: OrderedDict[str, etree.XMLSchema | None] = OrderedDict()
        self._one_at_a_time = threading.Lock()

    async def require_valid(self, record: RecordText, template: str) -> None:
        """Check a record against a template version.

        Raises
        ------
        Rejected
            It does not fit; the text says where and why.
        """
        if template not in self._known:
            xsd = await self._fetch(template)
            self._known[template] = await asyncio.to_thread(_compiled, xsd, template)
            while len(self._known) > _SCHEMAS_KEPT:
                self._known.popitem(last=False)
        schema = self._known[template]
        if schema is None:
            return
        faults = await asyncio.to_thread(self._faults, schema, record)
        if not faults:
            return
        shown = "; ".join(f"line {line}: {message}" for line, message in faults[:_FAULTS_SHOWN])
        more = f" (and {len(faults) - _FAULTS_SHOWN} more)" if len(faults) > _FAULTS_SHOWN else ""
        raise Rejected(
            f"{record.name} does not fit the schema of CDCS template {template}: {shown}{more}."
            " Build the record again for that schema, or choose another template"
        )

    def _faults(self, schema: etree.XMLSchema, record: RecordText) -> list[tuple[int, str]]:
        root = parsed(record.text.encode())
        with self._one_at_a_time:  # a schema keeps the errors of the last document in itself
            if schema.validate(root):
                return []
            return [(int(entry.line), str(entry.message)) for entry in schema.error_log]  # type: ignore[attr-defined]


def _compiled(xsd: bytes, template: str) -> etree.XMLSchema | None:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        return etree.XMLSchema(etree.parse(io.BytesIO(xsd), parser))
    except (etree.XMLSchemaParseError, etree.XMLSyntaxError) as error:
        # A schema in several files, for instance. The server has them, and validates as well.
        _logger.warning(
            "the schema of CDCS template %s cannot be used here (%s); only the server checks records", template, error
        )
        return None
