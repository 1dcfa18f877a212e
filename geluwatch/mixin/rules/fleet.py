"""What all pods of a model make of its activations together: distances from the baseline, the last week, and each other.

The Kolmogorov-Smirnov distance is read off the histograms' edges. Let F and G be two distribution functions, p and q
the masses between neighbouring edges e of each. For x between the edges d and e, F(x) - G(x) <= F(e) - G(d), which is
F(e) - G(e) plus the q there, and also F(d) - G(d) plus the p there; the same holds for G - F. Hence

    distance at the edges  <=  D  <=  distance at the edges + max of min(p, q)  <=  distance at the edges + max of q

and the last term is recorded as the bound, q being the baseline's masses.

A share is never read off `rate`, which extrapolates each edge of a young pod on its own, so that shares may fall from
one edge to the next. What a pod counted is the difference between two of its scrapes, or all it has, if it is younger
than that; both are whole numbers that grow with the edge. An edge that not every pod exports is left out.

With L layers a model version adds about 150 L series (46 edges before and after each GELU, three times over), and
2 L for each pod; a canary adds 94 L more. They do not depend on the number of pods otherwise.
"""

from __future__ import annotations

from itertools import pairwise
from textwrap import indent

from geluwatch import catalog
from geluwatch.mixin.queries import GROUP, POD, by, chain, largest, number, series, smallest, total
from geluwatch.mixin.rules.alerting import LISTED_LAYERS, Alert, Recording, asked, reading
from geluwatch.mixin.settings import MixinSettings, seconds

SERVICE = ("cluster", "region", "namespace", "model")
"""Where a canary and the stable pods beside it meet, whatever their jobs and versions are."""

LEAST_VALUES = 10_000
"""Values that a distribution needs: with as many on both sides chance moves them .02 apart in four comparisons of a hundred."""

_SAME = f"instance_model:{catalog.ATTACHED.name}:same"
_YOUNG = f"instance_model:{catalog.ATTACHED.name}:young"

CANARY_RATE = f"model_layer_point_le:{catalog.VALUES.series}:canary"
STABLE_RATE = f"model_layer_point_le:{catalog.VALUES.series}:stable"
CDF = f"model_layer_point_le:{catalog.VALUES.name}:cdf"
BASELINE = f"model_layer_point_le:{catalog.BASELINE_CDF.name}:max"
EDGES = "model_layer_point:geluwatch_cdf_edges:count"
MATCHED = "model_layer_point:geluwatch_cdf_edges:matched"
BOUND = "model_layer_point:geluwatch_ks_bound_ratio:max"
FLEET_KS = f"model_layer_point:{catalog.KS.name}:fleet"
WEEK_KS = f"model_layer_point:{catalog.KS.name}:week"
POD_KS = f"instance_model_layer_point:{catalog.KS.name}:pod"
FARTHEST = f"model_layer_point:{catalog.KS.name}:stable"
CANARY_KS = f"model_layer_point:{catalog.KS.name}:canary"

_PLACE = ("layer", "point")
_MODEL = (*GROUP, *_PLACE)
_ALL = '{le="+Inf"}'
_SHARE_OF = "/ ignoring (le) group_left ()"


def rate_name(settings: MixinSettings) -> str:
    """Return the name of the recorded rate at which all pods of a model version fill their buckets."""
    return f"model_layer_point_le:{catalog.VALUES.series}:rate{settings.rate_window}"


def recordings(settings: MixinSettings) -> tuple[Recording, ...]:
    """Return the recording rules, each before those that read it."""
    return (
        Recording(name=_SAME, expr=_same(settings)),
        Recording(name=_YOUNG, expr=_young(settings)),
        Recording(name=rate_name(settings), expr=_rate(settings)),
        Recording(name=CANARY_RATE, expr=_rate(settings, settings.canary)),
        Recording(name=CDF, expr=_cdf(settings)),
        Recording(name=BASELINE, expr=_baseline(settings)),
        Recording(name=EDGES, expr=number(CDF, *_MODEL)),
        Recording(name=MATCHED, expr=number(f"{CDF} - {BASELINE}", *_MODEL)),
        Recording(name=BOUND, expr=_bound()),
        Recording(name=FLEET_KS, expr=f"{_farthest_apart(CDF, '-', BASELINE)}\nand\n  ({MATCHED} == {EDGES}) > 1"),
        Recording(name=WEEK_KS, expr=_week(settings)),
        Recording(name=POD_KS, expr=_pods(settings)),
        Recording(name=FARTHEST, expr=_farthest_stable(settings)),
        Recording(name=STABLE_RATE, expr=_stable(settings)),
        Recording(name=CANARY_KS, expr=_canary(settings)),
    )


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return the alerts."""
    return (_canary_divergence(settings),)


def _canary_divergence(settings: MixinSettings) -> Alert:
    beside = f"> on ({', '.join((*SERVICE, *_PLACE))}) group_left ()"
    beyond = f"{CANARY_KS}{{%[1]s}} {beside} {limit(settings, '{%[1]s}')}"
    layers = f"sort(min by (layer) ({series(catalog.LAYER_INDEX, '%[1]s')}) and on (layer) ({beyond}))"
    version = asked(f"sort_desc(max by (model_version) ({CANARY_KS}{{%s}}))")
    named = f"{{{{ with {version} }}}}{{{{ with first . }}}} (version {{{{ .Labels.model_version }}}}){{{{ end }}}}{{{{ end }}}}"
    canary = reading(f"max({CANARY_KS}{{%s,layer=%q}})", "%.4f")
    stable = reading(f"max({FARTHEST}{{%s,layer=%q}})", "%.4f")
    first = "{{ with $layers }}, first at layer {{ with first . }}{{ .Labels.layer }}{{ end }}{{ end }}"
    counted = "It diverges in {{ len $layers }} of its layers, by the model's order:"
    return Alert(
        name="GeluwatchCanaryDivergence",
        tier="ticket",
        owner="model",
        summary="Activations of a canary are not those of the stable pods beside it.",
        description="\n".join(
            [
                f"{{{{- $layers := {asked(layers)} -}}}}",
                f"The canary of model {{{{ $labels.model }}}}{named} diverges from the stable pods{first}. {counted}",
                f"{{{{- range $place, $layer := $layers }}}}{{{{ if lt $place {LISTED_LAYERS} }}}}",
                f"{{{{ $layer.Labels.layer }}}}: KS {canary} from stable, farthest stable pod {stable} from its fleet",
                "{{- end }}{{ end }}",
            ]
        ),
        expr=largest(chain(CANARY_KS, beside, limit(settings)), *SERVICE),
        hold=settings.service_for,
        keep_firing_for=settings.keep_firing_for,
        labels=SERVICE,
    )


def limit(settings: MixinSettings, where: str = "") -> str:
    """Return the distance from which a canary diverges: what its model's stable pods show among themselves, several times over."""
    limits = settings.thresholds
    return f"clamp_min({limits.canary_factor:g} * {FARTHEST}{where}, {limits.canary_distance:g})"


def _same(settings: MixinSettings) -> str:
    """Return the agents that were there a window ago already, and have not been attached anew since."""
    attached = series(catalog.ATTACHED, settings.selector)
    return f"{attached} == {attached} offset {settings.rate_window}"


def _young(settings: MixinSettings) -> str:
    """Return the agents whose counters hold nothing older than about a window.

    One that the server did not see for a while, and that is not new, is in neither list: its growth is not known.
    """
    attached = series(catalog.ATTACHED, settings.selector)
    return f"time() - {attached} < {2 * seconds(settings.rate_window)} unless {_SAME}"


def _counted(settings: MixinSettings, *where: str) -> str:
    """Return how much each bucket of each pod grew within the window: between two scrapes, or since the pod came up."""
    buckets = series(catalog.VALUES, settings.selector, *where)
    match = f"and ignoring ({', '.join((*_PLACE, 'le'))})"
    return chain(
        f"({buckets} - {buckets} offset {settings.rate_window} {match} {_SAME})",
        "or",
        f"({buckets} {match} {_YOUNG})",
    )


def _in_all(whole: str, counted: str, *labels: str) -> str:
    """Return, by labels, the edges that all distributions have.

    Args:
        whole: The buckets at +Inf, of which each distribution has one.
        counted: All buckets.
        labels: What is kept apart.
    """
    distributions = f"== on ({', '.join(labels)}) group_left ()"
    return chain(number(counted, *labels, "le"), distributions, number(whole, *labels))


def _rate(settings: MixinSettings, *where: str) -> str:
    """Return how fast the buckets of some pods fill together, at the edges that all of them have.

    Edges are those of all pods there are, whether their growth is known or not: to ask that again would cost as much as the sum.
    """
    buckets, whole = (series(catalog.VALUES, settings.selector, *where, *more) for more in ((), ('le="+Inf"',)))
    summed = f"{total(_counted(settings, *where), *_MODEL, 'le')} / {seconds(settings.rate_window)}"
    return f"{summed}\nand\n{_in_all(whole, buckets, *_MODEL)}"


def _cdf(settings: MixinSettings) -> str:
    """Return the shares at the edges, of a version's stable pods; of a version of which there are only canaries, theirs."""
    rate, all_of_them = rate_name(settings), f"{rate_name(settings)}{_ALL}"
    others = f"{all_of_them} - {CANARY_RATE}{_ALL} >= {_least(settings)}"
    stable = chain(f"({rate} - {CANARY_RATE})", f"and on ({', '.join(_MODEL)})", f"({others})", "or", rate)
    return chain(_bracketed(stable), _SHARE_OF, f"({others} or {all_of_them} >= {_least(settings)})")


def _least(settings: MixinSettings) -> str:
    return f"{LEAST_VALUES} / {seconds(settings.rate_window)}"


def _baseline(settings: MixinSettings) -> str:
    """Return the baseline's shares where all pods have the same baseline."""
    shares = series(catalog.BASELINE_CDF, settings.selector)
    return chain(largest(shares, *_MODEL, "le"), "==", smallest(shares, *_MODEL, "le"))


def _bound() -> str:
    """Return the largest mass of the baseline between neighbouring edges, where the edges are those that the catalogue has."""
    steps = {point: [*(repr(edge) for edge in edges), "+Inf"] for point, edges in catalog.EDGES.items()}
    selected = f'{BASELINE}{{point="%s",le="%s"}}'
    below = [
        f'label_replace({selected % (point, lower)}, "le", "{upper}", "", "")'
        for point, texts in steps.items()
        for lower, upper in pairwise(texts)
    ]
    first = [selected % (point, texts[0]) for point, texts in steps.items()]
    joined = "\n  or ".join(below)
    masses = f"{BASELINE} - (\n     {joined}\n)\nor {' or '.join(first)}"
    whole = " or ".join(f'{EDGES}{{point="{point}"}} >= {len(texts)}' for point, texts in steps.items())
    return f"{largest(masses, *_MODEL)}\nand\n  ({whole})"


def _farthest_apart(left: str, minus: str, right: str, *labels: str) -> str:
    """Return the largest difference of two distributions over their edges."""
    return f"max {by(*(labels or _MODEL))} (abs(\n{indent(chain(left, minus, right), '  ')}\n))"


def _bracketed(expression: str) -> str:
    return f"(\n{indent(expression, '  ')}\n    )"


def _week(settings: MixinSettings) -> str:
    """Return how far a model version is from itself a week before, at the same edges."""
    then = f"{CDF} offset {settings.compare_offset}"
    covered = f"({number(f'{CDF} - {then}', *_MODEL)} == {EDGES}) > 1"
    return f"{_farthest_apart(CDF, '-', then)}\nand\n  ({covered})"


def _pods(settings: MixinSettings) -> str:
    """Return how far each pod is from the stable pods of its version."""
    labels = (*POD, *_PLACE)
    own, whole = total(_counted(settings), *labels, "le"), total(_counted(settings, 'le="+Inf"'), *labels, "le")
    shares = chain(own, _SHARE_OF, f"({whole} >= {LEAST_VALUES})")
    return _farthest_apart(_bracketed(shares), f"- on ({', '.join(_MODEL)}, le) group_left ()", CDF, *labels)


def _farthest_stable(settings: MixinSettings) -> str:
    """Return the largest distance of a stable pod from its fleet, over all versions and jobs of a model."""
    canaries = series(catalog.ATTACHED, settings.selector, settings.canary)
    return largest(chain(POD_KS, f"unless on ({', '.join(POD)})", canaries), *SERVICE, *_PLACE)


def _stable(settings: MixinSettings) -> str:
    """Return the rate of what is no canary, for models that have one; a version that is all canary adds nothing."""
    rate, labels = rate_name(settings), (*SERVICE, *_PLACE)
    beside = f"and on ({', '.join(SERVICE)}) {CANARY_RATE}{_ALL}"
    counted, whole = (f"(({rate}{where} - {CANARY_RATE}{where}) or {rate}{where}) {beside}" for where in ("", _ALL))
    return f"{total(counted, *labels, 'le')}\nand\n{_in_all(whole, counted, *labels)}"


def _canary(settings: MixinSettings) -> str:
    """Return how far each canary is from the stable pods of its model, where the two have edges in common."""
    canary, stable = (f"({rate} {_SHARE_OF} ({rate}{_ALL} >= {_least(settings)}))" for rate in (CANARY_RATE, STABLE_RATE))
    match = f"on ({', '.join((*SERVICE, *_PLACE))}, le) group_left ()"
    common = number(f"{CANARY_RATE} * {match} {STABLE_RATE}", *_MODEL)
    return f"{_farthest_apart(canary, f'- {match}', stable)}\nand\n  ({common} > 1)"
