"""Numbers, times and names as the report writes them; times are in UTC."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

DASH = "–"


def date(seconds: float) -> datetime:
    """Return a moment, seconds since the epoch, as a date in UTC."""
    return datetime.fromtimestamp(seconds, tz=UTC)


def moment(seconds: float) -> str:
    """Return a moment as "Thu 6 Mar 14:05"."""
    told = date(seconds)
    return f"{told:%a} {told.day} {told:%b %H:%M}"


def day(seconds: float) -> str:
    """Return a day as "6 March 2025"."""
    told = date(seconds)
    return f"{told.day} {told:%B %Y}"


def stamp(seconds: float) -> str:
    """Return a moment as "2025-03-06 14:05Z"."""
    return f"{date(seconds):%Y-%m-%d %H:%MZ}"


def period(since: float, until: float) -> str:
    """Return a period as "3 to 10 March 2025", or with its hours where it is shorter than two days."""
    one, two = date(since), date(until)
    if until - since < 2 * 86400.0:
        return f"{day(since)} {one:%H:%M} to {'' if one.date() == two.date() else f'{day(until)} '}{two:%H:%M}"
    if one.year != two.year:
        return f"{day(since)} to {day(until)}"
    return f"{one.day} to {day(until)}" if one.month == two.month else f"{one.day} {one:%B} to {day(until)}"


def lasting(seconds: float) -> str:
    """Return a duration in its two largest units: "2 d 3 h", "1 h 39 min", "12 s"."""
    rest = round(seconds)
    parts: list[tuple[int, str]] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        whole, rest = divmod(rest, length)
        if parts or whole:
            parts.append((whole, unit))
    return " ".join(f"{whole} {unit}" for whole, unit in parts[:2] if whole) or "0 s"


def count(number: float) -> str:
    """Return a count as "12,345", or as "1.2 million"."""
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return f"{round(number):,}"


def plural(number: int, noun: str) -> str:
    """Return "1 pass", "2 passes"."""
    return f"{count(number)} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"


def share(part: float, whole: float) -> str:
    """Return a share as "0.42 %", with what is there but rounds to nothing as "under 0.01 %"."""
    if not whole > 0.0:
        return DASH
    percent = 100.0 * part / whole
    return "under 0.01 %" if 0.0 < percent < 0.01 else f"{percent:.2f} %"


def number(value: float, digits: int = 2) -> str:
    """Return a number with so many digits behind the point, a very large one by its power of ten, and a dash for NaN."""
    if math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.1e}" if abs(value) >= 1e5 else f"{value:.{digits}f}"
    return text.replace("-", "−")


def listed(items: Sequence[str], most: int) -> str:
    """Return items as "a, b and c", those beyond `most` as a count."""
    if len(items) > most:
        items = [*items[:most], f"{len(items) - most} more"]
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def shortened(layers: Sequence[str]) -> dict[str, str]:
    """Return for each layer what its name does not share with all others at either end, a bare number with the part before it.

    Where that leaves nothing, the name stays whole.
    """
    parts = [layer.split(".") for layer in layers]
    least = min(map(len, parts), default=0)
    head = next((at for at in range(least) if len({each[at] for each in parts}) > 1), 0)
    head -= head > 0 and all(each[head].isdigit() for each in parts)
    tail = next((at for at in range(least - head) if len({each[-1 - at] for each in parts}) > 1), 0)
    short = {layer: ".".join(each[head : len(each) - tail]) for layer, each in zip(layers, parts, strict=True)}
    return short if len(set(short.values())) == len(layers) and all(short.values()) else {layer: layer for layer in layers}
