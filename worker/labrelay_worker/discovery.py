"""Find plugins wherever they may be, one import at a time, so that a broken one takes no other down.

Both registries (backends and destinations) use this; it knows nothing of either.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from pathlib import Path
from types import MappingProxyType, ModuleType

from labrelay.errors import DuplicatePlugin, InvalidInput
from labrelay.redaction import redact

#: Modules of plugin folders live under this name, so that a plugin's ``numpy.py`` shadows nobody's numpy.
PLUGIN_NAMESPACE = "labrelay_plugins"

#: What each worker profile leaves out, in the words of a plugin's ``needs``.
PROFILES: Mapping[str, frozenset[str]] = MappingProxyType(
    {"": frozenset(), "headless": frozenset({"display", "jvm"})}
)

#: Import names whose package on the index is called otherwise.
_DISTRIBUTIONS = MappingProxyType(
    {
        "PIL": "pillow",
        "cv2": "opencv-python-headless",
        "jpype": "jpype1",
        "numcodecs": '"labrelay[zarr]"',
        "rsciio": "rosettasciio",
        "skimage": "scikit-image",
        "yaml": "pyyaml",
        "zarr": '"labrelay[zarr]"',
        "zmq": "pyzmq",
    }
)
_LONGEST_REASON = 300


@dataclass(frozen=True)
class UnavailablePlugin:
    """A plugin that cannot be used.

    Parameters
    ----------
    name
        What people call it: its key, file stem or entry-point name.
    source
        Where it was looked for: a module, an entry point, a file or folder.
    reason
        Why it cannot be used, on one line.
    cure
        What to do, as an imperative sentence.
    """

    name: str
    source: str
    reason: str
    cure: str

    def __str__(self) -> str:
        return f"{self.name} ({self.source}): {self.reason}. {self.cure}"


@dataclass(frozen=True)
class Discovery:
    """What was found, in the order of looking, and what could not be used."""

    found: list[tuple[str, object]] = field(default_factory=list)
    unavailable: list[UnavailablePlugin] = field(default_factory=list)


@dataclass(frozen=True)
class _Candidate:
    name: str
    source: str
    module: str
    load: Callable[[], object]


def discover(
    builtin_modules: Sequence[str],
    entry_point_group: str,
    directories: Sequence[Path],
    explicit: Sequence[str],
    *,
    on_failure: Callable[[str], None] | None = None,
) -> Discovery:
    """Import every plugin and report each as found or as unavailable with its reason.

    Built-ins come first, then entry points, folders and explicit names, so that what ships with labrelay
    keeps its name when a plugin claims the same one. Modules imported before are not imported again;
    those that failed are tried again, because their package may have been installed since.

    Parameters
    ----------
    builtin_modules
        Names of modules that ship with labrelay.
    entry_point_group
        Group of installed entry points, e.g. ``labrelay.backends``.
    directories
        Plugin folders: every ``*.py`` and every package folder in them whose name starts with neither
        ``_`` nor ``.``, by name. Such hidden files can be imported by their neighbours (``from . import _x``).
    explicit
        ``"package.module:Attribute"`` names from the settings.
    on_failure
        Called with the module name right after an import failed, so that a registry can take back what the
        module had registered before it failed.
    """
    result = Discovery()
    for candidate in _candidates(builtin_modules, entry_point_group, directories, explicit):
        if isinstance(candidate, UnavailablePlugin):
            result.unavailable.append(candidate)
            continue
        try:
            result.found.append((candidate.source, candidate.load()))
        # A plugin may raise anything while it is imported, and some scripts end with sys.exit().
        except (Exception, SystemExit) as error:  # noqa: BLE001
            if candidate.module not in sys.modules:
                _purge(candidate.module)
                if on_failure is not None:
                    on_failure(candidate.module)
            reason, cure = _explain(error)
            result.unavailable.append(UnavailablePlugin(candidate.name, candidate.source, reason, cure))
    return result


def check_profile(profile: str) -> None:
    """Refuse a profile that would do nothing.

    Raises
    ------
    InvalidInput
        The profile is not one of `PROFILES`.
    """
    if profile not in PROFILES:
        known = ", ".join(repr(name) for name in PROFILES if name)
        raise InvalidInput("LABRELAY_WORKER_PROFILE", f"no profile is called {profile!r}", f"Use {known} or none")


def left_out(plugin: object, profile: str) -> tuple[str, str] | None:
    """Return reason and cure when the profile leaves this plugin out for what its ``needs`` says, else None."""
    needs = frozenset(getattr(plugin, "needs", ())) & PROFILES[profile]
    if not needs:
        return None
    words = " and ".join(sorted(needs))
    return (
        f"left out by profile {profile} (it needs: {words})",
        "Unset LABRELAY_WORKER_PROFILE on a worker that has it",
    )


def _candidates(
    builtin_modules: Sequence[str], group: str, directories: Sequence[Path], explicit: Sequence[str]
) -> Iterator[_Candidate | UnavailablePlugin]:
    for module in builtin_modules:
        yield _Candidate(module.rpartition(".")[2], module, module, partial(importlib.import_module, module))
    # One distribution can be on the path twice (editable and installed): the set makes it one.
    for entry in sorted(set(importlib.metadata.entry_points(group=group))):
        yield _Candidate(entry.name, f"entry point {entry.value}", entry.module, entry.load)
    for directory in directories:
        yield from _in_folder(directory)
    for name in explicit:
        module, _, attribute = name.partition(":")
        if module and attribute:
            yield _Candidate(attribute, name, module, partial(_attribute, module, attribute))
        else:
            cure = "Write it as package.module:Attribute"
            yield UnavailablePlugin(name, "settings", f"{name!r} names no attribute of a module", cure)


def _attribute(module: str, attribute: str) -> object:
    return reduce(getattr, attribute.split("."), importlib.import_module(module))


def _in_folder(directory: Path) -> Iterator[_Candidate | UnavailablePlugin]:
    directory = directory.expanduser().resolve()
    try:
        paths = sorted(directory.iterdir())
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "the plugin folder does not exist" if missing else f"the plugin folder: {error.strerror}"
        yield UnavailablePlugin(directory.name, str(directory), reason, "Create it, or take it out of plugin_path")
        return
    package = _namespace(directory)
    seen: set[str] = set()
    for path in paths:
        is_package = (path / "__init__.py").is_file()
        if path.name.startswith(("_", ".")) or not (is_package or path.suffix == ".py"):
            continue
        stem = path.name if is_package else path.stem
        if "." in stem or stem in seen:
            problem = "has a dot in its name" if "." in stem else "has the same name as another plugin here"
            yield UnavailablePlugin(stem, str(path), f"the plugin file {problem}", "Rename it")
            continue
        seen.add(stem)
        module = f"{package}.{stem}"
        yield _Candidate(stem, str(path), module, partial(importlib.import_module, module))


def _namespace(directory: Path) -> str:
    """Make the parent modules that let the import system itself import from a plugin folder."""
    name = f"{PLUGIN_NAMESPACE}.{hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]}"
    for parent, path in ((PLUGIN_NAMESPACE, []), (name, [str(directory)])):
        sys.modules.setdefault(parent, ModuleType(parent)).__path__ = path
    # The import system remembers what a folder held; a file copied there since must be seen.
    importlib.invalidate_caches()
    return name


def _purge(module: str) -> None:
    """Forget sub-modules of a failed plugin package, so that a second try runs all of it again."""
    if module.startswith(f"{PLUGIN_NAMESPACE}."):
        for name in [name for name in sys.modules if name.startswith(f"{module}.")]:
            del sys.modules[name]


def missing_package(error: BaseException) -> tuple[str, str] | None:
    """Return the package that an import lacked and the command that installs it; None: something else is wrong."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    package = error.name.partition(".")[0]
    return None if _is_installed(package) else (package, f"pip install {_DISTRIBUTIONS.get(package, package)}")


def _explain(error: BaseException) -> tuple[str, str]:
    if (missing := missing_package(error)) is not None:
        package, install = missing
        return f"needs the package '{package}': {install}", f"Run: {install}"
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    text = redact(" ".join(f"{type(error).__name__}: {message}".split()).rstrip(": "))
    if len(text) > _LONGEST_REASON:
        text = f"{text[:_LONGEST_REASON]} …"
    cure = "Rename or remove one of them" if isinstance(error, DuplicatePlugin) else "Correct the plugin or remove it"
    return f"{text}{_place(error)}", cure


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # loaded, but made by hand and without a specification
        return True


def _place(error: BaseException) -> str:
    """Return file and line: the deepest line of the plugin's own file, not of the library it stumbled in."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}, line {error.lineno})"
    machinery = (__file__, importlib.__file__, importlib.metadata.__file__)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in machinery and not frame.filename.startswith("<frozen")
    ]
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
