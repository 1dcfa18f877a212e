"""The float lattice: order, nesting, losslessness, edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geluwatch.catalog import EDGES
from geluwatch.core import lattice
from geluwatch.errors import LatticeError

BOTH = (lattice.COARSE_BITS, lattice.FINE_BITS)
EXTREMES = [-3.4028234663852886e38, -1.401298464324817e-45, -0.0, 0.0, 1.401298464324817e-45, 1.1754943508222875e-38, 3.4028234663852886e38]

floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def array(values: list[float]) -> np.ndarray:
    """Values as float32."""
    return np.array(values, dtype=np.float32)


def every_float16() -> np.ndarray:
    """All finite float16 values, as float32."""
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    return values[np.isfinite(values)]


def every_bfloat16() -> np.ndarray:
    """All finite bfloat16 values, as float32."""
    values = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)
    return values[np.isfinite(values)]


@pytest.mark.parametrize("bits", BOTH)
@given(values=st.lists(floats32, min_size=2, max_size=50))
@example(values=EXTREMES)
def test_cells_are_monotone_in_the_value(bits: int, values: list[float]) -> None:
    """A larger value never lies in a lower cell, subnormals, zeros and the largest floats included."""
    cells = lattice.cells_of(np.sort(array(values)), bits)
    assert (np.diff(cells) >= 0).all()


@pytest.mark.parametrize("bits", BOTH)
@given(values=st.lists(floats32, min_size=1, max_size=50))
@example(values=EXTREMES)
def test_a_cell_holds_its_values_between_its_edges(bits: int, values: list[float]) -> None:
    """A magnitude is at least its cell's lower edge and below that of the next cell out; the sign is the cell's."""
    cells = lattice.cells_of(array(values), bits)
    magnitude = np.abs(array(values).astype(np.float64))
    assert (np.abs(lattice.lower_edges(cells, bits)) <= magnitude).all()
    away = np.sign(cells)
    nonzero = cells != 0
    assert (magnitude < np.abs(lattice.lower_edges((cells + away).astype(np.int32), bits)))[nonzero].all()
    assert (np.sign(array(values)) == away).all()


def test_both_zeros_share_cell_zero_alone() -> None:
    """Zero of either sign lies in cell 0, and the smallest subnormal does not."""
    assert lattice.cells_of(array([0.0, -0.0]), 16).tolist() == [0, 0]
    assert lattice.cells_of(array([EXTREMES[1], EXTREMES[4]]), 16).tolist() == [-1, 1]


@given(values=st.lists(floats32, min_size=1, max_size=50))
@example(values=EXTREMES)
def test_fine_cells_coarsen_to_coarse_cells(values: list[float]) -> None:
    """Dropping three bits of a 19-bit cell gives the value's 16-bit cell."""
    assert lattice.cells_of(array(values), 16).tolist() == lattice.coarsen(lattice.cells_of(array(values), 19)).tolist()


@pytest.mark.parametrize(("values", "bits"), [(every_float16(), 19), (every_bfloat16(), 16)], ids=["float16", "bfloat16"])
def test_every_low_precision_value_has_a_cell_of_its_own(values: np.ndarray, bits: int) -> None:
    """All finite float16 values at 19 bits, and all bfloat16 values at 16, are read back exactly from their cells."""
    cells = lattice.cells_of(values, bits)
    assert lattice.lower_edges(cells, bits).tolist() == values.astype(np.float64).tolist()
    assert np.unique(values).size == np.unique(cells).size
    assert lattice.on_lattice(values, bits)


@pytest.mark.parametrize("bits", BOTH)
def test_a_value_between_lattice_points_is_seen(bits: int) -> None:
    """One value with a bit below the lattice among many on it is enough to lose the mark of losslessness."""
    values = array([0.5, 1.0, -0.0, float(np.nextafter(np.float32(1), np.float32(2)))])
    assert lattice.on_lattice(values[:3], bits)
    assert not lattice.on_lattice(values, bits)


def test_the_dtype_decides_the_resolution() -> None:
    """Only float16 needs the fine lattice."""
    assert {name: lattice.bits_for(name) for name in ("float16", "bfloat16", "float32", "float64")} == {
        "float16": 19,
        "bfloat16": 16,
        "float32": 16,
        "float64": 16,
    }


@pytest.mark.parametrize(("bits", "limit"), [(16, 32_640), (19, 261_120)])
def test_the_largest_float_lies_in_the_last_cell(bits: int, limit: int) -> None:
    """The limit is the cell of the largest finite float, mirrored for the smallest."""
    assert limit == lattice.cell_limit(bits)
    assert lattice.cells_of(array([EXTREMES[0], EXTREMES[-1]]), bits).tolist() == [-limit, limit]


def test_other_resolutions_are_refused() -> None:
    """A lattice of 8 bits does not exist."""
    with pytest.raises(LatticeError, match="16 or 19 bits, got 8"):
        lattice.cell_limit(8)


@pytest.mark.parametrize("edge", [0.1, -0.1, 1.00390625, 1e-50, 1e39, float("inf"), float("-inf"), float("nan")])
def test_edges_off_the_lattice_are_refused(edge: float) -> None:
    """An edge between lattice points, or beyond the finite floats, has no exact count and is refused by name."""
    with pytest.raises(LatticeError, match=r"Bucket edge .* is no finite point of the 16-bit lattice"):
        lattice.edge_cells((0.5, edge), 16, inclusive=True)


@pytest.mark.parametrize("point", ["pre", "post"])
def test_the_catalogue_s_edges_are_lattice_points(point: str) -> None:
    """Every published bucket edge names a cell at both resolutions, in ascending order."""
    for bits in BOTH:
        assert (np.diff(lattice.edge_cells(EDGES[point], bits, inclusive=True)) > 0).all()


lattice_edges = st.integers(-32_640, 32_640).map(lambda cell: float(lattice.lower_edges(np.array([cell], np.int32), 16)[0]))


@given(edge=lattice_edges, values=st.lists(floats32, max_size=50))
def test_exclusive_edges_count_values_in_between_exactly(edge: float, values: list[float]) -> None:
    """For any floats the cells up to an exclusive edge hold the values <= edge, but those equal to a positive edge."""
    (end,) = lattice.edge_cells((edge,), 16, inclusive=False)
    drawn = array([*values, edge])
    expected = (drawn <= edge) & ~((drawn == edge) & (edge > 0))
    assert expected.tolist() == (lattice.cells_of(drawn, 16) <= end).tolist()


@given(edge=lattice_edges, cells=st.lists(st.integers(-32_640, 32_640), max_size=50))
def test_inclusive_edges_count_lattice_values_exactly(edge: float, cells: list[int]) -> None:
    """For values on the lattice the cells up to an inclusive edge hold the values <= edge, equality included."""
    (end,) = lattice.edge_cells((edge,), 16, inclusive=True)
    values = array([*lattice.lower_edges(np.array(cells, np.int32), 16), edge])
    assert (values <= edge).tolist() == (lattice.cells_of(values, 16) <= end).tolist()
