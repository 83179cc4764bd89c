"""Where records go at a server: which template, which workspace, with which PIDs. Pure choices from what it tells.

The lists of a server have no fixed order, so nothing is ever chosen by its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from labrelay.errors import Misconfigured

_PID_PATH = "Experiment.@pid"


@dataclass(frozen=True)
class Template:
    """A template with the ids of its versions, as text."""

    title: str
    current: str
    versions: tuple[str, ...] = ()
    disabled: bool = False

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Template:
        """Take it from the entry of a version manager."""
        return cls(
            title=str(entry.get("title") or ""),
            current=str(entry.get("current") or ""),
            versions=tuple(str(version) for version in entry.get("versions") or ()),
            disabled=bool(entry.get("is_disabled")),
        )

    def __str__(self) -> str:
        return f"{self.title!r} (id {self.current})"


@dataclass(frozen=True)
class Workspace:
    """A workspace; the global one is public and nobody's."""

    workspace_id: str
    title: str
    is_public: bool = False
    is_global: bool = False

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Workspace:
        """Take it from the server's entry."""
        public = bool(entry.get("is_public"))
        return cls(
            workspace_id=str(entry.get("id") or ""),
            title=str(entry.get("title") or ""),
            is_public=public,
            is_global=public and entry.get("owner") is None,
        )

    def __str__(self) -> str:
        return f"{self.title!r} (id {self.workspace_id})"


@dataclass(frozen=True)
class PidSettings:
    """How a server gives PIDs to records."""

    automatic: bool
    path: str = _PID_PATH
    system: str = "local"
    prefix: str = "cdcs"
    pattern: str = ""

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> PidSettings:
        """Take it from ``pid/rest/settings/``; the names of its fields differ between versions."""
        systems, prefixes = entry.get("systems") or (), entry.get("prefixes") or ()
        return cls(
            automatic=bool(entry.get("auto_set_pid")),
            path=str(entry.get("path") or _PID_PATH),
            system=str(entry.get("system_name") or (systems[0] if systems else "local")),
            prefix=str(prefixes[0] if prefixes else "cdcs"),
            pattern=str(entry.get("format") or ""),
        )

    def takes(self, name: str) -> bool:
        """Return whether clients may bring PIDs that end in such a name."""
        if not self.automatic or self.path != _PID_PATH:
            return False
        try:
            return not self.pattern or re.fullmatch(self.pattern, name) is not None
        except re.error:
            return False


@dataclass(frozen=True)
class Target:
    """What was chosen.

    Parameters
    ----------
    template
        Its current version takes new records.
    workspace
        Where records are published; None: they stay private.
    pid_prefix
        What the PIDs of this server begin with, slash included; empty: labrelay brings none.
    """

    template: Template
    workspace: Workspace | None
    pid_prefix: str = ""


def choose_template(templates: Sequence[Template], wanted: str | None) -> Template:
    """Return the template by title or by the id of its current version; without a wish the only one that is usable.

    Raises
    ------
    Misconfigured
        There is none, or more than one; the text lists what there is.
    """
    usable = [template for template in templates if template.current and not template.disabled]
    listed = _listed(usable)
    if not wanted:
        if len(usable) == 1:
            return usable[0]
        if not usable:
            raise Misconfigured("option template: the server has no usable global template; upload or enable one")
        raise Misconfigured(
            f"option template: the server has {len(usable)} usable global templates; name one of: {listed}"
        )
    titled = [template for template in usable if template.title == wanted]
    if len(titled) > 1:
        raise Misconfigured(f"option template: {len(titled)} templates are titled {wanted!r}; give an id: {listed}")
    if titled:
        return titled[0]
    for template in usable:
        if template.current == wanted:
            return template
        if wanted in template.versions:
            raise Misconfigured(
                f"option template: version {wanted} of {template.title!r} is superseded by {template.current}; give"
                f" the title, which always means the current version, or {template.current}"
            )
    if any(wanted in (template.title, template.current) for template in templates):
        raise Misconfigured(f"option template: {wanted!r} is disabled at the server; enable it, or name: {listed}")
    raise Misconfigured(f"option template: the server has no global template {wanted!r}; it has: {listed}")


def choose_workspace(workspaces: Sequence[Workspace], wanted: str | None) -> Workspace | None:
    """Return the workspace by title or id; None asks for the global public one, empty for none.

    Raises
    ------
    Misconfigured
        There is no such workspace, or more than one; the text lists what there is.
    """
    if wanted == "":
        return None
    listed = _listed(workspaces)
    if wanted is None:
        fitting = [workspace for workspace in workspaces if workspace.is_global]
        name = "global public workspace"
    else:
        fitting = [workspace for workspace in workspaces if workspace.title == wanted]
        fitting = fitting or [workspace for workspace in workspaces if workspace.workspace_id == wanted]
        name = f"workspace {wanted!r} that this token can read"
    if len(fitting) == 1:
        return fitting[0]
    problem = f"there are {len(fitting)} of: " if fitting else "the server has no "
    raise Misconfigured(
        f"option workspace: {problem}{name}; give the id of one of: {listed}. Empty keeps records private"
    )


def pid_prefix(settings: PidSettings | None, base: str, wanted: str | None) -> str:
    """Return what the PIDs that labrelay brings begin with, or nothing.

    Parameters
    ----------
    settings
        What the server says of PIDs; None: nothing.
    base
        Address of the server, with a slash at its end.
    wanted
        The option; None: the server calls itself by the address that is used.
    """
    if settings is None or not settings.takes(f"LR-{UUID(int=0)}"):
        return ""
    return (wanted or f"{base}pid/rest/{settings.system}/{settings.prefix}").rstrip("/") + "/"


def _listed(things: Sequence[object]) -> str:
    return ", ".join(sorted(map(str, things))) or "none"
