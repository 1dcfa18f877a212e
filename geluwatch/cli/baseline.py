"""`geluwatch baseline`: which baselines a store holds, and what they can promise."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `baseline list` and `baseline show`."""
    parser = commands.add_parser("baseline", help="list and show stored baselines", description="List and show stored baselines.")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="one line a baseline", description="Print one line for each stored baseline.")
    listing.set_defaults(func=_list)
    show = actions.add_parser("show", help="one baseline with its certificate", description="Print one baseline with its certificate.")
    show.add_argument("model", help="model name given to attach")
    show.add_argument("name", nargs="?", default="latest", help='baseline name; "latest" (the default) is the newest')
    show.add_argument("--model-version", default="1", help="model version given to attach (default: 1)")
    show.set_defaults(func=_show)
    for action in (listing, show):
        action.add_argument("--store", required=True, metavar="URL", help="SQLAlchemy URL, for example sqlite:///geluwatch.db")


def _list(arguments: argparse.Namespace) -> int:
    from geluwatch.store import SqlBaselines

    store = SqlBaselines(arguments.store)
    try:
        rows = store.listing()
    finally:
        store.close()
    if not rows:
        print("No baseline is stored there yet; Watch.record_baseline makes one.")
    for row in rows:
        state = "armable" if row.armed else "too small to arm"
        print(f"{row.model}  {row.model_version}  {row.name}  {_when(row.created)}  {row.windows} windows  {row.sites} sites  {state}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from geluwatch.store import SqlBaselines

    store = SqlBaselines(arguments.store)
    try:
        baseline = store.load(arguments.model, arguments.model_version, arguments.name)
    finally:
        store.close()
    certificate = baseline.certificate
    print(f"{baseline.name}: model {baseline.model}, version {baseline.model_version}, recorded {_when(baseline.created)}")
    print(f"  {certificate.windows} windows used, {certificate.left_out} left out, {len(baseline.sites)} sites")
    if not certificate.armed:
        print(f"  cannot be armed: {certificate.reason}")
        return 0
    horizons = ", ".join(map(str, certificate.horizons))
    print(f"  horizons {horizons}; budget {certificate.tickets_per_month:g} false tickets a model-month")
    print(f"  replay: {certificate.exceeded} of {certificate.replayed} calm scores above their threshold")
    for (layer, point, horizon), limit in certificate.thresholds.items():
        print(f"  {layer}  {point}  horizon {horizon}  threshold {limit:.2f}")
    return 0


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")
