"""A plugin that fails while it is imported."""

raise RuntimeError("cannot be imported")
