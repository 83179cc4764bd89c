"""The JVM that ImageJ runs in: where its jars are, its classes by name, numpy arrays as Java's."""

from __future__ import annotations

import glob
import os
from typing import Any

import numpy as np

from labrelay.errors import Misconfigured

#: Where Linux distributions put ImageJ, and where people put Fiji.
USUAL_JARS = ("/usr/share/java/ij.jar", "/opt/Fiji.app/jars/ij-*.jar", "/opt/Fiji/jars/ij-*.jar")
CLASSPATH_VARIABLE = "LABRELAY_IMAGEJ_CLASSPATH"


def find_jars(classpath: str | None) -> list[str]:
    """Return the jars to load: those given, those of the environment, or the usual ones.

    Raises
    ------
    Misconfigured
        There are none; the text says how to name them.
    """
    given = classpath or os.environ.get(CLASSPATH_VARIABLE)
    patterns = given.split(os.pathsep) if given else USUAL_JARS
    jars = [jar for pattern in patterns for jar in sorted(glob.glob(pattern))]  # noqa: PTH207  class paths are texts
    if not jars:
        raise Misconfigured(
            f"no ImageJ at {', '.join(patterns)}: install it (Debian: apt-get install imagej default-jre), or name "
            f"its jars with --classpath or {CLASSPATH_VARIABLE}"
        )
    return jars


class Java:
    """The one JVM of this process, started with it: ``java("ij.IJ")`` is a class.

    Parameters
    ----------
    classpath
        Jars, separated as in PATH, wildcards allowed; None: see `find_jars`.
    """

    def __init__(self, classpath: str | None) -> None:
        import jpype  # noqa: PLC0415  starts a JVM, and only here

        self._jpype: Any = jpype
        if not jpype.isJVMStarted():
            jpype.startJVM("-Djava.awt.headless=false", classpath=find_jars(classpath), convertStrings=True)
        self._nothing: Any = jpype.JProxy("java.lang.Runnable", dict={"run": lambda: None})

    def __call__(self, name: str) -> Any:
        """Return a class."""
        return self._jpype.JClass(name)

    def array(self, numbers: np.ndarray[Any, Any]) -> Any:
        """Return a flat int8, int16, int32 or float32 array as Java's byte[], short[], int[] or float[]."""
        java = self._jpype
        types = {"i1": java.JByte, "i2": java.JShort, "i4": java.JInt, "f4": java.JFloat}
        return java.JArray(types[numbers.dtype.str[1:]])(numbers)

    def wait_for_events(self) -> None:
        """Return once what is queued for the windows is done, and what that has queued."""
        for _ in range(2):
            self("java.awt.EventQueue").invokeAndWait(self._nothing)
