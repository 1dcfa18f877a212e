"""The stories that the rule tests tell, alert by alert."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.alerts import Alert, alerts
from geluwatch.mixin.ruletests import Case, Check, Expected, Scale, absent, flat, gone, name, ramp
from geluwatch.mixin.settings import MixinSettings

_MODEL = {"namespace": "serving", "job": "inference", "model": "minilm"}
_INCIDENT = {**_MODEL, "model_version": "1"}
_FIRST_HOST, _SECOND_HOST = "10.0.0.7:9464", "10.0.0.8:9464"
_POD = {**_INCIDENT, "instance": _FIRST_HOST}
_OTHER_POD = {**_INCIDENT, "instance": _SECOND_HOST}
_BUILD = {"version": "1.0.0", "framework": "torch"}
_LAYERS = tuple(f"encoder.layer.{index}.act" for index in range(7))


def cases(settings: MixinSettings) -> tuple[Case, ...]:
    """Return every case, in the order of the alerts."""
    written = {"GeluwatchNonFiniteActivations": _nonfinite, "GeluwatchActivationDrift": _drift}
    written |= {"GeluwatchAgentMissing": _agent_missing, "GeluwatchBaselineMissing": _baseline_missing}
    scale = Scale(settings)
    return tuple(case for alert in alerts(settings) for case in written[alert.name](alert, scale))


def _nonfinite(alert: Alert, scale: Scale) -> tuple[Case, ...]:
    window, kept = scale.steps(scale.settings.rate_window), scale.steps(scale.settings.keep_firing_for)
    start = 2 * window
    run = start + 2 * window + kept + 4
    agent = {name(catalog.BUILD_INFO, **_POD, **_BUILD): flat(1, run), **_layer_indices(run)}

    def jump(value: float, by: float) -> str:
        return f"{flat(value, start)} {flat(value + by, run - start)}"

    def says(passes: int, layer: str | None, agent: str | None = _FIRST_HOST) -> tuple[Expected, ...]:
        first = f", first at layer {layer}" if layer else ""
        text = f"Model minilm version 1 had NaN or Inf in {passes} forward passes within {scale.settings.rate_window}{first}."
        return (Expected(_INCIDENT, text, agent),)

    return (
        Case(
            alert,
            "pages at once, one page for all pods, and names the layer that was first most often",
            {
                **agent,
                name(catalog.NONFINITE_FORWARDS, **_POD): jump(1000, 3),
                name(catalog.NONFINITE_FORWARDS, **_OTHER_POD): jump(2000, 1),
                name(catalog.SITE_FIRST_NONFINITE, **_POD, layer=_LAYERS[2]): jump(1000, 3),
                name(catalog.SITE_FIRST_NONFINITE, **_OTHER_POD, layer=_LAYERS[1]): jump(2000, 1),
            },
            (Check(start - 1), Check(start, says(4, _LAYERS[2]))),
        ),
        Case(
            alert,
            "names the earlier of two layers that were first equally often",
            {
                **agent,
                name(catalog.NONFINITE_FORWARDS, **_POD): jump(1000, 4),
                name(catalog.SITE_FIRST_NONFINITE, **_POD, layer=_LAYERS[3]): jump(1000, 2),
                name(catalog.SITE_FIRST_NONFINITE, **_POD, layer=_LAYERS[1]): jump(1000, 2),
            },
            (Check(start, says(4, _LAYERS[1])),),
        ),
        Case(
            alert,
            "pages for a counter that is born above zero on a new pod",
            {
                **agent,
                name(catalog.NONFINITE_FORWARDS, **_OTHER_POD): f"{absent(start)} {flat(7, run - start)}",
                name(catalog.SITE_FIRST_NONFINITE, **_OTHER_POD, layer=_LAYERS[0]): f"{absent(start)} {flat(7, run - start)}",
            },
            (Check(start - 1), Check(start, says(7, _LAYERS[0])), Check(start + 2, says(7, _LAYERS[0]))),
        ),
        Case(
            alert,
            "pages for a restart that brings the counter back to the very value it had",
            {
                **agent,
                name(catalog.NONFINITE_FORWARDS, **_POD): flat(1, run),
                name(catalog.SITE_FIRST_NONFINITE, **_POD, layer=_LAYERS[0]): flat(1, run),
                name(catalog.ATTACHED, **_POD): jump(1000, 600),
            },
            (Check(start - 1), Check(start, says(1, _LAYERS[0]))),
        ),
        Case(
            alert,
            "still names the layer when the pod is dead by the time of the evaluation",
            {
                name(catalog.NONFINITE_FORWARDS, **_POD): f"{flat(1000, start)} 1003 {gone(run - start)}",
                name(catalog.SITE_FIRST_NONFINITE, **_POD, layer=_LAYERS[4]): f"{flat(1000, start)} 1003 {gone(run - start)}",
                name(catalog.LAYER_INDEX, **_POD, layer=_LAYERS[4]): f"{flat(4, start + 1)} {gone(run - start)}",
                name(catalog.BUILD_INFO, **{**_POD, "model": "other", "instance": _SECOND_HOST}, **_BUILD): flat(1, run),
            },
            (Check(start + 2, says(3, _LAYERS[4], _SECOND_HOST)),),
        ),
        Case(
            alert,
            "links to the file where no agent is left, and does without namespace and layer",
            {name(catalog.NONFINITE_FORWARDS, job="inference", model="m", model_version="2", instance="a:1"): jump(1000, 2)},
            (
                Check(
                    start,
                    (
                        Expected(
                            {"job": "inference", "model": "m", "model_version": "2"},
                            f"Model m version 2 had NaN or Inf in 2 forward passes within {scale.settings.rate_window}.",
                        ),
                    ),
                ),
            ),
        ),
        Case(
            alert,
            "keeps firing after the last bad pass, then resolves",
            {
                **agent,
                name(catalog.NONFINITE_FORWARDS, **_POD): jump(1000, 3),
                name(catalog.SITE_FIRST_NONFINITE, **_POD, layer=_LAYERS[2]): jump(1000, 3),
            },
            (Check(start + window + kept - 2, says(3, _LAYERS[2])), Check(start + window + kept + 2)),
        ),
        Case(
            alert,
            "is silent for healthy traffic and for values at padding only",
            {
                **agent,
                name(catalog.FORWARDS, **_POD): ramp(1000, 60, run),
                name(catalog.NONFINITE_FORWARDS, **_POD): flat(1000, run),
                name(catalog.SITE_PADDING_NONFINITE, **_POD, layer=_LAYERS[0]): ramp(1000, 60, run),
                name(catalog.ATTACHED, **_POD): flat(1000, run),
            },
            tuple(Check(step) for step in (0, 1, start, run - 1)),
        ),
        Case(
            alert,
            "is silent for an idle model, from its first scrape on",
            {
                name(catalog.BUILD_INFO, **_POD, **_BUILD): f"{absent(start)} {flat(1, run - start)}",
                name(catalog.NONFINITE_FORWARDS, **_POD): f"{absent(start)} {flat(0, run - start)}",
                name(catalog.ATTACHED, **_POD): f"{absent(start)} {flat(1000, run - start)}",
            },
            (Check(start), Check(start + 1), Check(run - 1)),
        ),
    )


def _drift(alert: Alert, scale: Scale) -> tuple[Case, ...]:
    hold, kept = scale.steps(alert.hold), scale.steps(scale.settings.keep_firing_for)
    start = 4
    end = start + hold + 4
    run = end + kept + 6
    agent = {name(catalog.BUILD_INFO, **_POD, **_BUILD): flat(1, run), **_layer_indices(run)}

    def evidence(value: float, layer: str, pod: dict[str, str] = _POD, calm: float = 0.5) -> dict[str, str]:
        values = f"{flat(calm, start)} {flat(value, end - start)} {flat(calm, run - end)}"
        return {name(catalog.EVIDENCE, **pod, layer=layer, point="pre"): values}

    def distance(value: float, layer: str) -> dict[str, str]:
        return {name(catalog.KS, **_POD, layer=layer, point="pre"): flat(value, run)}

    def says(count: int, *lines: str) -> tuple[Expected, ...]:
        head = f"Model minilm version 1 has drifted from its baseline in {count} of its layers, by the model's order:"
        return (Expected(_INCIDENT, "\n".join(["", head, *lines]), _FIRST_HOST),)

    two_layers = {
        **agent,
        **evidence(3, _LAYERS[5]),
        **evidence(1.25, _LAYERS[2]),
        **evidence(0.75, _LAYERS[0]),
        **distance(0.0625, _LAYERS[5]),
        **distance(0.0125, _LAYERS[2]),
    }
    said = says(2, f"{_LAYERS[2]}: evidence 1.25, KS 0.0125", f"{_LAYERS[5]}: evidence 3.00, KS 0.0625")
    return (
        Case(
            alert,
            "opens one ticket after the wait, not before, and lists the layers by the model's order",
            two_layers,
            (Check(start), Check(start + hold - 1), Check(start + hold, said)),
        ),
        Case(
            alert,
            "keeps firing after the evidence has gone, then resolves",
            two_layers,
            (Check(end + kept - 2, said), Check(end + kept + 2)),
        ),
        Case(
            alert,
            "takes the average of the pods: one straying pod of two is no drift of the model",
            {**agent, **evidence(1.25, _LAYERS[0]), **evidence(0.5, _LAYERS[0], _OTHER_POD)},
            (Check(start + hold), Check(end - 1)),
        ),
        Case(
            alert,
            "is not blinded by a pod that has no reading yet, nor by a distance that is not known",
            {
                **agent,
                **evidence(1.5, _LAYERS[1]),
                name(catalog.EVIDENCE, **_OTHER_POD, layer=_LAYERS[1], point="pre"): " ".join(["NaN"] * run),
            },
            (Check(start + hold, says(1, f"{_LAYERS[1]}: evidence 1.50, KS ?")),),
        ),
        Case(
            alert,
            "lists five layers and counts the rest",
            {**agent, **{key: value for layer in _LAYERS for key, value in evidence(2, layer).items()}},
            (Check(start + hold, says(7, *(f"{layer}: evidence 2.00, KS ?" for layer in _LAYERS[:5]))),),
        ),
        Case(
            alert,
            "is silent for a calm model, and for one that has closed no window",
            {**agent, **evidence(0.9, _LAYERS[0], calm=0.8)},
            tuple(Check(step) for step in (0, start + hold, run - 1)),
        ),
    )


def _agent_missing(alert: Alert, scale: Scale) -> tuple[Case, ...]:
    hold, memory = scale.steps(alert.hold), scale.steps(scale.settings.agent_memory)
    start = scale.steps(scale.settings.rate_window)
    end = start + hold + 4
    run = end + 6
    target = {"namespace": "serving", "job": "inference"}

    def up(host: str, values: str, **labels: str) -> dict[str, str]:
        return {name("up", **{**target, **labels}, instance=host): values}

    def agent(values: str, host: str = _FIRST_HOST, **labels: str) -> dict[str, str]:
        return {name(catalog.BUILD_INFO, **{**_POD, "instance": host, **labels}, **_BUILD): values}

    text = (
        f"Model minilm of job inference has lost an agent that it had within {scale.settings.agent_memory}: "
        "there is a target without geluwatch metrics, and NaN, Inf or drift there go unseen."
    )
    lost = f"{flat(1, start)} {gone(end - start)} {flat(1, run - end)}"
    forgotten = f"{flat(1, start)} {gone(run - start)}"
    return (
        Case(
            alert,
            "opens a ticket for a target that is up without its agent, not before the wait, and resolves when it is back",
            {**up(_FIRST_HOST, flat(1, run)), **up(_SECOND_HOST, flat(1, run)), **agent(lost), **agent(flat(1, run), _SECOND_HOST)},
            (Check(start + hold - 1), Check(start + hold, (Expected(_MODEL, text, _SECOND_HOST),)), Check(end)),
        ),
        Case(
            alert,
            "opens one ticket for a model whose new pods and new version carry no agent",
            {
                **up(_FIRST_HOST, forgotten),
                **up(_SECOND_HOST, forgotten),
                **up("10.0.0.9:9464", f"{absent(start)} {flat(0, run - start)}"),
                **agent(forgotten),
                **agent(forgotten, _SECOND_HOST, model_version="0"),
            },
            (Check(start + hold - 1), Check(start + hold, (Expected(_MODEL, text),))),
        ),
        Case(
            alert,
            "forgets an agent that has been gone for the length of its memory",
            {**up(_FIRST_HOST, flat(1, start + memory + hold)), **agent(f"{flat(1, start)} {gone(memory + hold)}")},
            (Check(start + memory - 2, (Expected(_MODEL, text),)), Check(start + memory + hold - 1)),
        ),
        Case(
            alert,
            "is silent for an attached model without any traffic, and for targets that never carried an agent",
            {
                **up(_FIRST_HOST, flat(1, run)),
                **agent(flat(1, run)),
                **up("10.0.0.9:9100", flat(1, run)),
                **up("10.0.0.9:9100", flat(1, run), job="node"),
                name(catalog.FORWARDS, **_POD): flat(0, run),
            },
            (Check(0), Check(start + hold), Check(run - 1)),
        ),
        Case(
            alert,
            "is silent when pods are scaled in, and when a version or a model replaces another in place",
            {
                **up(_FIRST_HOST, flat(1, run)),
                **agent(forgotten),
                **agent(f"{absent(start)} {flat(1, run - start)}", model="bge", model_version="2"),
                **up(_SECOND_HOST, forgotten),
                **agent(forgotten, _SECOND_HOST),
            },
            (Check(start), Check(start + hold), Check(run - 1)),
        ),
        Case(
            alert,
            "is silent for a pod that restarts within the wait",
            {**up(_FIRST_HOST, flat(1, run)), **agent(f"{flat(1, start)} {gone(hold - 1)} {flat(1, run - start - hold + 1)}")},
            (Check(start + hold - 1), Check(run - 1)),
        ),
    )


def _baseline_missing(alert: Alert, scale: Scale) -> tuple[Case, ...]:
    hold = scale.steps(alert.hold)
    start = 2
    end = start + hold + 4
    run = end + 4
    agent = {name(catalog.BUILD_INFO, **_POD, **_BUILD): flat(1, run)}
    traffic = f"{flat(1000, start)} {ramp(1060, 60, run - start)}"
    text = (
        f"Model minilm version 1 has taken traffic for {scale.settings.baseline_missing_for} without an armed baseline "
        "on 2 agents: drift goes unseen there. NaN and Inf still page."
    )
    unarmed = {
        **agent,
        name(catalog.BASELINE_ARMED, **_POD): f"{flat(0, end)} {flat(1, run - end)}",
        name(catalog.BASELINE_ARMED, **_OTHER_POD): f"{flat(0, end)} {flat(1, run - end)}",
        name(catalog.FORWARDS, **_POD): traffic,
        name(catalog.FORWARDS, **_OTHER_POD): traffic,
    }
    return (
        Case(
            alert,
            "opens one ticket for all pods after the wait, not before, and resolves once a baseline is armed",
            unarmed,
            (Check(start + hold - 1), Check(start + hold, (Expected(_INCIDENT, text, _FIRST_HOST),)), Check(end)),
        ),
        Case(
            alert,
            "is silent for a model with a baseline, and for an idle one without",
            {
                **agent,
                name(catalog.BASELINE_ARMED, **_POD): flat(1, run),
                name(catalog.FORWARDS, **_POD): traffic,
                name(catalog.BASELINE_ARMED, **_OTHER_POD): flat(0, run),
                name(catalog.FORWARDS, **_OTHER_POD): flat(1000, run),
            },
            (Check(0), Check(start + hold), Check(run - 1)),
        ),
    )


def _layer_indices(run: int) -> dict[str, str]:
    return {name(catalog.LAYER_INDEX, **_POD, layer=layer): flat(index, run) for index, layer in enumerate(_LAYERS)}
