"""The universal float lattice: a value's cell is its float32 bit pattern, cut to its leading bits.

Cells are signed integers in the order of the values they hold. Cell 0 is exact zero (both signs); a positive value
whose magnitude has the cut bit pattern `m` (sign bit cleared) lies in cell ``(m >> (32 - base)) + 1``, a negative one
in the mirrored negative cell. Three bases cut patterns, each for one kind of tensor:

====  ========  ===============================================================================================
base  for       leading bits kept
====  ========  ===============================================================================================
16    bfloat16  16: every bfloat16 value has a cell of its own
19    float16   19: every float16 value has a cell of its own
24    float32   16, but 22 from -0.171875 to -0.15625, where values pile up after a GELU: one 16-bit cell at its
                minimum, -0.17, holds 3 % of them
====  ========  ===============================================================================================

A lattice may also have a floor: magnitudes below a power of two keep 12 bits only, eight cells an octave. They are
many cells and little mass. Float32's lattice has its floor at 1/256; a histogram that has grown too large gets a higher
one. The number that names a lattice, `bits`, is its base plus 64 times the biased exponent of its floor, none being 0.

Every base refines 16 bits and every floor coarsens to any higher one, so any two lattices have a common coarsening
(`meet`), and histograms of any two merge exactly. Nothing is fitted to data, so counts of any two processes, devices
or years add up.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from geluwatch.errors import LatticeError
from geluwatch.records import Cells, Floats

COARSE_BITS = 16
"""Lattice of bfloat16 values; lossless for them."""

FINE_BITS = 19
"""Lattice of float16 values; lossless for them."""

SINGLE_BASE = 24
"""Base of the lattice for float32 and float64 values."""

SINGLE_BITS = SINGLE_BASE + 64 * 119
"""Lattice of float32 and float64 values: base 24 with its floor at 2**(119 - 127)."""

DEEP = (0xBE20, 0xBE30)
"""Leading 16 bits of the patterns from -0.15625 to -0.171875, first and past the last."""

DEEP_BITS = 22
"""Leading bits that float32's lattice keeps there."""

HIGHEST_FLOOR = 255
"""Biased exponent of the floor above all finite values."""

_BASES = (COARSE_BITS, FINE_BITS, SINGLE_BASE)
_FLOOR_BITS = 12
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_SIGN = np.uint32(0x80000000)

Patterns = npt.NDArray[np.uint32]


def bits_for(dtype: str) -> int:
    """Return the lattice on which values of a tensor's dtype are counted."""
    return {"float16": FINE_BITS, "bfloat16": COARSE_BITS}.get(dtype, SINGLE_BITS)


def compose(base: int, floor: int) -> int:
    """Return the number of the lattice with a base and the biased exponent of a floor, 0 for none."""
    return base + 64 * floor


def split(bits: int) -> tuple[int, int]:
    """Return the base of a lattice and the biased exponent of its floor, 0 for none.

    Raises:
        LatticeError: There is no such lattice.
    """
    floor, base = divmod(bits, 64)
    if base not in _BASES or not 0 <= floor <= HIGHEST_FLOOR:
        raise LatticeError(f"A lattice has a base of 16, 19 or 24 bits and a floor of 0 to {HIGHEST_FLOOR}, got number {bits!r}.")
    return base, floor


def meet(left: int, right: int) -> int:
    """Return the finest lattice that both lattices can be coarsened to: commutative, associative, and itself of two equal ones."""
    if left == right:
        return left
    (base, floor), (other, higher) = split(left), split(right)
    return compose(base if base == other else COARSE_BITS, max(floor, higher))


@lru_cache(maxsize=32)
def _masks(bits: int) -> Patterns:
    """Return for each leading 16 bits of a pattern the mask of the bits that the lattice keeps."""
    base, floor = split(bits)
    kept = np.full(1 << 16, COARSE_BITS if base == SINGLE_BASE else base, np.int64)
    if base == SINGLE_BASE:
        kept[DEEP[0] : DEEP[1]] = DEEP_BITS
    leading = np.arange(1 << 16)
    kept[(leading & 0x7FFF) < floor << 7] = _FLOOR_BITS
    masks: Patterns = ((1 << 32) - (1 << (32 - kept))).astype(np.uint32)
    return masks


def _cut(patterns: Patterns, bits: int) -> Patterns:
    cut: Patterns = patterns & _masks(bits)[patterns >> np.uint32(16)]
    return cut


def on_lattice(values: npt.NDArray[np.float32], bits: int) -> bool:
    """Return whether every one of flat float32 values is a lattice point, so that a cell holds one value only."""
    patterns = values.view(np.uint32)
    base, _ = split(bits)
    # Nearly all float32 data fail at the first look, which costs a twentieth of the second.
    if int(np.bitwise_or.reduce(patterns)) & ((1 << (32 - base)) - 1):
        return False
    return bits in {COARSE_BITS, FINE_BITS} or bool((_cut(patterns, bits) == patterns).all())


def cells_of(values: npt.NDArray[np.float32], bits: int) -> Cells:
    """Return the int32 cells, of the same shape, of finite float32 values of any shape."""
    patterns = values.view(np.uint32)
    return _number(patterns, (patterns & _MAGNITUDE) != 0, bits)


def _number(patterns: Patterns, nonzero: npt.NDArray[np.bool_], bits: int) -> Cells:
    """Return the cells of patterns; those that were not zero before some cut are not in cell 0 after it."""
    cells = ((_cut(patterns, bits) & _MAGNITUDE) >> np.uint32(32 - split(bits)[0])).astype(np.int32)
    cells += nonzero
    np.negative(cells, out=cells, where=patterns >= _SIGN)
    return cells


def _patterns(cells: Cells, bits: int) -> Patterns:
    """Return the pattern at the end nearest zero of each cell."""
    magnitude = np.maximum(np.abs(cells), 1).astype(np.uint32) - np.uint32(1)
    magnitude <<= np.uint32(32 - split(bits)[0])
    np.bitwise_or(magnitude, _SIGN, out=magnitude, where=cells < 0)
    return magnitude


def coarsen(cells: Cells, bits: int, to: int) -> Cells:
    """Return the cells of lattice `to` that hold the given cells of the finer lattice `bits`."""
    return _number(_patterns(cells, bits), cells != 0, to)


def lower_edges(cells: Cells, bits: int) -> Floats:
    """Return the smallest value, in magnitude, of each cell: the value itself where the data lay on the lattice."""
    return _patterns(cells, bits).view(np.float32).astype(np.float64)


def midpoints(cells: Cells, bits: int) -> Floats:
    """Return the middle of each cell, cell 0's being 0; off any of its values by 2**-8 of it at most, 2**-4 below the floor."""
    inner = _patterns(cells, bits)
    outer = (inner | ~_masks(bits)[inner >> np.uint32(16)]).view(np.float32).astype(np.float64)
    return np.where(cells == 0, 0.0, 0.5 * (inner.view(np.float32).astype(np.float64) + outer))


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
            name = f"{split(bits)[0]}-bit lattice"
            raise LatticeError(f"Bucket edge {edge!r} is no finite point of the {name}; the nearest towards 0 is {float(point)!r}.")
    return cells if inclusive else np.where(cells > 0, cells - 1, cells).astype(np.int32)
