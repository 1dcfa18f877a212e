"""THE list of metrics: name, kind, unit, labels, help and profile, each exactly once; and the `le` edges.

Exporters take names from here, the mixin writes its queries from here, tests compare both with this list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from geluwatch.profiles import Profile

Kind = Literal["counter", "gauge", "histogram", "info"]

MODEL_LABELS = ("model", "model_version")
"""Labels on every metric, before the user's constant labels."""

PRE_EDGES: tuple[float, ...] = (
    -8.0, -6.0, -4.0, -3.0, -2.5, -2.0, -1.5, -1.25, -1.0, -0.75, -0.5, -0.25,
    0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0,
)  # fmt: skip
"""Bucket edges before the GELU. Each is a point of the 16-bit lattice, so bucket counts are exact."""

POST_EDGES: tuple[float, ...] = (
    -0.171875, -0.15625, -0.125, -0.09375, -0.0625, -0.03125, -0.015625,
    0.0, 0.03125, 0.0625, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0,
)  # fmt: skip
"""Bucket edges after the GELU; the first lies below the function's minimum of -0.16997."""

EDGES = {"pre": PRE_EDGES, "post": POST_EDGES}
"""The edges that every histogram of activations has, by point."""

FULL_EDGES: dict[str, tuple[float, ...]] = {
    "pre": tuple(sorted((
        *PRE_EDGES,
        -16.0, -7.0, -5.0, -3.5, -2.75, -2.25, -1.75, -1.375, -1.125, -0.875, -0.625, -0.375, -0.125,
        0.125, 0.375, 0.625, 0.875, 1.25, 1.75, 2.5, 3.5, 5.0, 7.0, 16.0,
    ))),
    "post": tuple(sorted((
        *POST_EDGES,
        -0.140625, -0.109375, -0.078125, -0.046875, -0.0234375, -0.0078125, -0.00390625,
        0.0078125, 0.015625, 0.046875, 0.09375, 0.1875, 0.375, 0.625, 0.875, 1.25, 1.75, 2.5, 3.5, 5.0, 7.0, 16.0,
    ))),
}  # fmt: skip
"""The edges of the full profile, at which every watch counts: those of `EDGES`, points between them, and the tails.

Each is a point of the coarsest lattice too, which has none between the first two after the GELU. So a histogram at
`EDGES` is this one with lines left out, and pods of different profiles agree at every edge that they share."""

LATENCY_EDGES: tuple[float, ...] = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Bucket edges of a forward pass's duration, seconds."""

BATCH_EDGES: tuple[float, ...] = tuple(float(1 << power) for power in range(13))
"""Bucket edges of batch sizes: the powers of two up to 4096."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family. `name` is the Prometheus family name, `_total` left out for counters."""

    name: str
    kind: Kind
    help: str
    unit: str = ""
    labels: tuple[str, ...] = ()
    profile: Profile = "lean"
    """The smallest profile that has it."""

    @property
    def series(self) -> str:
        """Name of the series as it appears in PromQL."""
        suffix = {"counter": "_total", "histogram": "_bucket", "info": "_info"}.get(self.kind, "")
        return self.name + suffix

    @property
    def otel_name(self) -> str:
        """Name in OpenTelemetry's style: dots, no unit, no `total`."""
        stem = self.name.removeprefix("geluwatch_")
        for unit in ("_seconds", "_ratio", "_bytes"):
            stem = stem.removesuffix(unit)
        return f"geluwatch.{stem}"


_POINT = ("layer", "point")

# Traffic
FORWARDS = Metric("geluwatch_forward_passes", "counter", "Forward passes of the watched model.", "{pass}")
SAMPLED_FORWARDS = Metric("geluwatch_sampled_forward_passes", "counter", "Forward passes from which rows were captured.", "{pass}")
SAMPLES = Metric("geluwatch_samples", "counter", "Batch entries in the watched forward passes.", "{sample}")
LAST_FORWARD = Metric("geluwatch_last_forward_timestamp_seconds", "gauge", "When the last watched forward pass ended.", "s")

FORWARD_SECONDS = Metric("geluwatch_forward_seconds", "histogram", "Host time of forward passes that returned, the outermost call; on an accelerator, the time until the call returned.", "s")
BATCH_SIZE = Metric("geluwatch_batch_size", "histogram", "Batch entries by forward pass, where the batch size could be read.", "{sample}")
TOKENS = Metric("geluwatch_tokens", "counter", "Valid tokens in the watched forward passes, by the attention mask where that can be read without waiting for a device, else by shape.", "{token}")
FAILED_FORWARDS = Metric("geluwatch_failed_forward_passes", "counter", "Forward passes that raised, for want of memory or otherwise.", "{pass}")
OUT_OF_MEMORY = Metric("geluwatch_out_of_memory_forward_passes", "counter", "Forward passes that raised for want of memory, of the host or of a device.", "{pass}")
FIRST_FORWARD = Metric("geluwatch_first_forward_duration_seconds", "gauge", "What the first forward pass that returned took.", "s")
COLD_START = Metric("geluwatch_cold_start_seconds", "gauge", "From attaching to the end of the first forward pass that returned.", "s")

# What the application reports: `Watch.note`
PREDICTIONS = Metric("geluwatch_predictions", "counter", "Predictions of which the application learned whether they were right; absent until it first reports some.", "{prediction}")
WRONG_PREDICTIONS = Metric("geluwatch_wrong_predictions", "counter", "Of those, predictions that were wrong; there from the same moment on.", "{prediction}")
ACCURACY = Metric("geluwatch_accuracy_ratio", "gauge", "Accuracy of the last evaluation that the application reported; absent until it does.", "1")
QUANTIZED_DELTA = Metric("geluwatch_quantized_accuracy_delta_ratio", "gauge", "Accuracy of the quantised model minus that of the original on the same calibration set, as last reported; negative where quantising costs accuracy; absent until reported.", "1")
COST = Metric("geluwatch_cost_per_hour", "gauge", "What an hour of this process costs, in the currency of whoever reports it; absent until reported.", "{currency}")

# Process and devices, as of the last flush
CPU_SECONDS = Metric("geluwatch_process_cpu_seconds", "counter", "Processor time of all threads of the process.", "s")
RESIDENT = Metric("geluwatch_process_resident_memory_bytes", "gauge", "Memory of the process that is really there.", "By")
MEMORY_USED = Metric("geluwatch_process_memory_used_bytes", "gauge", "Memory in use of that limit: by all processes of the control group that sets it, files that are only cached left out; else by this process.", "By")
MEMORY_LIMIT = Metric("geluwatch_process_memory_limit_bytes", "gauge", "Memory that the process may use: the limit of its control group, else what the machine has.", "By")
THREADS = Metric("geluwatch_process_threads", "gauge", "Threads of the process, those of libraries included.", "{thread}")
DEVICE_MEMORY = Metric("geluwatch_device_memory_bytes", "gauge", "Memory of tensors on a device, as the framework's allocator counts it.", "By", ("device",))
DEVICE_PEAK = Metric("geluwatch_device_memory_peak_bytes", "gauge", "The most memory of tensors on a device so far.", "By", ("device",))
DEVICE_LIMIT = Metric("geluwatch_device_memory_limit_bytes", "gauge", "Memory that a device has.", "By", ("device",))
DEVICE_BUSY = Metric("geluwatch_device_utilization_ratio", "gauge", "Share of the last moments in which a device was busy, with this process or any other.", "1", ("device",))

# Non-finite values
NONFINITE_FORWARDS = Metric("geluwatch_nonfinite_forward_passes", "counter", "Forward passes with a NaN or an Inf at a valid row of any GELU; every pass is checked.", "{pass}")
SITE_NONFINITE = Metric("geluwatch_site_nonfinite_forward_passes", "counter", "Forward passes with a NaN or an Inf at a valid row of this GELU.", "{pass}", ("layer",))
SITE_FIRST_NONFINITE = Metric("geluwatch_site_first_nonfinite_forward_passes", "counter", "Forward passes in which this GELU was the first with a NaN or an Inf.", "{pass}", ("layer",))
SITE_PADDING_NONFINITE = Metric("geluwatch_site_padding_nonfinite_forward_passes", "counter", "Forward passes with a NaN or an Inf at padding rows only; harmless.", "{pass}", ("layer",), profile="standard")
NONFINITE_ELEMENTS = Metric("geluwatch_nonfinite_elements", "counter", "NaN and Inf elements of valid rows, on the side of the GELU where they arose.", "{element}", ("layer", "point", "kind"), profile="standard")

# Training: gradients where they are watched, steps where the loop notes them
SITE_GRADIENTS = Metric("geluwatch_site_nonfinite_gradient_passes", "counter", "Backward passes with a NaN or an Inf in the gradient of this GELU's output; absent where gradients are not watched.", "{pass}", ("layer",), profile="standard")
SITE_FIRST_GRADIENTS = Metric("geluwatch_site_first_nonfinite_gradient_passes", "counter", "Backward passes in which this GELU's output was the first with a NaN or an Inf in its gradient, the one nearest to the loss.", "{pass}", ("layer",))
TRAINING_STEPS = Metric("geluwatch_training_steps", "counter", "Steps that the training loop noted.", "{step}")
NONFINITE_LOSSES = Metric("geluwatch_nonfinite_losses", "counter", "Training steps whose loss was NaN or infinite.", "{step}")
SKIPPED_STEPS = Metric("geluwatch_skipped_steps", "counter", "Training steps that the loss scaler skipped for gradients that were not finite: its scale fell.", "{step}")
SKIPPED_IN_A_ROW = Metric("geluwatch_skipped_steps_in_a_row", "gauge", "Training steps skipped one after the other, up to the last one.", "{step}")
LOSS_SCALE = Metric("geluwatch_loss_scale", "gauge", "The loss scaler's scale.", "1")

# Distribution since attach
VALUES = Metric("geluwatch_activation_value", "histogram", "Sampled activation values at equal edges everywhere; the +Inf bucket counts all but NaN.", "1", _POINT, profile="standard")
ELEMENTS = Metric("geluwatch_elements", "counter", "Sampled elements that were counted, non-finite ones included; of rows wider than 1,024 channels a part is.", "{element}", _POINT, profile="standard")
ABS_SUM = Metric("geluwatch_activation_abs_sum", "counter", "Sum of the magnitudes of the sampled finite values of one sign; pos minus neg is the sum.", "1", ("layer", "point", "sign"), profile="standard")
SQUARES = Metric("geluwatch_activation_squares", "counter", "Sum of the squares of the sampled finite values.", "1", _POINT, profile="standard")

# The last closed window
WINDOW_MEAN = Metric("geluwatch_window_mean", "gauge", "Mean of the last closed window.", "1", _POINT, profile="standard")
WINDOW_STD = Metric("geluwatch_window_stddev", "gauge", "Standard deviation of the last closed window.", "1", _POINT, profile="standard")
WINDOW_ROWS = Metric("geluwatch_window_rows", "gauge", "Rows captured in the last closed window.", "{row}", _POINT)
WINDOW_END = Metric("geluwatch_window_end_timestamp_seconds", "gauge", "When the last closed window ended.", "s")
WINDOWS = Metric("geluwatch_windows", "counter", "Windows closed.", "{window}")
KS = Metric("geluwatch_ks_distance_ratio", "gauge", "Kolmogorov-Smirnov distance of the last window from the baseline, certified lower end; explains, does not decide.", "1", _POINT)
KS_UPPER = Metric("geluwatch_ks_distance_upper_ratio", "gauge", "Certified upper end of the Kolmogorov-Smirnov distance.", "1", _POINT, profile="standard")
WASSERSTEIN = Metric("geluwatch_wasserstein_distance_ratio", "gauge", "Wasserstein distance of the last window from the baseline, over the baseline's standard deviation.", "1", _POINT, profile="standard")
MEAN_SHIFT = Metric("geluwatch_mean_shift_ratio", "gauge", "Mean of the last window minus the baseline's, over the baseline's standard deviation.", "1", _POINT, profile="standard")
SPREAD_SHIFT = Metric("geluwatch_log_spread_shift", "gauge", "Natural logarithm of the last window's standard deviation over the baseline's.", "1", _POINT, profile="standard")
TAIL = Metric("geluwatch_tail_ratio", "gauge", "Share of the last window beyond the baseline's quantiles of 0.1 % and 99.9 %; 0.002 when nothing has changed.", "1", _POINT, profile="standard")
GATE_CLOSED = Metric("geluwatch_gate_closed_ratio", "gauge", "Share of values before the GELU below -3 in the last window, where it gives next to nothing.", "1", ("layer",), profile="standard")
GATE_OPEN = Metric("geluwatch_gate_open_ratio", "gauge", "Share of values before the GELU above 3 in the last window, where it is the identity.", "1", ("layer",), profile="standard")
ZERO = Metric("geluwatch_zero_ratio", "gauge", "Share of exact zeros in the last window.", "1", _POINT, profile="standard")
PSI = Metric("geluwatch_population_stability_index", "gauge", "Population stability index of the last window on the baseline's deciles; for display, it decides nothing.", "1", _POINT, profile="standard")
SCORE = Metric("geluwatch_drift_score", "gauge", "Typical squared channel z against the baseline, at the horizon that surprises most; about 1 when calm.", "1", _POINT, profile="standard")
SURPRISE = Metric("geluwatch_drift_surprise", "gauge", "Negative decimal logarithm of the probability of the window in calm traffic, the most over horizons and over level, contrast, shift, scale and the largest of all channels.", "1", _POINT)
LIMIT = Metric("geluwatch_drift_limit", "gauge", "Surprise from which drift is a ticket or a page; absent while the baseline is too small for that tier.", "1", ("tier",))
EVIDENCE = Metric("geluwatch_drift_evidence_ratio", "gauge", "Surprise over the ticket's limit: drift from 1 on; average it over pods.", "1", _POINT)
ALARM = Metric("geluwatch_drift_alarm", "gauge", "1 while drift at this point is a ticket or a page, until its surprise has fallen below half of the ticket's limit.", "1", ("layer", "point", "tier"))
FIRST_DRIFT = Metric("geluwatch_drift_first_layer", "gauge", "1 for the layer where the present drift began; scope says whether the traffic moved all layers, the fault enters here (model), or the layers do not tell (unknown).", "1", ("layer", "scope"))
ONSET = Metric("geluwatch_drift_onset_timestamp_seconds", "gauge", "When the present drift of this layer began.", "s", ("layer",))
GROSS = Metric("geluwatch_gross_fault", "gauge", "1 where the last window is grossly wrong, baseline or not: dead, or with values that no GELU gives.", "1", ("layer", "fault"))
KERNEL_MISMATCH = Metric("geluwatch_kernel_mismatch", "gauge", "1 where values after the GELU are not those of its declared formula and dtype, as last measured.", "1", ("layer", "declared", "measured"))
KERNEL_ERROR = Metric("geluwatch_kernel_error_ulps", "gauge", "Error against the declared formula that 99 % of the values keep to, in units of last place.", "1", ("layer",))
HEADROOM = Metric("geluwatch_headroom_doublings", "gauge", "How often the largest magnitude of the last window can double before it exceeds its dtype; a binary logarithm, in bits.", "1", _POINT)
OVERFLOW_TIME = Metric("geluwatch_predicted_overflow_seconds", "gauge", "Time until values overflow if they go on growing at the rate of the last windows; absent without a sure trend.", "s", _POINT)
OVERFLOW = Metric("geluwatch_overflow_alarm", "gauge", "1 while an overflow lies ahead (ticket) or is near (page).", "1", ("layer", "point", "tier"))
BASELINE_CDF = Metric("geluwatch_baseline_cdf_ratio", "gauge", "The armed baseline's cumulative share at each edge of geluwatch_activation_value; in the lean profile at +Inf alone, which tells that the baseline has the layer.", "1", ("layer", "point", "le"))
VERDICT = Metric("geluwatch_verdict", "gauge", "1 for the verdict that holds now, 0 for the others.", "1", ("verdict",))

# The last replay of the armed baseline's probe; absent until there is one
PROBE_MOVED = Metric("geluwatch_probe_moved", "gauge", "1 where the probe gave other values than when the baseline was recorded, so that the model has changed; 0 where it gave the same; absent until it is replayed.", "1")
PROBE_FIRST = Metric("geluwatch_probe_first_difference_ratio", "gauge", "Relative difference at the first layer that the probe has moved: before its GELU (pre), or at the GELU itself (post); +Inf where there are no values to compare.", "1", _POINT)
PROBE_DIFFERENCE = Metric("geluwatch_probe_difference_ratio", "gauge", "Root mean squared difference of the probe's values from those stored, over their root mean square.", "1", _POINT, profile="standard")
PROBE_TIME = Metric("geluwatch_probe_timestamp_seconds", "gauge", "When the probe was last replayed.", "s")

# Census and baseline
LAYER_INDEX = Metric("geluwatch_layer_index", "gauge", "Place of the layer in the model's order, from 0.", "1", ("layer",))
SITE_OBSERVED = Metric("geluwatch_site_observed", "gauge", "1 where the GELU is observed, 0 where it is blind.", "1", ("layer",))
BASELINE_ARMED = Metric("geluwatch_baseline_armed", "gauge", "1 when a baseline is armed or a training run is followed, else 0.", "1")
BASELINE_TIME = Metric("geluwatch_baseline_timestamp_seconds", "gauge", "When the armed baseline was recorded.", "s")
BASELINE_WINDOWS = Metric("geluwatch_baseline_windows", "gauge", "Windows the armed baseline was calibrated on.", "{window}")
BASELINE_LOOKS = Metric("geluwatch_baseline_looks", "gauge", "Independent looks that those windows are worth at the horizon with fewest.", "1")
BASELINE_INFO = Metric("geluwatch_baseline", "info", "Name of the armed baseline.", "", ("baseline",))
BASELINE_ORIGIN = Metric("geluwatch_baseline_origin", "info", "What the armed baseline was recorded of, who signed it, and whether it stood promoted when it was armed.", "", ("weights", "dtype", "device_kind", "torch", "signer", "promoted"), profile="standard")
BUILD_INFO = Metric("geluwatch_build", "info", "Version of geluwatch and of the framework it watches.", "", ("version", "framework"))

# The agent itself
ATTACHED = Metric("geluwatch_attached_timestamp_seconds", "gauge", "When the agent was attached.", "s")
GELU_SECONDS = Metric("geluwatch_gelu_seconds", "counter", "Time of this GELU itself in timed passes, in the model's thread; on an accelerator the time to launch it. None is taken once torch.compile has been loaded.", "s", ("layer",))
TIMED_SECONDS = Metric("geluwatch_timed_pass_seconds", "counter", "Duration of the passes in which the time of every GELU was taken: sampled ones, in processes without a compiler.", "s")
HOOK_SECONDS = Metric("geluwatch_hook_seconds", "counter", "Time that row capture took in the model's own threads.", "s")
COST_BUDGET = Metric("geluwatch_hook_budget_ratio", "gauge", "Share of wall time that row capture may cost the model's threads; absent where no budget is set.", "1")
FLUSH_SECONDS = Metric("geluwatch_flush_seconds", "counter", "Time that the background thread spent folding observations.", "s")
DROPPED_ROWS = Metric("geluwatch_rows_dropped", "counter", "Captured rows dropped because too many were waiting.", "{row}")
ERRORS = Metric("geluwatch_errors", "counter", "Failures inside the agent, caught and counted, by part.", "{error}", ("part",))
PART_DISABLED = Metric("geluwatch_part_disabled", "gauge", "1 for a part of the agent that its breaker has switched off.", "1", ("part",))
PROFILE_INFO = Metric("geluwatch_profile", "info", "Which of the profiles lean, standard and full this exposition has.", "", ("profile",))
COLLECT_SECONDS = Metric("geluwatch_collect_duration_seconds", "gauge", "Time the last rendering of these metrics took.", "s")
EXPORTED_SERIES = Metric("geluwatch_exported_series", "gauge", "Series in this exposition.", "{series}")

PARTS = ("guard", "rows", "mask", "root", "meter", "gradients", "training", "ranges", "flush", "judge", "sink", "history", "incident", "probe", "collect")
"""Parts of the agent that fail, are counted and are switched off each on its own."""

KINDS = ("nan", "posinf", "neginf")
TIERS = ("ticket", "page")
FAULTS = ("dead", "impossible")
SIGNS = ("pos", "neg")

SUMMED = (FORWARD_SECONDS, BATCH_SIZE)
"""Histograms without negative edges, which have a sum and a count."""

EXPOSITION_METRICS = (COLLECT_SECONDS, EXPORTED_SERIES)
"""What describes the text in which the others are rendered: no report holds it, and OpenTelemetry does not get it."""

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""Every metric, in the order above."""
