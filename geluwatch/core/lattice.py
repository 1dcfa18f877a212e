"""The universal float lattice: a value's cell is its float32 bit pattern, cut to its leading bits.

Cells are signed integers in the order of the values they hold. Cell 0 is exact zero (both signs); a positive value
with magnitude bits `m` (sign bit cleared) lies in cell ``(m >> (32 - bits)) + 1``, a negative one in the mirrored
negative cell. With 16 bits the cells are the bfloat16 numbers, with 19 bits they hold every float16 number apart.
The two are nested: dropping the low three bits of a 19-bit cell gives the 16-bit cell, so histograms of both
resolutions merge exactly. Nothing is fitted to data, so counts of any two processes, devices or years add up.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geluwatch.errors import LatticeError
from geluwatch.records import Cells, Floats

COARSE_BITS = 16
"""Resolution for float32, float64 and bfloat16 values; lossless for bfloat16."""

FINE_BITS = 19
"""Resolution for float16 values; lossless for them."""

_MAGNITUDE = np.int32(0x7FFFFFFF)
_INFINITY = 0x7F800000


def bits_for(dtype: str) -> int:
    """Return the resolution at which values of a tensor's dtype are counted."""
    return FINE_BITS if dtype == "float16" else COARSE_BITS


def on_lattice(values: npt.NDArray[np.float32], bits: int) -> bool:
    """Return whether every one of flat float32 values is a lattice point, so that a cell holds one value only."""
    return not int(np.bitwise_or.reduce(values.view(np.int32))) & ((1 << (32 - bits)) - 1)


def cell_limit(bits: int) -> int:
    """Return the largest cell number of a finite value; the smallest is its negative."""
    if bits not in {COARSE_BITS, FINE_BITS}:
        raise LatticeError(f"A lattice has {COARSE_BITS} or {FINE_BITS} bits, got {bits!r}.")
    return _INFINITY >> (32 - bits)


def cells_of(values: npt.NDArray[np.float32], bits: int) -> Cells:
    """Return the cells of finite values.

    Args:
        values: float32, any shape, finite.
        bits: 16 or 19.

    Returns:
        int32 cells of the same shape.
    """
    pattern = values.view(np.int32)
    cells = pattern & _MAGNITUDE
    nonzero = cells != 0
    cells >>= 32 - bits
    cells += nonzero
    np.negative(cells, out=cells, where=pattern < 0)
    return cells


def coarsen(cells: Cells) -> Cells:
    """Return the 16-bit cells that hold the given 19-bit cells."""
    magnitude = np.abs(cells)
    return np.where(cells == 0, 0, np.sign(cells) * (((magnitude - 1) >> (FINE_BITS - COARSE_BITS)) + 1)).astype(np.int32)


def lower_edges(cells: Cells, bits: int) -> Floats:
    """Return the smallest value, in magnitude, of each cell: the value itself where the data lay on the lattice."""
    magnitude = (np.maximum(np.abs(cells).astype(np.int64) - 1, 0) << (32 - bits)).astype(np.int32)
    return np.copysign(magnitude.view(np.float32).astype(np.float64), cells)


def edge_cells(edges: tuple[float, ...], bits: int, *, inclusive: bool) -> Cells:
    """Return for each edge the last cell that counts as "value <= edge".

    A cell above zero starts at its lattice point. With `inclusive`, for values on the lattice, that point's own
    cell counts; without it, for values in between, the cell above the edge does not.

    Raises:
        LatticeError: An edge is no finite lattice point, so that no exact count exists for it.
    """
    with np.errstate(over="ignore"):  # an edge beyond float32 becomes infinite and is refused below
        values = np.asarray(edges, dtype=np.float32)
    cells = cells_of(values, bits)
    for edge, point in zip(edges, lower_edges(cells, bits), strict=True):
        if edge != point or not np.isfinite(edge):
            raise LatticeError(
                f"Bucket edge {edge!r} is no finite point of the {bits}-bit lattice; the nearest towards 0 is {float(point)!r}."
            )
    return cells if inclusive else np.where(cells > 0, cells - 1, cells).astype(np.int32)
