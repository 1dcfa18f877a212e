"""Which of the sites that were hit came first in a pass, found on a device without a wait."""

from __future__ import annotations

import torch

from geluwatch.tap._compat import capturing

_ORDERS = 16


class Places:
    """When each site came, by the order of a pass; an order hardly ever changes, so it is kept on the device.

    Args:
        sites: How many there are.
        device: Where they are counted.
    """

    def __init__(self, sites: int, device: torch.device) -> None:
        self._sites, self._device = sites, device
        self._numbered = torch.arange(sites, device=device)
        self._behind = torch.full((), sites, device=device)
        self._known: dict[tuple[int, ...], torch.Tensor] = {}
        self._graphed: set[torch.Tensor] = set()
        """What captured graphs read whenever they are replayed, so that it has to stay where it is."""

    def first(self, bad: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
        """Return (sites,) bool, true for the earliest of the sites that are `bad`; nowhere true where none is.

        Args:
            bad: (sites,) bool, true only for sites that took part.
            order: The sites that took part, as they came.
        """
        arrived = torch.where(bad, self._of(order), self._behind)
        return bad & (arrived == arrived.min())

    def _of(self, order: tuple[int, ...]) -> torch.Tensor:
        """Return when each site came, those that did not take part behind all that did."""
        place = self._known.get(order)
        if capturing(self._device):
            # Nothing may come from the host now. An order that no pass before has had is told by the numbers of its sites.
            place = self._numbered if place is None else place
            self._graphed.add(place)
        elif place is None:
            if len(self._known) >= _ORDERS:
                self._known.clear()
            arrival = {site: when for when, site in enumerate(order)}
            values = torch.tensor([arrival.get(site, self._sites) for site in range(self._sites)], device="cpu")
            values = values.pin_memory() if self._device.type == "cuda" else values
            place = self._known[order] = values.to(self._device, non_blocking=True)
        return place
