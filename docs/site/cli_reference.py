"""The reference page of the command line, from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

import labrelay.cli


def page() -> str:
    """Return the page as Markdown."""
    codes = inspect.cleandoc(labrelay.cli.__doc__ or "").partition("\n\n")[2]
    parts = ["# Command line", codes, "Every command takes `--help`. Most take `--json`, for scripts."]
    for path, command in commands(labrelay.cli.main):
        parts.append(_section(path, command))
    return "\n\n".join(parts) + "\n"


def commands(group: click.Group, above: str = "labrelay") -> Iterator[tuple[str, click.Command]]:
    """Yield every command with the words that call it."""
    context = click.Context(group, info_name=above)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        yield f"{above} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{above} {name}")


def _section(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path)
    usage = " ".join(command.collect_usage_pieces(context))
    depth = "#" * min(path.count(" ") + 1, 4)
    lines = [f"{depth} `{path}`", f"```text\n{path} {usage}\n```", _prose(command.help or "")]
    rows = [row for option in command.get_params(context) if (row := _row(option, context))]
    if rows:
        lines.append("\n".join(["| option | meaning |", "|---|---|", *rows]))
    return "\n\n".join(lines)


def _row(parameter: click.Parameter, context: click.Context) -> str:
    record = parameter.get_help_record(context)
    if record is None or not record[1] or "--help" in parameter.opts:
        return ""
    return f"| `{_cell(record[0])}` | {_cell(record[1])} |"


def _prose(text: str) -> str:
    """Return a docstring as paragraphs; names that click shows as they are, as code."""
    return inspect.cleandoc(text).replace("*", r"\*").replace("<", r"\<")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("*", r"\*" if "`" not in text else "*")
