"""Traffic of a small model, minute by minute, and the monitor that watches it."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from geluwatch.config import Config
from geluwatch.core.monitor import Identity, Monitor
from geluwatch.records import Baseline, Drained, Nonfinite, Report, Rows, Site, Window

LAYERS = ("encoder.0.act", "encoder.1.act", "encoder.2.act")
SITES = tuple(Site(layer, position, "module", "GELU", "erf") for position, layer in enumerate(LAYERS))
CHANNELS, ROWS = 16, 128
MINUTE = 60.0

NAN_AT_1 = Drained(
    forwards=1,
    nonfinite_forwards=1,
    nonfinite={LAYERS[1]: Nonfinite(1, 1, 0, {("pre", "nan"): 3}), LAYERS[2]: Nonfinite(1, 0, 0, {("pre", "nan"): 48})},
    first_nonfinite=LAYERS[1],
)


class Traffic:
    """A model's traffic and the monitor that watches it, minute by minute."""

    def __init__(self, seed: int = 0, sites: tuple[Site, ...] = SITES, **settings: object) -> None:
        self.rng = np.random.default_rng(seed)
        config = Config(**{"minimum_rows": 64, "horizons": (1, 4), **settings})  # type: ignore[arg-type]
        self.monitor = Monitor(Identity("minilm", "1", {"region": "eu"}, "test 0"), sites, config, 0.0)
        self.now = 0.0

    def batch(self, rows: int = ROWS, channels: int = CHANNELS, layers: tuple[str, ...] = LAYERS, **shift: float) -> Drained:
        """One forward; `shift` is the level at the layers named by their last number, as in `at_1=0.5`."""
        captured = []
        for layer in layers:
            level = shift.get(f"at_{LAYERS.index(layer)}", 0.0)
            before = self.rng.normal(level, 1, (rows, channels)).astype(np.float32)
            captured.append(Rows(layer, "float32", before, (before * ndtr(before)).astype(np.float32)))
        return Drained(forwards=1, sampled_forwards=1, samples=4, rows=tuple(captured), hook_seconds=1e-4, last_forward=self.now)

    def minute(self, *batches: Drained) -> None:
        """Ingest batches, a calm one by default, and close the window a minute later."""
        for drained in batches or (self.batch(),):
            self.monitor.ingest(drained)
        self.now += MINUTE
        self.monitor.close(self.now)

    def closed(self) -> Window:
        """Close the open window at once, and return it."""
        self.monitor.close(self.now)
        assert self.monitor._last is not None
        return self.monitor._last

    def report(self) -> Report:
        """What the monitor reports now."""
        return self.monitor.report(self.now)

    def armed(self, windows: int = 60) -> Baseline:
        """Record calm minutes as a baseline and arm it."""
        for _ in range(windows):
            self.minute()
        baseline = self.monitor.make_baseline("v1", self.now)
        self.monitor.arm(baseline)
        return baseline
