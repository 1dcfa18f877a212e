"""Calibration: limits that keep to a budget, and a certificate that says what a baseline can promise and what it lacks."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from geluwatch.config import Config
from geluwatch.core import calibrate, surprise, tail
from geluwatch.errors import BaselineError
from geluwatch.records import Calm, Certificate, Floats

ONE = Config(horizons=(1,))


def iid(rng: np.random.Generator, count: int, keys: int = 4, horizons: int = 1) -> Floats:
    """Deviations (count, keys, horizons) of calm scores that have nothing to do with each other."""
    return rng.standard_normal((count, keys, horizons))


def certified(make_calm, windows: int, seed: int = 0, config: Config = ONE, keys: int = 4, seconds: float = 60.0) -> Certificate:
    """The certificate of independent calm windows."""
    deviations = iid(np.random.default_rng(seed), windows, keys, len(config.horizons))
    return calibrate.certify(make_calm(deviations, None, config.horizons, seconds), 0, config)


def test_the_certificate_states_what_was_done(make_calm) -> None:
    """Windows, time, left out, horizons, looks, budgets and replay are all in it."""
    found = calibrate.certify(make_calm(iid(np.random.default_rng(1), 2000)), 3, ONE)
    assert (2000, 3, 1999 * 60.0, (1,), 1) == (found.windows, found.left_out, found.seconds, found.horizons, found.strata)
    assert (2.0, 1.0, 2000, 10.0) == (found.tickets_per_month, found.pages_per_quarter, found.replayed, found.requested)
    assert (True, "", True, "") == (found.armed, found.reason, found.paging, found.paging_reason)
    assert found.looks == pytest.approx(2000, rel=0.2)
    assert 3.0 < found.ticket_limit < found.page_limit < math.inf
    assert found.interval[0] <= found.observed <= found.interval[1]
    assert ONE.tolerance == found.tolerance


@pytest.mark.parametrize(("have", "more"), [(0, 12), (1, 11), (11, 1)])
def test_too_few_windows_are_not_armed(make_calm, have: int, more: int) -> None:
    """Below twelve windows nothing is armed, and the reason says how many more it takes."""
    found = certified(make_calm, have)
    assert (False, (), math.inf, math.inf) == (found.armed, found.horizons, found.ticket_limit, found.page_limit)
    assert found.reason == f"{have} usable windows are too few to calibrate: {more} more are needed."
    assert certified(make_calm, have + more).armed


def test_windows_without_a_common_point_are_not_armed() -> None:
    """Where no site gave rows in every window there is nothing to calibrate."""
    found = calibrate.certify(Calm((), (1,), np.arange(20.0), np.empty((20, 0, 1), np.float32)), 0, ONE)
    assert not found.armed
    assert found.reason.startswith("No site gave rows in every window")


def test_windows_that_resemble_each_other_are_not_armed(make_calm) -> None:
    """Forty windows that creep along one line are worth fewer than six independent ones, and the reason says so."""
    rng = np.random.default_rng(2)
    creeping = np.linspace(0.0, 10.0, 40)[:, None] + 0.03 * rng.standard_normal((40, 4))
    found = calibrate.certify(make_calm(creeping), 0, ONE)
    assert not found.armed
    assert "The 40 usable windows resemble their neighbours so much" in found.reason
    assert "about 40 more are needed" in found.reason


@pytest.mark.parametrize(("windows", "kept"), [(12, (1,)), (30, (1, 4)), (80, (1, 4, 16))])
def test_horizons_without_enough_looks_are_dropped(make_calm, windows: int, kept: tuple[int, ...]) -> None:
    """A horizon is judged from six independent looks on: averages of sixteen need several times sixteen windows."""
    found = certified(make_calm, windows, config=Config())
    assert (True, kept) == (found.armed, found.horizons)
    assert found.looks >= calibrate.TICKET_LOOKS


def test_paging_needs_a_hundred_looks_and_says_how_many_windows_more(make_calm) -> None:
    """With sixty looks drift opens tickets only; the reason allows for the quarter of a long baseline that is left out."""
    found = certified(make_calm, 60)
    assert (True, False, math.inf) == (found.armed, found.paging, found.page_limit)
    more = math.ceil(60 * 100 / found.looks / (1 - calibrate.YOUNG) - 60)
    expected = (
        f"drift opens tickets but does not page: that takes about {more} more windows "
        f"({found.looks:.0f} of 100 independent looks at the longest horizon)."
    )
    assert expected == found.paging_reason
    assert 60 <= more <= 100
    assert certified(make_calm, 60 + 2 * more).paging


def test_what_paging_takes_counts_horizons_that_are_not_in_use_yet(make_calm) -> None:
    """With too few windows for averages of sixteen the reason says how many those will take, not only the shorter ones."""
    short, longer = certified(make_calm, 40, config=Config()), certified(make_calm, 300, config=Config())
    assert ((1, 4), (1, 4, 16)) == (short.horizons, longer.horizons)
    asked = [windows + int(re.search(r"about (\d+) more", found.paging_reason).group(1)) for windows, found in ((40, short), (300, longer))]
    assert 0.7 < asked[0] / asked[1] < 1.5
    assert certified(make_calm, asked[0], config=Config()).paging


def test_a_baseline_that_breaks_its_own_promise_does_not_page(make_calm) -> None:
    """Where a quarter, judged by the others, alarms far more often than asked for, paging is off and the reason has the numbers."""
    rng = np.random.default_rng(3)
    deviations = iid(rng, 4000)
    deviations[3000::40] += 10.0
    found = calibrate.certify(make_calm(deviations), 0, ONE)
    assert found.interval[0] > found.requested
    assert (True, False, math.inf) == (found.armed, found.paging, found.page_limit)
    assert f"gave {found.observed} false alarms where 10 were asked for" in found.paging_reason


def test_a_baseline_of_incidents_is_not_armed(make_calm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where faults in every quarter drive the limits out of reach, nothing is armed, for a watch would be blind; the reason says so."""
    rng = np.random.default_rng(5)
    leans = rng.standard_normal((800, 2, 4, 1))
    usual = calibrate.certify(make_calm(iid(rng, 800), leans=leans), 0, ONE)
    leans[::25] += 300.0
    spoilt = make_calm(iid(rng, 800), leans=leans)
    assert calibrate.certify(spoilt, 0, ONE).ticket_limit > usual.ticket_limit + 3.0
    monkeypatch.setattr(calibrate, "MOST_LIMIT", usual.ticket_limit + 3.0)
    found = calibrate.certify(spoilt, 0, ONE)
    assert (False, False, math.inf) == (found.armed, found.paging, found.ticket_limit)
    assert re.match(r"Incidents in its windows have driven the limit of a ticket to \d+, where calm traffic gives 5 to 9", found.reason)


def test_nothing_that_is_certain_lies_below_a_limit(make_calm) -> None:
    """A page asks for no more than what no calm traffic does, however few pages are allowed."""
    found = certified(make_calm, 600, config=Config(horizons=(1,), pages_per_quarter=1e-30))
    assert found.page_limit == calibrate.CERTAIN > calibrate.MOST_LIMIT


def test_tighter_budgets_give_higher_limits(make_calm) -> None:
    """Tenfold fewer false alarms cost about one more power of ten of surprise, each time as much; a page's limit is above a ticket's."""
    found = [
        certified(make_calm, 400, config=Config(horizons=(1,), tickets_per_month=20.0 / 10**k, pages_per_quarter=10.0 / 10**k))
        for k in range(4)
    ]
    tickets, pages = (np.diff([getattr(each, limit) for each in found]) for limit in ("ticket_limit", "page_limit"))
    for steps in (tickets, pages):
        assert np.ptp(steps) == pytest.approx(0.0, abs=1e-9)
    assert tickets[0] < pages[0] < 1.1 * tickets[0]  # whose tail is doubted more
    assert 0.95 < tickets[0] < 1.2
    assert all(each.page_limit > each.ticket_limit for each in found)


def test_limits_price_in_what_will_be_tolerated(make_calm) -> None:
    """With a tolerance calm surprises less often, so a limit may be lower; the certificate says which was granted."""
    calm = make_calm(iid(np.random.default_rng(15), 1000, horizons=2), None, (1, 16))
    strict, lenient = (calibrate.certify(calm, 0, Config(horizons=(1, 16), tolerance=tolerance)) for tolerance in (0.0, 0.2))
    assert (0.0, 0.2) == (strict.tolerance, lenient.tolerance)
    assert lenient.ticket_limit < strict.ticket_limit - 0.2


def test_a_budget_without_sense_does_not_lower_the_limit_into_calm(make_calm) -> None:
    """However many false alarms are allowed, a limit stays at a surprise of three."""
    found = certified(make_calm, 400, config=Config(horizons=(1,), tickets_per_month=1e12))
    assert 3.0 == found.ticket_limit


def test_more_layers_never_make_a_lower_limit(make_calm) -> None:
    """What is searched in more places is surprising by chance more often."""
    by_layers = [certified(make_calm, 400, keys=keys).ticket_limit for keys in (1, 8, 64)]
    assert sorted(by_layers) == by_layers
    assert by_layers[2] - by_layers[0] > 1.0


def test_long_windows_have_lower_limits(make_calm) -> None:
    """Hours in place of minutes leave sixty times fewer windows in a month, so each may err more."""
    minutes, hours = (certified(make_calm, 40, seconds=seconds).ticket_limit for seconds in (60.0, 3600.0))
    assert math.log10(60) <= minutes - hours < 1.2 * math.log10(60)


def test_false_alarms_in_the_replay_are_taken_off_the_budget(make_calm) -> None:
    """A baseline that alarms, replayed, several times as often as asked for gets as much less of its budget."""
    rng = np.random.default_rng(13)
    deviations = iid(rng, 2000)
    deviations[1000:1500:16] += 10.0
    calm = make_calm(deviations)
    found = calibrate.certify(calm, 0, ONE)
    assert found.interval[0] > found.requested
    known = tail.measure(tail.unseen(calm, 1, ONE.tolerance))
    assert found.ticket_limit == pytest.approx(known.limit(found.requested / found.observed * 2.0 / 43_200))


def test_unseen_calm_keeps_to_the_budget(make_calm) -> None:
    """Twenty baselines of 300 windows and a budget of one alarm in a thousand: between a fifth of it and twice as many."""
    budget = Config(horizons=(1,), tickets_per_month=0.001 * 30 * 24 * 60)
    found = []
    for seed in range(20):
        rng = np.random.default_rng(100 + seed)
        calm = make_calm(iid(rng, 300))
        limit = calibrate.certify(calm, 0, budget).ticket_limit
        unseen = make_calm(iid(rng, 5000))
        found.append(tail.alarms(tail.most_surprising(surprise.measure(calm), unseen, budget.tolerance), limit))
    assert 0.2 * 0.001 < np.mean(found) / 5000 < 2.0 * 0.001


def test_horizons_are_restricted_by_name(make_calm) -> None:
    """Only the scores of the horizons asked for are left."""
    calm = make_calm(iid(np.random.default_rng(8), 5, 2, 3), None, (1, 4, 16))
    found = calibrate.restrict(calm, (1, 16))
    assert (1, 16) == found.horizons
    assert calm.scores[..., [0, 2]].tolist() == found.scores.tolist()


def test_a_month_holds_no_more_windows_than_seconds(make_calm) -> None:
    """Minutes come 43,200 times in thirty days; windows closed in no time are taken for seconds."""
    deviations = iid(np.random.default_rng(9), 20)
    assert 43_200 == calibrate.windows_a_month(make_calm(deviations))
    assert 30 * 86_400 == calibrate.windows_a_month(make_calm(deviations, seconds=0.0))


def test_unfit_windows_are_refused_above_a_tenth() -> None:
    """One unfit window in ten is let through; two of eleven are refused in a sentence with the numbers."""
    calibrate.refuse_unfit(10, 1, 64)
    with pytest.raises(BaselineError, match=r"^2 of 11 windows held .* fewer than 64 rows, more than the tenth that may be left out; mend"):
        calibrate.refuse_unfit(11, 2, 64)


def test_no_window_at_all_is_refused() -> None:
    """Recording before the first window says what to do."""
    with pytest.raises(BaselineError, match="No window has been closed yet"):
        calibrate.refuse_unfit(0, 0, 64)


def test_a_generous_budget_of_pages_never_undercuts_the_tickets(make_calm) -> None:
    """With more pages allowed than tickets, a page still asks for as much surprise as a ticket does."""
    found = certified(make_calm, 600, config=Config(horizons=(1,), pages_per_quarter=100.0))
    assert found.paging
    assert found.page_limit >= found.ticket_limit
