"""Print the JSON Schema of an export context."""

import sys

from labrelay.schema import schema_text

sys.stdout.write(schema_text())
