"""What happens in the sample sessions: who sat at which instrument and what was recorded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Final


class Subject(Enum):
    """What a micrograph shows."""

    LATTICE = "lattice fringes"
    PARTICLES = "nanoparticles"
    RINGS = "diffraction rings"


@dataclass(frozen=True)
class Shot:
    """One data file; each signal of it is a dataset of its own in the record."""

    file_name: str
    subject: Subject
    pixel: float  # nm, or 1/nm of a diffraction pattern
    minute: int
    signals: tuple[str, ...] = ("BF",)

    @property
    def previews(self) -> tuple[str, ...]:
        """Names of the previews, one per signal, spelled as NexusLIMS does."""
        if len(self.signals) == 1:
            return (f"{self.file_name}.thumb.png",)
        return tuple(f"{self.file_name}_signal{number}.thumb.png" for number in range(len(self.signals)))


@dataclass(frozen=True)
class Scene:
    """A session as it is told again with every repetition: only its number and its day change."""

    instrument_pid: str
    instrument: str
    folder: str
    username: str
    full_name: str
    title: str
    motivation: str
    sample: str
    sample_description: str
    project: str
    setup: tuple[tuple[str, str, str], ...]  # name, value, unit
    activities: tuple[tuple[Shot, ...], ...]
    utc_offset: timedelta
    line_end: str


@dataclass(frozen=True)
class Session:
    """One sample session: a scene on a day, under the number that the reservation system gave it."""

    scene: Scene
    number: int
    start: datetime

    @property
    def end(self) -> datetime:
        """When the instrument was handed over."""
        return self.start + timedelta(hours=4)

    @property
    def identifier(self) -> str:
        """Session identifier as NEMO forms it."""
        return f"https://nemo.example.org/api/usage_events/?id={self.number}"

    @property
    def stem(self) -> str:
        """Name of its record without suffix, as NexusLIMS forms it."""
        return f"{self.start:%Y-%m-%d}_{self.scene.instrument_pid}_{self.number}"

    @property
    def folder(self) -> str:
        """Where its files lie under the instrument root, and its previews under the preview root."""
        return f"{self.scene.folder}/{self.scene.username}/{self.start:%Y%m%d}"


_TITAN: Final = Scene(
    instrument_pid="FEI-Titan-TEM-012345",
    instrument="FEI Titan 80-300",
    folder="Titan_TEM",
    username="zmueller",
    full_name="Zoë Müller",
    title="Gold nanoparticles on carbon: the 2.35 Å lattice",
    motivation="Do the particles keep their lattice below 5 nm?\nField of view about 0.25 µm.",
    sample="Au on C",
    sample_description="Gold nanoparticles (Ø 5 to 20 nm) on holey carbon",
    project="Catalysts for CO₂ reduction",
    setup=(
        ("Acceleration Voltage", "300", "kV"),
        ("Condenser Aperture", "50", "µm"),
        ("Cs", "1.2", "mm"),
        ("Illumination Mode", "STEM NANOPROBE", ""),
    ),
    activities=(
        (
            Shot("overview 01.tif", Subject.PARTICLES, 0.5, 12),
            Shot("survey.ome.tif", Subject.PARTICLES, 0.25, 25, ("HAADF", "BF")),
        ),
        (
            Shot("hrtem_001.mrc", Subject.LATTICE, 0.02, 71),
            Shot("saed_001.mrc", Subject.RINGS, 0.025, 94),
        ),
    ),
    utc_offset=timedelta(hours=1),
    line_end="\r\n",  # many instrument PCs run Windows, and a record must arrive byte for byte
)

_JEOL: Final = Scene(
    instrument_pid="JEOL-JEM-2100F-TEM-0071",
    instrument="JEOL JEM-2100F",
    folder="JEOL_TEM",
    username="hoersted",
    full_name="Håkon Ørsted",
    title="Grain size of a sputtered gold film, 20 Å steps",
    motivation="Relate the grain size to the deposition rate (Å/s).",
    sample="Au film",
    sample_description="Sputtered gold, nominally 0.02 µm thick, on Si₃N₄",
    project="Contacts for flexible electronics",
    setup=(
        ("Acceleration Voltage", "200", "kV"),
        ("Objective Aperture", "20", "µm"),
        ("Camera Length", "800", "mm"),
        ("Illumination Mode", "TEM", ""),
    ),
    activities=(
        (Shot("film 0.2µm.tif", Subject.PARTICLES, 0.4, 9),),
        (
            Shot("stem_pair.ome.tif", Subject.PARTICLES, 0.3, 48, ("HAADF", "BF")),
            Shot("lattice_a.mrc", Subject.LATTICE, 0.025, 77),
        ),
    ),
    utc_offset=timedelta(hours=-5),
    line_end="\n",
)

_SCENES: Final = (_TITAN, _JEOL)
_FIRST_NUMBER: Final = 1001


def sample_sessions(count: int) -> list[Session]:
    """Return the sessions of the samples, the scenes taking turns day by day."""
    sessions = []
    for index in range(count):
        scene = _SCENES[index % len(_SCENES)]
        first_day = datetime(2025, 3, 3, 9, 0, tzinfo=timezone(scene.utc_offset))
        sessions.append(Session(scene, _FIRST_NUMBER + index, first_day + timedelta(days=index)))
    return sessions
