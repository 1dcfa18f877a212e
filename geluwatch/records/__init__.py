"""Frozen data that crosses layers; no behaviour beyond simple readings.

The way through: a `Source` yields `Drained` batches; the core folds them into `Window` records; windows make a
`Baseline`; every flush publishes one `Report`, which all readers share.
"""

from __future__ import annotations

from geluwatch.records.application import Application
from geluwatch.records.baseline import Baseline, Calm, Certificate, Reference
from geluwatch.records.evidence import Called, Evidence, KeptRows
from geluwatch.records.history import RESOLUTIONS, PointSummary, Resolution, Span, Summary
from geluwatch.records.names import POINTS, STATISTICS, VERDICTS, Alarm, Cells, Floats, Gross, Ints, Point, PointKey, State, Verdict
from geluwatch.records.numerics import Headroom, Parity
from geluwatch.records.observed import Drained, Histogram, Moments, Nonfinite, PointWindow, Rows, Site, Window
from geluwatch.records.probe import Bfloat16, LayerDifference, Origin, Probe, ProbeInput, ProbeResult, Tree
from geluwatch.records.provenance import Activation, BaselineOrigin, Provenance, Signature, Weights
from geluwatch.records.report import Interval, Panel, PointReport, PointTotals, Report, Totals
from geluwatch.records.traffic import DeviceUsage, FirstPass, Traffic, Usage
from geluwatch.records.training import Training

__all__ = [
    "POINTS",
    "RESOLUTIONS",
    "STATISTICS",
    "VERDICTS",
    "Activation",
    "Alarm",
    "Application",
    "Baseline",
    "BaselineOrigin",
    "Bfloat16",
    "Called",
    "Calm",
    "Cells",
    "Certificate",
    "DeviceUsage",
    "Drained",
    "Evidence",
    "FirstPass",
    "Floats",
    "Gross",
    "Headroom",
    "Histogram",
    "Interval",
    "Ints",
    "KeptRows",
    "LayerDifference",
    "Moments",
    "Nonfinite",
    "Origin",
    "Panel",
    "Parity",
    "Point",
    "PointKey",
    "PointReport",
    "PointSummary",
    "PointTotals",
    "PointWindow",
    "Probe",
    "ProbeInput",
    "ProbeResult",
    "Provenance",
    "Reference",
    "Report",
    "Resolution",
    "Rows",
    "Signature",
    "Site",
    "Span",
    "State",
    "Summary",
    "Totals",
    "Traffic",
    "Training",
    "Tree",
    "Usage",
    "Verdict",
    "Weights",
    "Window",
]
