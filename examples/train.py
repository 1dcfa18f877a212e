"""Train a small character model on the standard library's source, watched by geluwatch.

    python examples/train.py --steps 200

A NaN or an Inf at any GELU is counted in the very step in which it arises, and the first layer is named. Try
``--learning-rate 30`` to see it happen.
"""

from __future__ import annotations

import argparse
import inspect
import textwrap

import torch
from torch import Tensor, nn
from torch.nn import functional

import geluwatch


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.GRU(width, width, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(x)[0]
        return x + self.feed_forward(self.norm(x))


class Characters(nn.Module):
    def __init__(self, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.head = nn.Linear(width, 128)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(tokens)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    options = parser.parse_args()

    torch.manual_seed(0)
    source = inspect.getsource(argparse) + inspect.getsource(textwrap)
    text = torch.frombuffer(bytearray(source.encode("ascii", "replace")), dtype=torch.uint8).long()
    model = Characters()
    optimizer = torch.optim.SGD(model.parameters(), lr=options.learning_rate)

    with geluwatch.attach(model, name="characters", version="1") as watch:
        print(f"geluwatch at {watch.serve()}, {len(watch.sites)} GELUs", flush=True)
        for step in range(options.steps):
            starts = torch.randint(len(text) - 65, (16,))
            batch = torch.stack([text[start : start + 65] for start in starts])
            loss = functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.note_step(loss)
            if step % 20 == 0:
                report = watch.flush()
                print(f"step {step:4}  loss {loss.item():7.3f}  non-finite passes {report.totals.nonfinite_forwards}", flush=True)
                if report.first_nonfinite:
                    print(f"a NaN or an Inf arose first in {report.first_nonfinite}; read: geluwatch runbook NonFiniteActivations")
                    break


if __name__ == "__main__":
    main()
