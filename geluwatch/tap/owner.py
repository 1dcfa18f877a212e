"""A module whose own code calls GELU as a function: its call sites, each known by its place in the code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import CodeType

from torch import nn

from geluwatch.tap.calls import Chain, methods_of
from geluwatch.tap.discover import Found

Place = tuple[tuple[int, int], ...]
"""A chain of calls as (id of code, offset): comparing code objects compares their contents."""


@dataclass(frozen=True, slots=True, eq=False)
class Owner:
    """A module that calls GELU as a function; nothing in here holds the module."""

    identity: int
    """The module's `identity`."""
    codes: frozenset[int]
    """Ids of the code of its own methods, where a chain of calls ends."""
    sites: dict[Place, int]
    """Call sites by place, in textual order."""
    unplaced: list[int]
    """Sites whose place the code does not tell; the first call that is not known is theirs."""
    kept: list[CodeType]
    """The code objects, so that their ids stay theirs."""

    @property
    def ordered(self) -> tuple[int, ...]:
        """Its sites in the order in which its code calls them."""
        return tuple(sorted(self.sites.values()))

    def find(self, place: Place) -> int | None:
        """Return the site of a place; where tools stand in between, of the innermost link, if it is but one site's."""
        site = self.sites.get(place)
        if site is None:
            same = [known for chain, known in self.sites.items() if chain[-1] == place[-1]]
            site = same[0] if len(same) == 1 and len(place) > 1 else None
        return site

    def take_in(self, chain: Chain, site: int) -> None:
        """Add a call that was found when it ran."""
        self.kept.extend(code for code, _ in chain)
        self.sites[place_of(self.within(chain))] = site

    def within(self, chain: Chain) -> Chain:
        """Return a chain of calls up to the owner's first own code."""
        ends = [place for place, (code, _) in enumerate(chain) if id(code) in self.codes]
        return chain[: ends[0] + 1] if ends else chain


def owner_of(module: nn.Module, found: Iterable[Found]) -> Owner:
    """Return what there is to know of a module's own calls."""
    own = methods_of(module)
    owner = Owner(identity(module), frozenset(map(id, own)), {}, [], list(own))
    for item in found:
        if item.chain:
            owner.take_in(item.chain, item.site.position)
        else:
            owner.unplaced.append(item.site.position)
    return owner


def place_of(chain: Chain) -> Place:
    """Return a chain of calls as what can be compared quickly."""
    return tuple((id(code), offset) for code, offset in chain)


def identity(module: nn.Module) -> int:
    """Return what a module and its DataParallel replicas have in common and no copy has: its dictionary of hooks."""
    return id(module._forward_hooks)  # noqa: SLF001
