"""`geluwatch baseline approve`, `promote`, `retire`, `policy` and `log`: what becomes of a baseline, and who did what with it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from geluwatch.cli.stored import add_key, add_store, called, key, opened, when
from geluwatch.errors import ConfigError

if TYPE_CHECKING:
    from geluwatch.store.audit import Entry
    from geluwatch.store.promotion import Policy

_SHORTEST = 8
_DONE = {
    "approve": "is approved",
    "promote": 'is promoted: "latest" means the newest promoted baseline of its version',
    "retire": "is retired for good: it stays, and is armed no more",
}


def add_actions(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the actions to those of `baseline`."""
    for name, what in (
        ("approve", "say that one is fit to be promoted; whoever recorded it cannot"),
        ("promote", 'make one what "latest" means; its model\'s policy says what it needs'),
        ("retire", 'take one out of use for good; it is no "latest", and is armed no more'),
    ):
        parser = actions.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        add_key(parser, default=None)
        parser.add_argument("--reason", default="", help="why, for the log")
        parser.set_defaults(func=_settle, action=name)
    policy = actions.add_parser(
        "policy",
        help="what a model's baselines need to be promoted",
        description="Print what a model's baselines need before they are promoted, and set it where an option is given.",
    )
    policy.add_argument("model", help="model name given to attach")
    policy.add_argument("--approvals", type=int, metavar="N", help="approvals by others than whoever recorded it")
    policy.add_argument("--stable-hours", type=float, metavar="HOURS", help="hours from its first window to its last")
    policy.set_defaults(func=_policy)
    log = actions.add_parser(
        "log",
        help="who did what with them, and whether the log is whole",
        description="Print the audit log, and check it. Exit status 1 where it is not whole.",
    )
    log.add_argument("model", nargs="?", help="print the entries of this model only; all are checked")
    log.add_argument(
        "--holds",
        metavar="DIGEST",
        help="print none, and check also that there is one whose digest, or its beginning, was noted earlier",
    )
    log.set_defaults(func=_log)
    for parser in (policy, log):
        add_store(parser)


def _settle(arguments: argparse.Namespace) -> int:
    with opened(arguments) as store:
        baseline = getattr(store, arguments.action)(*key(arguments), arguments.reason)
    print(f"{called(baseline)} {_DONE[arguments.action]}.")
    return 0


def _policy(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    asked = {name: getattr(arguments, name) for name in ("approvals", "stable_hours") if getattr(arguments, name) is not None}
    # A policy may be set before there is a baseline; one that is only read is in a store that is there.
    with opened(arguments, new=bool(asked)) as store:
        policy = replace(store.policy(arguments.model), **asked)
        if asked:
            store.set_policy(arguments.model, policy)
    print(f'To be promoted, a baseline of model "{arguments.model}" needs {_asked(policy)}, and a replay within what was asked for.')
    return 0


def _asked(policy: Policy) -> str:
    approvals = f"{policy.approvals} approval{'' if policy.approvals == 1 else 's'}"
    return f"{approvals} by others than whoever recorded it, {policy.stable_hours:g} hours from its first window to its last"


def _log(arguments: argparse.Namespace) -> int:
    from geluwatch.store import audit

    if arguments.holds is not None and len(arguments.holds) < _SHORTEST:
        raise ConfigError(f"--holds takes a digest or its first {_SHORTEST} digits or more, got {arguments.holds!r}.")
    with opened(arguments) as store:
        entries = store.log()
    for entry in entries:
        if arguments.holds is None and arguments.model in {None, entry.model}:
            print("  ".join(filter(None, (when(entry.time), entry.actor, entry.action, _about(entry), _detail(entry)))))
    flaws = [*audit.flaws(entries), *_lost(entries, arguments.holds)]
    if flaws:
        print(f"The log is not what was written: {'; '.join(flaws)}.")
        return 1
    print(f"The log of {len(entries)} entries is whole; the last is {entries[-1].digest}." if entries else "The log has no entry yet.")
    return 0


def _lost(entries: tuple[Entry, ...], noted: str | None) -> list[str]:
    """Return what is wrong where a digest that was noted is not in the log any more."""
    if noted is None or any(entry.digest.startswith(noted) for entry in entries):
        return []
    return [f"it has no entry {noted}, so it was cut off or made anew"]


def _about(entry: Entry) -> str:
    return " ".join(filter(None, (entry.model, entry.model_version, entry.name)))


def _detail(entry: Entry) -> str:
    """Return an entry's detail in words."""
    detail: dict[str, Any] = dict(entry.detail)
    if "before" in detail:
        before, after = detail["before"], detail["after"]
        moved = [name for name in after if before[name] != after[name]]
        return ", ".join(f"{name.replace('_', ' ')} {before[name]:g} became {after[name]:g}" for name in moved)
    words = {"from": "from {}", "to": "to {}", "key": "by key {:.16}", "digest": "content {:.16}", "reason": "reason: {}"}
    told = [form.format(detail[name]) for name, form in words.items() if name in detail]
    return "; ".join([*told, *detail.get("changes", ())])
