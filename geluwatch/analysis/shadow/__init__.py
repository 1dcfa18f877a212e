"""A shadow experiment: what would another form of GELU, a table, or int8 weights cost in accuracy, and save in time?

The same inputs go through the model as it is and through variants of it. All of them are copies; the model itself is not run, and nothing
in it changes. What comes out is measured, on these inputs and this machine: how far the outputs move and from which layer on, how many
answers change, what time is saved, and how many inputs an A/B test would need to see the difference.
"""

from __future__ import annotations

from geluwatch.analysis.shadow.result import Shadow, Timing, Variant
from geluwatch.analysis.shadow.run import shadow

__all__ = ["Shadow", "Timing", "Variant", "shadow"]
