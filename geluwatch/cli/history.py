"""`geluwatch history`: what a store keeps of closed windows, and what goes."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from geluwatch.errors import StoreError
from geluwatch.retention import Retention

if TYPE_CHECKING:
    from geluwatch.store import HistoryInfo, SqlHistory

_KEPT_AS = {"raw": "windows", "hour": "hours", "day": "days"}
_UNITS = ("B", "kB", "MB", "GB", "TB")
_HEAD = ("model", "version", "kept as", "spans", "windows", "size", "from", "to")
_RIGHT = {"spans", "windows", "size"}

_AGES = {
    "raw_hours": "hours that windows are kept one by one",
    "hourly_days": "days that hours are kept",
    "daily_days": "days that days are kept",
    "most_bytes": "most bytes of a model",
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `history` with its actions."""
    what = "list, thin and forget the windows that a store keeps"
    parser = commands.add_parser("history", help=what, description=f"{what.capitalize()}.")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser(
        "list", help="what is kept, by model and age", description="Print what is kept, by model, version and age."
    )
    listing.set_defaults(func=_list)
    thinning = actions.add_parser(
        "thin",
        help="merge what has grown old, now",
        description="Merge what has grown old and drop what is too old or too much, now; watches do it once an hour.",
    )
    thinning.set_defaults(func=_thin)
    for name, meaning in _AGES.items():
        value = getattr(Retention(), name)
        option = f"--{name.replace('_', '-')}"
        thinning.add_argument(option, type=type(value), default=value, metavar="N", help=f"{meaning} (default: {value:,.0f})")
    forget = actions.add_parser("forget", help="drop what is older", description="Drop what a store keeps of a model up to a moment.")
    forget.add_argument(
        "--before", required=True, type=_moment, metavar="TIME", help='a date or a time, UTC: "2026-01-31", "2026-01-31T12:00"'
    )
    forget.add_argument("--model-version", help="only this version (default: all)")
    forget.set_defaults(func=_forget)
    for action in (listing, thinning):
        action.add_argument("model", nargs="?", help="only this model (default: all)")
    forget.add_argument("model", help="model name given to attach")
    for action in (listing, thinning, forget):
        action.add_argument("--store", required=True, metavar="URL", help="SQLAlchemy URL, for example sqlite:///geluwatch.db")


@contextmanager
def _opened(arguments: argparse.Namespace) -> Iterator[SqlHistory]:
    from geluwatch.store import SqlHistory, refuse_missing

    refuse_missing(arguments.store)
    with closing(SqlHistory(arguments.store)) as store:
        yield store


def _list(arguments: argparse.Namespace) -> int:
    with _opened(arguments) as store:
        kept = store.listing()
    if not kept:
        print("No window is kept there yet; a watch whose store it is keeps them.")
        return 0
    _refuse_unknown(kept, arguments.model)
    for line in _table(_row(info) for info in kept if arguments.model in {None, info.model}):
        print(line)
    return 0


def _thin(arguments: argparse.Namespace) -> int:
    retention = Retention(**{name: getattr(arguments, name) for name in _AGES})
    status = 0
    with _opened(arguments) as store:
        before = store.listing()
        _refuse_unknown(before, arguments.model)
        for model in dict.fromkeys(info.model for info in before if arguments.model in {None, info.model}):
            for damaged in _thinned(store, model, retention):
                print(f"geluwatch: {damaged}", file=sys.stderr)
                status = 1
            print(f"{model}: {_together(before, model)} before, {_together(store.listing(), model)} now")
    return status


def _thinned(store: SqlHistory, model: str, retention: Retention) -> Iterator[StoreError]:
    """Do all that age and size demand; yield what is wrong with each damaged span, which is passed over."""
    seen: set[str] = set()
    while True:
        try:
            if not store.thin(model, retention, time.time()):
                return
        except StoreError as failure:
            if str(failure) in seen:
                raise
            seen.add(str(failure))
            yield failure


def _forget(arguments: argparse.Namespace) -> int:
    with _opened(arguments) as store:
        _refuse_unknown(store.listing(), arguments.model)
        gone = store.forget(arguments.model, arguments.before, arguments.model_version)
        left = _together(store.listing(), arguments.model)
    print(f"{arguments.model}: {gone:,} span{'' if gone == 1 else 's'} forgotten, {left} left")
    return 0


def _refuse_unknown(listing: Iterable[HistoryInfo], model: str | None) -> None:
    """Refuse a model of which nothing is kept; None stands for all that there are.

    Raises:
        StoreError: Nothing is kept of it.
    """
    if model is not None and model not in {info.model for info in listing}:
        raise StoreError(f'Nothing is kept of model "{model}"; `geluwatch history list` names the models there are.')


def _together(listing: Iterable[HistoryInfo], model: str) -> str:
    mine = [info for info in listing if info.model == model]
    spans = sum(info.spans for info in mine)
    return f"{spans:,} span{'' if spans == 1 else 's'} of {_size(sum(info.size for info in mine))}"


def _row(info: HistoryInfo) -> tuple[str, ...]:
    counts = (f"{info.spans:,}", f"{info.windows:,}", _size(info.size))
    return (info.model, info.model_version, _KEPT_AS[info.resolution], *counts, _when(info.started), _when(info.ended))


def _table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of a table whose columns are as wide as they have to be."""
    lines = [_HEAD, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.rjust(width) if name in _RIGHT else cell.ljust(width) for name, cell, width in zip(_HEAD, line, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _size(count: float) -> str:
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"


def _moment(text: str) -> float:
    """Return seconds since the epoch of a date or a time; UTC where no zone is given."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"no date or time: {text!r}; give one like 2026-01-31 or 2026-01-31T12:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%MZ")
