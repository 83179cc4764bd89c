"""Options of ``[backends.NAME]``: the parameters of the backend's constructor, checked before it is called."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from labrelay.errors import InvalidInput


def required_options(cls: type) -> list[str]:
    """Return the options without which the class cannot be made."""
    return [option.name for option in _options(cls) if option.default is option.empty]


def check_options(cls: type, name: str, kind: str, options: Mapping[str, Any]) -> None:
    """Refuse options the class does not know, and the lack of one it needs.

    Parameters
    ----------
    cls
        The class to be made.
    name, kind
        Configured name and backend type, for the error.
    options
        What is to be passed to the constructor; values are never shown, they may be secrets.

    Raises
    ------
    InvalidInput
        Names the option and says which there are.
    """
    known = [option.name for option in _options(cls)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls).parameters.values())
    for option in options:
        if option not in known and not takes_any:
            cure = f"Its options are: {', '.join(known)}" if known else "It has no options"
            raise InvalidInput(f"backends.{name}.{option}", f"backend type {kind!r} has no such option", cure)
    for option in required_options(cls):
        if option not in options:
            raise InvalidInput(f"backends.{name}.{option}", f"backend type {kind!r} needs this option", "Set it")


def _options(cls: type) -> list[inspect.Parameter]:
    parameters = inspect.signature(cls).parameters.values()
    return [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
