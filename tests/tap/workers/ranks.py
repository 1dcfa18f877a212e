"""One of two processes that train and serve watched models together over gloo on the loopback; writes what it saw as JSON.

Usage: ranks.py RANK DIRECTORY
"""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import geluwatch

WIDTH = 8
STEPS = 4
WATCH = geluwatch.Config(window_seconds=None, flush_seconds=3600.0, minimum_rows=2, cost_budget=None)


class Block(nn.Module):
    """Dense, GELU, dense."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., 8) to the same shape."""
        result: torch.Tensor = x + self.down(self.act(self.up(x)))
        return result


class Blocks(nn.Module):
    """Three blocks; the middle one can be left out of a pass."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))

    def forward(self, x: torch.Tensor, skip: bool = False) -> torch.Tensor:
        """Map (..., 8) to the same shape."""
        for place, block in enumerate(self.blocks):
            x = x if skip and place == 1 else block(x)
        return x


def blocks() -> Blocks:
    """Return the same model in every process."""
    torch.manual_seed(1)
    return Blocks()


def batch(rank: int, turn: int) -> torch.Tensor:
    """Return inputs that differ from rank to rank and from turn to turn."""
    return torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(100 * rank + turn))


def train(model: nn.Module, rank: int, after: Callable[[], object] = lambda: None, **how: Any) -> list[torch.Tensor]:
    """Train for some steps, each followed by a faulty pass without gradients on every rank that is due; return losses and parameters."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    seen = []
    for turn in range(STEPS):
        loss = model(batch(rank, turn), **how).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(loss.detach())
        with torch.no_grad():  # every rank runs it, for sharded models gather their weights together
            x = batch(rank, turn)
            if turn % 2 == rank or turn == 3:
                x[rank, 0] = math.inf
            seen.append(model(x))
        after()
    return [*seen, *(parameter.detach() for parameter in model.parameters())]


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return this rank's part of a sharded tensor."""
    part: torch.Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part.contiguous().view(torch.int32)


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    """Return whether all tensors are the same bits on this rank."""
    return all(torch.equal(local(one), local(other)) for one, other in zip(left, right, strict=True))


def summary(watch: geluwatch.Watch) -> dict[str, Any]:
    """Return what a watch has counted."""
    totals = watch.flush().totals
    return {
        "sites": [site.layer for site in watch.sites],
        "states": [site.state for site in watch.sites],
        "reasons": [site.reason for site in watch.sites],
        "forwards": totals.forwards,
        "hits": totals.nonfinite_forwards,
        "by_layer": {layer: [seen.forwards, seen.first] for layer, seen in totals.nonfinite.items()},
        "elements": {layer: sum(seen.elements.values()) for layer, seen in totals.nonfinite.items()},
        "errors": dict(totals.errors),
        "disabled": list(watch.report.disabled),
    }


def together(watch: geluwatch.Watch) -> dict[str, Any]:
    """Return what all ranks have counted; every rank has to ask."""
    totals = watch.gather()
    return {
        "rank": watch.report.labels.get("rank"),
        "together": [totals.forwards, totals.nonfinite_forwards, totals.samples],
        "firsts together": {layer: seen.first for layer, seen in totals.nonfinite.items()},
    }


def recorded_eagerly(rank: int, store: str) -> None:
    """Record a baseline of the model as it is before anything wraps it."""
    model = blocks()
    with geluwatch.attach(model, name="model", store=store, config=WATCH) as watch, torch.no_grad():
        for turn in range(40):
            model(batch(rank, turn))
            watch.close_window()
        watch.record_baseline("eager")


def wrapped(rank: int, directory: Path, wrap: Callable[[Blocks], nn.Module], **how: Any) -> dict[str, Any]:
    """Train a wrapped model with and without a watch; return counts, whether bits are the same, and whether the baseline arms."""
    store = f"sqlite:///{directory}/baselines{rank}.db"
    expected = train(wrap(blocks()), rank, **how)
    model = wrap(blocks())
    with geluwatch.attach(model, name="model", store=store, config=WATCH) as watch:
        armed = watch.arm("eager").armed
        actual = train(model, rank, watch.flush, **how)
        return {**summary(watch), **together(watch), "armed": armed, "same": same(expected, actual)}


def ddp(rank: int, directory: Path) -> dict[str, Any]:
    """Train under DistributedDataParallel."""
    return wrapped(rank, directory, DistributedDataParallel)


def sharded(model: Blocks) -> nn.Module:
    """Shard a model over both ranks, block by block."""
    mesh = init_device_mesh("cpu", (2,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def fsdp(rank: int, directory: Path) -> dict[str, Any]:
    """Train under fully_shard."""
    return wrapped(rank, directory, sharded)


def fsdp_later(rank: int, directory: Path) -> dict[str, Any]:
    """Shard a model that is being watched already."""
    expected = train(sharded(blocks()), rank)
    model = blocks()
    with geluwatch.attach(model, name="model", config=WATCH) as watch:
        actual = train(sharded(model), rank, watch.flush)
        return {**summary(watch), **together(watch), "same": same(expected, actual)}


def uneven(rank: int, directory: Path) -> dict[str, Any]:
    """Watch one rank alone, while the other leaves a layer out; nobody waits for anybody."""
    model = DistributedDataParallel(blocks(), find_unused_parameters=True)
    if rank == 1:
        train(model, rank, skip=True)
        return {}
    with geluwatch.attach(model, name="model", config=WATCH) as watch:
        train(model, rank, watch.close_window)
        return summary(watch)


def tensor_parallel(rank: int, directory: Path) -> dict[str, Any]:
    """Split each block over the ranks, and spoil a bias that the second rank holds."""
    mesh: DeviceMesh = init_device_mesh("cpu", (2,))
    model = blocks()
    plan = {
        f"blocks.{place}.{name}": style for place in range(3) for name, style in (("up", ColwiseParallel()), ("down", RowwiseParallel()))
    }
    parallelize_module(model, mesh, plan)
    twin = copy.deepcopy(model)
    with geluwatch.attach(model, name="model", config=WATCH) as watch, torch.no_grad():
        equal = same([twin(batch(0, 0))], [model(batch(0, 0))])
        if rank == 1:
            model.blocks[1].up.bias.to_local()[0] = math.nan
        model(batch(0, 1))
        return {**summary(watch), "same": equal}


def dtensor(rank: int, directory: Path) -> dict[str, Any]:
    """Give the GELU a distributed tensor, then a plain one."""
    mesh = init_device_mesh("cpu", (2,))
    model = nn.Sequential(nn.GELU())
    x = distribute_tensor(torch.linspace(-1, 1, 32).reshape(4, WIDTH), mesh, [Shard(0)])
    expected = model(x)
    with geluwatch.attach(model, name="model", config=WATCH) as watch:
        equal = all(same([expected], [model(x)]) for _ in range(8))
        odd = summary(watch)
        model(torch.full((2, WIDTH), math.nan))
        return {**odd, "same": equal, "hits after": summary(watch)["hits"]}


def main() -> None:
    """Run every scenario and write the answers."""
    rank, directory = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=2)
    recorded_eagerly(rank, f"sqlite:///{directory}/baselines{rank}.db")
    scenarios = (ddp, fsdp, fsdp_later, uneven, tensor_parallel, dtensor)
    answers = {scenario.__name__: scenario(rank, directory) for scenario in scenarios}
    (directory / f"answers{rank}.json").write_text(json.dumps(answers))
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
