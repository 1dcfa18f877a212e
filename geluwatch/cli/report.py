"""`geluwatch report`: what happened to a model over a period, as one HTML file or as a short digest."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from geluwatch.errors import ConfigError

if TYPE_CHECKING:
    from geluwatch.ports import BaselineStore, History

_OUTPUT = Path("geluwatch-report.html")
_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_AGO = re.compile(r"(\d{1,6})([mhdw])")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `report`."""
    parser = commands.add_parser(
        "report",
        help="what happened to a model over a period, as one HTML file or a digest",
        description="Write what the history of a model says of a period: one HTML file that needs no network, "
        "or a digest for a mail or a ticket.",
    )
    when = "so long ago (90m, 24h, 7d, 4w) or a date (2025-03-01, 2025-03-01T12:00Z), in UTC"
    parser.add_argument("model", metavar="MODEL", help="model name given to attach")
    parser.add_argument("--store", required=True, metavar="URL", help="where its history is kept, for example sqlite:///geluwatch.db")
    parser.add_argument("--since", default="7d", metavar="WHEN", help=f"where the period begins: {when} (default: 7d)")
    parser.add_argument("--until", default="0m", metavar="WHEN", help="where it ends, likewise (default: now)")
    parser.add_argument("--model-version", metavar="V", help="only this version (default: all)")
    parser.add_argument(
        "--output", "-o", type=Path, metavar="FILE", help=f"file to write (default: {_OUTPUT}; a digest goes to the terminal)"
    )
    parser.add_argument("--digest", action="store_true", help="a short Markdown text instead of the page")
    parser.add_argument("--force", action="store_true", help="replace a file that is no report of geluwatch")
    parser.set_defaults(func=_report)


def _report(arguments: argparse.Namespace) -> int:
    now = time.time()
    since, until = (moment(getattr(arguments, name), now, f"--{name}") for name in ("since", "until"))
    if not since < until:
        raise ConfigError(f"--since {arguments.since} is not before --until {arguments.until}; give an earlier one.")
    from geluwatch.analysis import report

    with _stores(arguments.store) as (history, baselines):
        found = report.gather(history, baselines, report.Subject(arguments.model, arguments.model_version, since, until))
    if arguments.digest and arguments.output is None:
        print(report.digest(found), end="")
        return 0
    path = arguments.output or _OUTPUT
    size = report.write(path, report.digest(found) if arguments.digest else report.page(found, now), force=arguments.force)
    print(f"{'The digest' if arguments.digest else 'The report'} is in {path}, {size:,} bytes.")
    return 0


def moment(text: str, now: float, option: str) -> float:
    """Return the moment that an option names, in seconds since the epoch, and not before it.

    Args:
        text: So long ago, as in "7d", or an ISO date, with or without a time; without a zone it is in UTC.
        now: The present.
        option: What is named in the message.

    Raises:
        ConfigError: It is neither.
    """
    ago = _AGO.fullmatch(text.strip())
    if ago:
        return max(now - int(ago[1]) * _UNITS[ago[2]], 0.0)
    try:
        date = datetime.fromisoformat(text.strip())
        zoned = date if date.tzinfo else date.replace(tzinfo=UTC)
        return max(zoned.astimezone(UTC).timestamp(), 0.0)  # refused where UTC is in the year 10000 by then
    except (ValueError, OverflowError):
        known = "so long ago, such as 90m, 24h or 7d, or a date, such as 2025-03-01"
        raise ConfigError(f"{option} must be {known}, got {text!r}.") from None


@contextmanager
def _stores(url: str) -> Iterator[tuple[History, BaselineStore]]:
    """Open the history and the baselines of a store."""
    from geluwatch.store import SqlBaselines, SqlHistory, refuse_missing

    refuse_missing(url)
    with closing(SqlBaselines(url)) as baselines, closing(SqlHistory(url)) as history:
        yield history, baselines
