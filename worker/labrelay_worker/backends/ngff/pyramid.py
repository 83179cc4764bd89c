"""Smaller versions of a plane: each pixel the mean of four. Pure."""

from __future__ import annotations

from typing import Any

#: Rows of the smaller plane that are made at once, so that what is added up stays in the processor's cache.
_BAND = 32


def halve(block: Any) -> Any:
    """Return a block with both sides of its planes halved; an odd last row or column is left out.

    Integers are rounded half up, logical values are true where any of the four is.
    """
    import numpy as np  # noqa: PLC0415

    rows, columns = block.shape[-2] // 2, block.shape[-1] // 2
    out = np.empty((*block.shape[:-2], rows, columns), block.dtype)
    adding = _any_of if block.dtype.kind == "b" else _Mean(block.dtype, columns)
    for index in np.ndindex(*block.shape[:-2]):
        plane, smaller = block[index][: rows * 2, : columns * 2], out[index]
        for top in range(0, rows, _BAND):
            adding(plane[top * 2 : (top + _BAND) * 2], smaller[top : top + _BAND])
    return out


def _any_of(rows: Any, out: Any) -> None:
    tall = rows[0::2] | rows[1::2]
    out[...] = tall[:, 0::2] | tall[:, 1::2]


class _Mean:
    """Means of four, with the memory for the sums of one band."""

    def __init__(self, dtype: Any, columns: int) -> None:
        import numpy as np  # noqa: PLC0415

        wide = np.dtype(_WIDER.get(dtype.str[1:], dtype))
        self._two, self._quarter = wide.type(2), None if dtype.kind in "iu" else wide.type(0.25)
        self._tall = np.empty((_BAND, columns * 2), wide)
        self._four = np.empty((_BAND, columns), wide)

    def __call__(self, rows: Any, out: Any) -> None:
        import numpy as np  # noqa: PLC0415

        tall, four = self._tall[: len(out)], self._four[: len(out)]
        np.add(rows[0::2], rows[1::2], out=tall, dtype=tall.dtype)
        np.add(tall[:, 0::2], tall[:, 1::2], out=four)
        if self._quarter is None:
            # 64-bit sums wrap around only above a quarter of the range, which no detector counts to.
            np.add(four, self._two, out=four)
            np.right_shift(four, self._two, out=four)
        else:
            np.multiply(four, self._quarter, out=four)
        out[...] = four


#: Types that hold the sum of four values.
_WIDER = {"u1": "u2", "i1": "i2", "u2": "u4", "i2": "i4", "u4": "u8", "i4": "i8", "f2": "f4"}
