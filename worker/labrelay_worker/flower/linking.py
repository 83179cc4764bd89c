"""Make addresses of records links, and results readable in the list: Flower shows text as text, and cut off."""

from __future__ import annotations

from pathlib import Path

from tornado.template import Loader, Template

_END = b"</body>"
_STYLE = (
    b"<style>#tasks-table td.overflow-auto "
    b"{white-space: pre-line !important; max-width: none; min-width: 36rem; overflow-wrap: anywhere}</style>"
)


class LinkingLoader(Loader):
    """Loads Flower's templates, with a style and a script of ours at the end of every page.

    Parameters
    ----------
    root_directory
        Where Flower's templates are.
    """

    def __init__(self, root_directory: str) -> None:
        super().__init__(root_directory)
        script = Path(__file__).with_name("linking.js").read_bytes()
        self._added = _STYLE + b"<script>{% raw " + repr(script.decode()).encode() + b" %}</script>"

    def _create_template(self, name: str) -> Template:
        text = Path(self.root, name).read_bytes()
        return Template(text.replace(_END, self._added + _END), name=name, loader=self)
