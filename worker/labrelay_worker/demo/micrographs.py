"""Synthetic electron micrographs: pictures that a microscopist takes for what they are called."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIZE = 512

Micrograph = NDArray[np.uint16]
_Intensity = NDArray[np.float64]


def lattice_fringes(rng: np.random.Generator, *, pixel_nm: float, spacing_nm: float = 0.235) -> Micrograph:
    """Return crossed lattice fringes with an amorphous edge, as in a high-resolution image of a gold film.

    Parameters
    ----------
    rng
        Source of the noise and of the crystal's orientation.
    pixel_nm
        Size of a pixel.
    spacing_nm
        Distance of the fringes; the default is that of gold {111}.
    """
    y, x = _grid()
    first = rng.uniform(0, np.pi)
    fringes = np.zeros((SIZE, SIZE))
    for angle in (first, first + np.deg2rad(70.5)):  # the angle between two {111} planes of a cubic crystal
        phase = (x * np.cos(angle) + y * np.sin(angle)) * pixel_nm / spacing_nm
        fringes += np.cos(2 * np.pi * phase)
    edge = SIZE * 0.72 + 18 * np.sin(2 * np.pi * y / SIZE + rng.uniform(0, 6)) - 0.25 * y
    crystal = 1 / (1 + np.exp((x - edge) / 6))
    amorphous = _smooth(rng.normal(size=(SIZE, SIZE)), 2.2)
    return _expose(rng, 0.55 + 0.16 * fringes * crystal + 0.22 * amorphous, electrons=900)


def nanoparticles(rng: np.random.Generator, *, bright: bool, count: int = 45) -> Micrograph:
    """Return particles on a carbon film: bright on dark as in HAADF, or dark on bright as in bright field.

    Two calls with equally seeded generators show the same particles, as two detectors of one scan do.
    """
    y, x = _grid()
    thickness = np.zeros((SIZE, SIZE))
    for _ in range(count):
        cx, cy = rng.uniform(0, SIZE, 2)
        radius = rng.lognormal(2.7, 0.35)
        stretch, tilt = rng.uniform(0.8, 1.0), rng.uniform(0, np.pi)
        u = (x - cx) * np.cos(tilt) + (y - cy) * np.sin(tilt)
        v = (y - cy) * np.cos(tilt) - (x - cx) * np.sin(tilt)
        thickness += np.sqrt(np.clip(1 - (u**2 + (v / stretch) ** 2) / radius**2, 0, None)) * radius / 16
    film = 0.12 + 0.03 * _smooth(rng.normal(size=(SIZE, SIZE)), 5)
    density = film + np.clip(thickness, 0, 2.2)
    return _expose(rng, density if bright else np.exp(-0.9 * density), electrons=400)


def diffraction_rings(rng: np.random.Generator, *, pixels_per_reciprocal_nm: float) -> Micrograph:
    """Return the rings of polycrystalline gold round a bright direct beam."""
    y, x = _grid()
    radius = np.hypot(x - SIZE / 2 + rng.uniform(-6, 6), y - SIZE / 2 + rng.uniform(-6, 6))
    angle = np.arctan2(y - SIZE / 2, x - SIZE / 2)
    pattern = 2.2 * np.exp(-radius / 26) + 6 * np.exp(-((radius / 7) ** 2))
    for spacing_nm, strength in ((0.2355, 1.0), (0.2039, 0.5), (0.1442, 0.4), (0.1230, 0.45)):
        grains = 0.6 + 0.4 * np.cos(angle * rng.integers(9, 30) + rng.uniform(0, 6)) ** 2
        pattern += strength * grains * np.exp(-(((radius - pixels_per_reciprocal_nm / spacing_nm) / 2.4) ** 2))
    return _expose(rng, pattern, electrons=500)


def _grid() -> tuple[_Intensity, _Intensity]:
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    return y, x


def _smooth(noise: _Intensity, sigma: float) -> _Intensity:
    """Blur noise with a Gaussian of `sigma` pixels and bring it back to a deviation of one."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SIZE), np.fft.fftfreq(SIZE)))
    blurred = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-2 * (np.pi * sigma * frequency) ** 2)).real
    return np.asarray(blurred / blurred.std())


def _expose(rng: np.random.Generator, intensity: _Intensity, *, electrons: float) -> Micrograph:
    """Count electrons: shot noise is what makes a synthetic image look measured."""
    counts = rng.poisson(np.clip(intensity, 0, None) * electrons)
    return np.clip(counts + 100, 0, 2**16 - 1).astype(np.uint16)
