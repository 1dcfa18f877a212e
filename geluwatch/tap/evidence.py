"""What is kept of a pass in which a NaN or an Inf was confirmed: some rows of the first site that was hit, and the call.

Only a confirmed hit comes here, on the CPU; the ordinary way through a pass knows nothing of it. A hit takes one of a few
places, whose number bounds the memory, and the drain gives the place back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from geluwatch.records import Called, Evidence, KeptRows
from geluwatch.tap import arguments
from geluwatch.tap._compat import transformed
from geluwatch.tap.rows import DTYPES, Captured, rows_of

if TYPE_CHECKING:
    from geluwatch.tap.shared import Tap
    from geluwatch.tap.state import ThreadState

PLACES = 4
"""Hits that may wait for the drain; those that find no place are counted as ever, and leave no rows."""

ROWS, GOOD_ROWS = 8, 4
"""Most rows kept of a hit that hold a non-finite value, and that do not; of the layer before it as many as of the first."""

MOST_BYTES = 2 * 2**20
"""Most memory of the rows of one hit; fewer are kept of very wide layers."""

_UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows as tensors: `places` (k,) int64, `pre` (k, C) or None, `post` (k, C)."""

    layer: str
    places: torch.Tensor
    pre: torch.Tensor | None
    post: torch.Tensor
    derived: bool

    def arrays(self) -> KeptRows:
        """Return them as arrays."""
        sides = [
            None if side is None else (side if side.dtype is torch.float64 else side.float()).numpy() for side in (self.pre, self.post)
        ]
        pre, post = sides
        assert post is not None  # noqa: S101  # for mypy: it was a tensor
        return KeptRows(self.layer, DTYPES[self.post.dtype], self.places.numpy(), pre, post, self.derived)


@dataclass(frozen=True, slots=True)
class _Hit:
    time: float
    shape: tuple[int, ...]
    bad_rows: int
    bad: _Rows
    good: _Rows
    before: _Rows | None
    mode: dict[str, Any]
    called: arguments.Kept | None


class Waiting:
    """Hits that wait for the drain, at most `PLACES`. Hooks add to it from many threads; both of its ends are atomic."""

    def __init__(self) -> None:
        self._free = deque(range(PLACES))
        self._hits: deque[_Hit] = deque()

    def keep(self, tap: Tap, state: ThreadState, site: int, pre: torch.Tensor, post: torch.Tensor) -> None:
        """Keep rows of a site's input and output (..., C), the first hit of a pass, if there is a place; a failure is counted."""
        if transformed(pre) or transformed(post):  # inside torch.func tensors stand for others, and have no memory
            return
        try:
            place = self._free.pop()
        except IndexError:
            return
        try:
            self._hits.append(_hit(tap, state, site, pre, post))
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            self._free.append(place)
            tap.breaker.trip("incident", error)

    def take(self, tap: Tap) -> Iterator[Evidence]:
        """Yield what waits, and give its places back."""
        while self._hits:
            hit = self._hits.popleft()
            self._free.append(0)
            try:
                yield _evidence(hit)
            except Exception as error:  # noqa: BLE001  # one hit must not cost the others, nor the drain
                tap.breaker.trip("incident", error)


def _hit(tap: Tap, state: ThreadState, site: int, pre: torch.Tensor, post: torch.Tensor) -> _Hit:
    layer, derived = tap.sites[site].layer, tap.sites[site].form == "gated"
    flat = [side.detach().reshape(-1, side.shape[-1] if side.dim() else 1) for side in (pre, post)]
    bad = ~(torch.isfinite(flat[0]) & torch.isfinite(flat[1])).all(dim=1)
    valid = tap.mask(state, post)
    places = (bad if valid is None else bad & valid).nonzero().squeeze(1)
    good = (~bad if valid is None else ~bad & valid).nonzero().squeeze(1)
    fit = MOST_BYTES // max(2 * flat[1].shape[1] * flat[1].element_size(), 1)

    def rows(chosen: torch.Tensor) -> _Rows:
        # Where the output was written over the input, or may have been, the two are one tensor.
        before = None if pre.data_ptr() == post.data_ptr() else rows_of(flat[0], chosen)
        return _Rows(layer, chosen, before, rows_of(flat[1], chosen), derived)

    return _Hit(
        time=tap.clock.time(),
        shape=tuple(post.shape),
        bad_rows=places.numel(),
        bad=rows(places[: min(ROWS, fit)]),
        good=rows(good[: min(GOOD_ROWS, max(fit - ROWS, 0))]),
        before=_before(state, layer, places),
        mode=_mode(),
        called=arguments.keep(state.call, whole=tap.config.incident_inputs and not state.spoken) if state.depth else None,
    )


def _before(state: ThreadState, layer: str, bad: torch.Tensor) -> _Rows | None:
    """Return rows captured last in this pass, at another layer; those that are bad now come first."""
    kept: Captured | None = state.kept
    if kept is None or kept.layer == layer or ROWS * kept.nbytes > MOST_BYTES * len(kept.pre):
        return None
    drawn = list(state.indices.values())
    places = drawn[0] if len(drawn) == 1 and len(drawn[0]) == len(kept.pre) else torch.full((len(kept.pre),), _UNKNOWN, device="cpu")
    first = torch.isin(places, bad).logical_not().to(torch.int8).argsort(stable=True)[:ROWS]
    return _Rows(kept.layer, places[first], kept.pre[first], kept.post[first], kept.derived)


def _mode() -> dict[str, Any]:
    autocast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
    return {
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": "" if autocast is None else str(autocast).removeprefix("torch."),
    }


def _evidence(hit: _Hit) -> Evidence:
    return Evidence(
        time=hit.time,
        shape=hit.shape,
        bad_rows=hit.bad_rows,
        bad=hit.bad.arrays(),
        good=hit.good.arrays() if len(hit.good.places) else None,
        before=None if hit.before is None else hit.before.arrays(),
        mode=hit.mode,
        called=None if hit.called is None else Called(hit.called.tree, hit.called.arrays(), hit.called.whole),
    )
