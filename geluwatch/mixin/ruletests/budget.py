"""Stories of `GeluwatchErrorBudgetBurn`, in both tiers and of both objectives.

Time is told in tiles, the shortest of the burn windows, at whose ends rates are looked at for the longer ones.
"""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.ruletests.grammar import (
    FIRST_HOST,
    INCIDENT,
    OTHER_POD,
    POD,
    Answer,
    Case,
    Check,
    Expected,
    Labels,
    Scale,
    agent,
    flat,
    name,
    silent,
)
from geluwatch.mixin.ruletests.traffic import Stretch, attempts, passes
from geluwatch.mixin.settings import Tier, seconds

_OBJECTIVES = {"latency": "99% of passes should return within 0.25 s", "availability": "99.9% of passes should return"}
_RATIO = "model_slo:geluwatch_errors:ratio"
_REMAINING = "model_slo:geluwatch_error_budget:remaining"


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories that take hours."""
    stories = _Stories(scale)
    return (
        stories.pages(),
        stories.failures_page(),
        stories.resolves(),
        stories.traffic_goes(),
        stories.twice_for_an_hour(),
        stories.short_outage(),
        stories.few_errors(),
        stories.uneven_traffic(),
        stories.within_the_objective(),
        stories.idle(),
        stories.restart(),
        stories.in_training(),
    )


def long_cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories that take days."""
    stories = _Stories(scale)
    # A burst that is not far shorter than the ticket's wait is told by the hour, as at quick settings.
    return (stories.slow_burn(), *((stories.bursts(),) if stories.ticket > 2 * stories.tile else ()))


def served(*stretches: Stretch, pod: Labels = POD) -> dict[str, str]:
    """Return the series of passes in time and late ones, none of which fails."""
    return {**passes(*stretches, pod=pod), **attempts(*((prompt + late, 0, steps) for prompt, late, steps in stretches), pod=pod)}


class _Stories:
    """Stories of a model whose passes are errors, in stretches of tiles."""

    def __init__(self, scale: Scale) -> None:
        settings = self.settings = scale.settings
        self.scale, self.windows = scale, tuple(scale.steps(window) for window in settings.burn_windows)
        self.tile, self.hour, self.longest = self.windows[0], self.windows[2], settings.burn_windows[-1]
        self.page, self.ticket = scale.steps(settings.page_for), scale.steps(settings.service_for)
        self.kept = scale.steps(settings.keep_firing_for)

    def agent(self, steps: int) -> dict[str, str]:
        return agent(flat(1, steps))

    def told(self, tier: Tier, slo: str, burn: str, share: str, rest: str = "") -> Expected:
        hour = f", and in the last {self.settings.burn_windows[2]} {share} did not" if share else ""
        left = rest or f"Nothing of the budget of {self.longest} is left."
        text = f"Model minilm version 1 burns its error budget for {slo} {burn} times as fast as it lasts: {_OBJECTIVES[slo]}{hour}. {left}"
        return Expected({**INCIDENT, "slo": slo}, text, FIRST_HOST, tier)

    def pages(self) -> Case:
        due, run = self.tile + self.page, self.tile + self.ticket + 4
        said = self.told("page", "latency", "20.0", "20%")
        both = said, self.told("ticket", "latency", "20.0", "20%")
        series = {**served((24, 0, run)), **served((24, 12, run), pod=OTHER_POD)}
        return Case(
            "pages after the page's wait where passes are late, once for all pods, and opens the ticket after its own",
            {**self.agent(run), **series},
            (Check(due - 1), Check(due, (said,)), Check(self.tile + self.ticket - 1, (said,)), Check(self.tile + self.ticket, both)),
            (Answer(due, f'round({_RATIO}{self.settings.burn_windows[2]}{{slo="latency"}}, 0.0001)', {self.of("latency"): 0.2}),),
        )

    def of(self, slo: str) -> str:
        return name("", **INCIDENT, slo=slo)

    def failures_page(self) -> Case:
        due, run = self.tile + self.page, self.tile + self.page + 4
        said = self.told("page", "availability", "250.0", "25%")
        return Case(
            "pages for passes that fail, of all that began",
            {**self.agent(run), **passes((45, 0, run)), **attempts((45, 15, run))},
            (Check(due - 1), Check(due, (said,))),
        )

    def resolves(self) -> Case:
        end = 6 * self.tile
        page_over, over = end + self.hour, end + self.windows[4] + self.kept + 2
        ticket = self.told("ticket", "latency", f"{100 * end / page_over:.1f}", "0%")
        return Case(
            "ends the page soon after passes are in time again, and the ticket when the longer windows have forgotten",
            {**self.agent(over + 2), **served((0, 60, end + 1), (60, 0, over + 2 - end))},
            (Check(page_over, (ticket,)), *silent(over)),
        )

    def traffic_goes(self) -> Case:
        end = 4 * self.tile
        page_over = end + self.windows[1] + self.kept
        forgotten = "100%" if page_over + 2 < end + self.hour else ""
        kept = tuple(self.told(tier, "latency", "100.0", "100%") for tier in ("page", "ticket"))
        return Case(
            "keeps the page firing for a while after the traffic has gone, then ends it",
            {**self.agent(page_over + 4), **served((0, 60, end), (0, 0, page_over + 4 - end))},
            (Check(page_over - 4, kept), Check(page_over + 2, (self.told("ticket", "latency", "100.0", forgotten),))),
        )

    def twice_for_an_hour(self) -> Case:
        good, bad = 36, 18
        start, at = good * self.tile, (good + bad) * self.tile
        left = 1 - 2.3 * bad / (good + bad)
        lasts = _duration(seconds(self.longest) * left / 2.3)
        hour = self.settings.burn_windows[2]
        rest = f"{left * 100:.4g}% of the budget of {self.longest} is left; at the rate of the last {hour} that is gone in {lasts}."
        series = served((1000, 0, start + 1), (977, 23, bad * self.tile + 2))
        early = start + self.hour * 3 // 4 + self.ticket // 2
        return Case(
            "opens a ticket, and does not page, where the budget is burnt at twice its rate for an hour, and says how much is left",
            {**self.agent(at + 2), **series},
            (Check(early), Check(at, (self.told("ticket", "latency", "2.3", "2.3%", rest),))),
            (Answer(at, f'round({_REMAINING}{{slo="latency"}}, 0.0001)', {self.of("latency"): round(left, 4)}),),
        )

    def short_outage(self) -> Case:
        good, out = 60 * self.tile, max(1, self.tile // 5)
        run = good + out + self.hour
        return Case(
            "is silent for an outage that is over before it has cost much",
            {**self.agent(run), **served((60, 0, good), (0, 60, out), (60, 0, self.hour))},
            silent(good + out, good + out + self.page, good + self.ticket, run - 1),
        )

    def few_errors(self) -> Case:
        run = self.hour + self.ticket
        return Case(
            "is silent for a handful of errors, however high their share among few passes",
            {**self.agent(run), **passes((8 / run, 8 / run, run)), **attempts((8 / run, 8 / run, run))},
            silent(self.tile + self.page, self.hour, run - 1),
        )

    def uneven_traffic(self) -> Case:
        busy = quiet = 12 * self.tile
        recorded = f'round({_RATIO}{self.longest}{{slo="latency"}}, 0.0001)'
        return Case(
            "weighs the hours by their traffic: many errors of few passes at night are few of the day's",
            {**self.agent(busy + quiet + 2), **served((100, 0, busy + 1), (5, 5, quiet + 2))},
            silent(busy),
            (Answer(busy + quiet, recorded, {self.of("latency"): 0.0455}),),
        )

    def within_the_objective(self) -> Case:
        run = 30 * self.tile
        return Case(
            "is silent while the budget lasts",
            {**self.agent(run), **passes((995, 5, run)), **attempts((9995, 5, run))},
            silent(self.tile + self.page, self.tile + self.ticket, run - 1),
        )

    def idle(self) -> Case:
        busy, run = 3 * self.tile, 3 * self.tile + self.hour + 4
        series = served((60, 0, busy), (0, 0, run - busy))
        windows = self.settings.burn_windows[0], self.settings.burn_windows[2]
        return Case(
            "is silent for an idle model, which has no share of errors at all",
            {**self.agent(run), **series},
            silent(busy, run - 1),
            tuple(Answer(run - 1, f"{_RATIO}{window}", {}) for window in windows),
        )

    def restart(self) -> Case:
        half = 4 * self.tile
        first, second = (served((60, 0, half)) for _ in range(2))
        return Case(
            "is silent after a restart that sets the counters back",
            {**self.agent(2 * half), **{series: f"{values} {second[series]}" for series, values in first.items()}},
            silent(half, half + self.page, half + self.ticket, 2 * half - 1),
        )

    def in_training(self) -> Case:
        run = 10 * self.tile
        steps = {name(catalog.TRAINING_STEPS, **POD): flat(100, run)}
        return Case(
            "is silent for a model in training, whose passes nobody waits for",
            {**self.agent(run), **passes((0, 60, run)), **attempts((45, 15, run)), **steps},
            silent(self.tile + self.page, self.tile + self.ticket, run - 1),
        )

    def bursts(self) -> Case:
        day, hour = self.windows[5], self.hour
        often = day // (2 * hour)
        now = 2 * day - hour // 4
        stretches: list[Stretch] = [(100, 0, day), *(((265, 135, self.tile), (100, 0, 2 * hour - self.tile)) * often)]
        return Case(
            "opens a ticket for short bursts that no hour is bad enough for, by the day, weighed by their traffic",
            {**self.agent(2 * day), **served(*stretches)},
            (*silent(day, day + day // 8), Check(now, (self.told("ticket", "latency", "5.0", "0%"),))),
        )

    def slow_burn(self) -> Case:
        healthy = self.windows[6]
        run = healthy + healthy * 3 // 4
        return Case(
            "opens a ticket where a budget is spent slowly but will not last, by the longest window",
            {**self.agent(run), **served((200, 0, healthy), (197, 3, run - healthy))},
            (*silent(healthy, healthy + healthy * 5 // 8), Check(run - 1, (self.told("ticket", "latency", "1.1", "1.5%"),))),
        )


def _duration(length: float) -> str:
    """Return a duration as people read it in the texts."""
    if length < 60:
        return f"{length:.4g}s"
    minutes, rest = divmod(int(length), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}d {hours}h {minutes}m {rest}s" if days else f"{hours}h {minutes}m {rest}s" if hours else f"{minutes}m {rest}s"
