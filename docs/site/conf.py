"""Settings of Sphinx. `make docs` builds from a folder that `assemble.py` puts together."""

import importlib.metadata

project = "labrelay"
author = "the labrelay authors"
version = release = importlib.metadata.version("labrelay")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["site/**"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# `Name` in a docstring is a name, with or without a page of its own.
default_role = "code"

#: They would make one dash of the two that begin an option.
smartquotes = False

html_theme = "furo"
html_title = f"labrelay {release}"
html_show_copyright = False
html_show_sphinx = False
# What people read is beside it; no need to ship the sources a second time.
html_copy_source = False
html_theme_options = {"source_view_link": "", "footer_icons": []}
