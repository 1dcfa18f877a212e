"""evidently's DataDriftPreset with each series as a column; drift of any column.

With more than 1,000 values it takes the Wasserstein distance over the reference's deviation and calls .1 drift. Its verdict on the
whole data set asks for half of the columns, which one faulty layer never is; so columns count here. The score is the square of the
largest distance over .1. A report draws pictures for seconds a window, so its own function is called for the distance, and the first
window of each job goes through the report to see that it gives the same.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from _speak import Baseline, Scores, each_window, pooled, serve
from evidently import DataDefinition, Dataset, Report
from evidently.legacy.calculations.stattests import wasserstein_stat_test
from evidently.legacy.core import ColumnType
from evidently.presets import DataDriftPreset

LIMIT = 0.1
checked: list[float] = []


def frame(window: np.ndarray) -> Dataset:
    """Return a window as evidently's data set, a column for each series."""
    columns = {f"series {place}": values for place, values in enumerate(pooled(window))}
    return Dataset.from_pandas(pd.DataFrame(columns), data_definition=DataDefinition(numerical_columns=list(columns)))


def reported(window: np.ndarray, sample: np.ndarray) -> float:
    """Return the largest distance that a report gives."""
    found = Report([DataDriftPreset()]).run(frame(window), frame(sample)).dict()["metrics"]
    return max(float(metric["value"]) for metric in found if metric["metric_name"].startswith("ValueDrift"))


def fit(baseline: Baseline) -> Scores:
    """Return scores of one stream."""
    known = [pd.Series(values) for values in pooled(baseline.sample)]

    def see(window: np.ndarray) -> float:
        columns = zip(known, pooled(window), strict=True)
        worst = max(wasserstein_stat_test.func(then, pd.Series(now), ColumnType.Numerical, LIMIT)[0] for then, now in columns)
        if not checked:
            checked.append(reported(window, baseline.sample))
            if not np.isclose(worst, checked[0], rtol=1e-4):
                raise SystemExit(f"the report says {checked[0]}, its function {worst}")
        return float((worst / LIMIT) ** 2)

    return each_window(see)


if __name__ == "__main__":
    serve(fit, 1.0)
