"""NexusLIMS's own settings, as it finds them: the environment over ``.env``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from labrelay.errors import InvalidInput

PREFIX = "NX_"


def nexuslims_settings(env_file: Path | None = None) -> Mapping[str, str]:
    """Return every ``NX_*`` setting that has a value.

    Parameters
    ----------
    env_file
        Where NexusLIMS's settings are written; default: ``.env`` in this folder, if there is one.

    Raises
    ------
    InvalidInput
        The file named does not exist or is not text.
    """
    from dotenv import dotenv_values  # noqa: PLC0415  few need it

    if env_file is not None and not env_file.is_file():
        raise InvalidInput("--env-file", f"no such file {env_file}", "Name NexusLIMS's .env")
    try:
        written = dotenv_values(env_file or Path(".env"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(str(env_file or ".env"), f"cannot be read ({error})", "Make it readable UTF-8") from None
    found = {**written, **os.environ}
    return {name: value for name, value in found.items() if name.startswith(PREFIX) and value}
