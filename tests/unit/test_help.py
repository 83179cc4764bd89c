"""What `--help` lists: every command is told of in a whole sentence, also in a narrow terminal."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from labrelay.cli import main


def groups(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of a group of commands, and of those below it."""
    if not isinstance(command, click.Group):
        return
    yield path
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from groups(below, (*path, name))


@pytest.mark.parametrize("path", list(groups(main)), ids=" ".join)
def test_no_line_of_a_listing_is_cut_off(path: tuple[str, ...]) -> None:
    # Given a terminal of eighty columns
    listing = CliRunner().invoke(main, [*path, "--help"], terminal_width=80)
    # Then what each command does is there to its full stop
    commands = listing.output.partition("Commands:\n")[2].splitlines()
    assert commands
    assert [line for line in commands if not line.endswith(".") or line.endswith("...")] == []
