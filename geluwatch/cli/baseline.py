"""`geluwatch baseline`: which baselines a store holds, what they can promise, and files to carry them to other stores.

Keys and signatures are in `signing`, what becomes of a baseline in `promotion`.
"""

from __future__ import annotations

import argparse
import math
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from geluwatch.cli import origin, promotion, signing
from geluwatch.cli.stored import add_key, add_store, called, key, opened, when

if TYPE_CHECKING:
    from geluwatch.records import Baseline, Certificate
    from geluwatch.store import BaselineInfo

_LABEL, _WIDTH = 10, 140

_HOURS = {
    1: "all judged alike; three days of traffic tell the hours of the day apart, three weeks those of the week",
    24: "each hour of the day by itself; three weeks of traffic tell those of the week apart",
    168: "each hour of the week by itself",
}

_DAY = 24 * 3600.0
_RHYTHMS = ((_DAY, "day and night"), (7 * _DAY, "the week"), (math.inf, "the month"))


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `baseline` with its actions."""
    what = "list, show, carry, sign and promote stored baselines"
    parser = commands.add_parser("baseline", help=what, description=f"{what.capitalize()}.")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="one line a baseline", description="Print one line for each stored baseline.")
    add_store(listing)
    listing.set_defaults(func=_list)
    show = actions.add_parser("show", help="one baseline with its certificate", description="Print one baseline with its certificate.")
    add_key(show)
    show.set_defaults(func=_show)
    export = actions.add_parser("export", help="write one to a file", description="Write one baseline to a file.")
    export.add_argument("--output", "-o", required=True, metavar="FILE", type=Path, help="file to write; one that exists is left alone")
    add_key(export)
    export.set_defaults(func=_export)
    take = actions.add_parser("import", help="store one from a file", description="Store the baseline of a file, under the name it has.")
    take.add_argument("file", type=Path, help="file that `geluwatch baseline export` wrote")
    take.add_argument("--name", help="store it under another name, without the signature, of which the name is part")
    add_store(take)
    take.set_defaults(func=_import)
    promotion.add_actions(actions)
    signing.add_actions(actions)


def _list(arguments: argparse.Namespace) -> int:
    with opened(arguments) as store:
        rows = store.listing()
    if not rows:
        print("No baseline is stored there yet; Watch.record_baseline makes one.")
    for row in rows:
        print("  ".join(_columns(row)))
    return 0


def _columns(row: BaselineInfo) -> Iterator[str]:
    """Yield what the list shows of one baseline; what it does not tell is left out."""
    yield from (row.model, row.model_version, row.name, when(row.created))
    yield from (f"{count} {what}{'' if count == 1 else 's'}" for count, what in ((row.windows, "window"), (row.sites, "site")))
    yield "armable" if row.armed else "too small to arm"
    yield row.state
    if row.dtype:
        yield f"{row.dtype} on {row.device}"
    if row.traffic:
        yield f"traffic {row.traffic}"
    if row.signer:
        yield f"signed {row.signer}"


def _export(arguments: argparse.Namespace) -> int:
    from geluwatch.store import portable

    with opened(arguments) as store:
        baseline = store.load(*key(arguments))
        with store.exporting(baseline, str(arguments.output)):
            portable.write(baseline, arguments.output)
    size = arguments.output.stat().st_size
    print(f"{called(baseline)} is in {arguments.output}, {size:,} bytes; `geluwatch baseline import` takes it.")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from geluwatch.store import portable

    baseline = portable.read(arguments.file)  # before a store is made, which a file that is refused shall not leave behind
    if arguments.name not in {None, baseline.name}:
        baseline = replace(baseline, name=arguments.name, signature=None)
    with opened(arguments, new=True) as store:
        store.take(baseline, str(arguments.file))
    print(f"{called(baseline)} is stored, with its certificate and {len(baseline.windows)} windows.")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    with opened(arguments) as store:
        baseline = store.load(*key(arguments))
        standing = store.standing(baseline)
    print(f"{baseline.name}: model {baseline.model}, version {baseline.model_version}, recorded {when(baseline.created)}")
    for label, line in (*origin.lines(baseline, standing), *_lines(baseline)):
        for place, part in enumerate(textwrap.wrap(line, _WIDTH - _LABEL - 2)):
            print(f"  {'' if place else label:<{_LABEL}}{part}")
    return 0


def _lines(baseline: Baseline) -> Iterator[tuple[str, str]]:
    """Yield (label, line); what follows from a line that has a label has none."""
    certificate, calibrated = baseline.certificate, baseline.calm is not None
    left_out = " (non-finite values, silent sites, dropped rows or too few of them)" if certificate.left_out else ""
    yield "windows", f"{certificate.windows} used, {certificate.left_out} left out{left_out}"
    yield "sites", _sites(baseline)
    if calibrated:
        yield "time", _time(certificate.seconds)
    if certificate.armed:
        yield from _scope(certificate, calibrated)
    yield "tickets", _tier(certificate.armed, "opens a ticket", certificate.ticket_limit, certificate.reason)
    yield "", _budget(certificate.tickets_per_month, "ticket", "month")
    if not calibrated:
        yield "", "so said the earlier release that stored it; arming calibrates it anew from its windows"
        return
    missing = certificate.paging_reason or "drift pages only where it also opens tickets"
    yield "pages", _tier(certificate.paging, "pages", certificate.page_limit, missing)
    yield "", _budget(certificate.pages_per_quarter, "page", "quarter")
    if certificate.armed:
        yield from _replay(certificate)


def _sites(baseline: Baseline) -> str:
    blind = sum(site.state == "blind" for site in baseline.sites)
    return f"{len(baseline.sites)}{f', {blind} of them blind' if blind else ''}"


def _scope(certificate: Certificate, calibrated: bool) -> Iterator[tuple[str, str]]:
    if calibrated:
        yield "hours", _HOURS[certificate.strata]
    horizons = ", ".join(map(str, certificate.horizons))
    looks = f"; {certificate.looks:.1f} independent looks at the one that has fewest" if calibrated else ""
    yield "horizons", f"windows averaged: {horizons}{looks}"


def _tier(armed: bool, does: str, limit: float, missing: str) -> str:
    if not armed:
        return f"cannot be armed: {missing}"
    if math.isinf(limit):
        return "can be armed"
    return f"can be armed: drift {does} from a surprise of {limit:.2f} on (probability {10**-limit:.1e} a look)"


def _budget(budget: float, tier: str, period: str) -> str:
    return f"budget {budget:g} false {tier}{'' if budget == 1 else 's'} a model-{period}"


def _replay(certificate: Certificate) -> Iterator[tuple[str, str]]:
    """Yield what the replay gave, beside what it was asked for."""
    low, high = certificate.interval
    yield "replay", f"{certificate.replayed} windows, each quarter judged by limits from the others, loosened enough to count alarms"
    seen = f"false alarms: {certificate.requested:.1f} asked for, {certificate.observed} seen (95 % interval {low:.1f} to {high:.1f})"
    if low > certificate.requested:
        yield "", f"{seen}: more than asked for; record longer, on steadier traffic"
    elif high < certificate.requested:
        yield "", f"{seen}: fewer than asked for; limits err on the quiet side"
    else:
        yield "", f"{seen}: in keeping"


def _time(seconds: float) -> str:
    rhythm = next(rhythm for length, rhythm in _RHYTHMS if seconds < length)
    return f"{_span(seconds)} from first to last; a rhythm longer than that, such as {rhythm}, is not in it"


def _span(seconds: float) -> str:
    """Return seconds in their two largest units: "9 d 3 h", "1 h 39 min"."""
    rest = round(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        whole, rest = divmod(rest, length)
        if whole or parts:
            parts.append(f"{whole} {unit}")
    return " ".join(parts[:2]) or "0 s"
