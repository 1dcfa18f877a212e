"""Which rows are real: masks that are trusted, masks that are not, and what they do to hits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from geluwatch.records import Nonfinite, Report
from geluwatch.tap import padding


def bad(*shape: int, at: tuple[int, ...] = (), value: float = math.nan) -> torch.Tensor:
    """Return random values with one planted."""
    x = torch.randn(*shape)
    x[at or (0,) * len(shape)] = value
    return x


def seen(report: Report) -> Nonfinite:
    """Return what was counted at the layer since attach."""
    return report.totals.nonfinite.get("act", Nonfinite())


MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])


@pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.float32, torch.int32])
@pytest.mark.parametrize("by_name", [True, False], ids=["by name", "by position"])
def test_values_at_padding_are_counted_apart(
    dtype: torch.dtype, by_name: bool, attach: Callable[..., Any], only: Callable[..., Any]
) -> None:
    """A NaN at a padding row alone is counted as padding and pages nobody; one at a valid row pages."""
    model = only()
    watch = attach(model)
    mask = MASK.to(dtype)
    run = (lambda x: model(x, attention_mask=mask)) if by_name else (lambda x: model(x, mask))
    run(bad(2, 3, 4, at=(1, 2, 0)))
    report = watch.flush()
    assert (0, 0, 1, {}) == (seen(report).forwards, seen(report).first, seen(report).padding_forwards, seen(report).elements)
    assert (0, None) == (report.totals.nonfinite_forwards, report.first_nonfinite)
    assert "page" != report.verdict
    run(bad(2, 3, 4, at=(1, 1, 0)))
    report = watch.flush()
    assert (1, 1, 1, {("pre", "nan"): 1}) == (
        seen(report).forwards,
        seen(report).first,
        seen(report).padding_forwards,
        seen(report).elements,
    )
    assert ("act", "page") == (report.first_nonfinite, report.verdict)


def test_of_values_on_both_sides_of_the_mask_the_valid_are_counted(attach: Callable[..., Any], only: Callable[..., Any]) -> None:
    """A pass with values at padding and at valid rows is a hit, and only the valid elements are counted."""
    model = only()
    watch = attach(model)
    x = bad(2, 3, 4, at=(1, 2, 0))
    x[0, 0, :2] = math.inf
    model(x, attention_mask=MASK)
    assert (1, 0, {("pre", "posinf"): 2}) == (
        seen(watch.flush()).forwards,
        seen(watch.report).padding_forwards,
        seen(watch.report).elements,
    )


class Spoils(nn.Module):
    """A GELU with a fault of its own at one place."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input, one element of it spoilt."""
        y = x.clone()
        y[0, 0, 0] = math.nan
        return y


def test_padding_before_the_gelu_does_not_hide_what_arises_in_it(attach: Callable[..., Any], only: Callable[..., Any]) -> None:
    """An infinity at a padding row of the input does not cover for a NaN that the GELU makes at a valid row."""
    model = only(Spoils())
    watch = attach(model, gelu_classes=(Spoils,))
    model(bad(2, 3, 4, at=(1, 2, 1), value=math.inf), attention_mask=MASK)
    assert (1, {("post", "nan"): 1}) == (watch.flush().totals.nonfinite_forwards, seen(watch.report).elements)


@pytest.mark.parametrize(
    "mask",
    [
        (1.0 - MASK.float()) * -1e9,
        torch.zeros(2, 3),
        MASK * 2,
        torch.tensor([[1, 1, 2], [1, 1, 2]]),
        MASK[:, None, None, :],
        torch.tensor([[1, 1], [1, 0]]),
        torch.zeros(2, 3, dtype=torch.bool),
        "no tensor",
        None,
    ],
    ids=[
        "additive",
        "additive without padding",
        "odd values",
        "packed documents",
        "four dimensions",
        "another shape",
        "nothing valid",
        "a string",
        "none",
    ],
)
def test_masks_that_may_mean_something_else_are_not_trusted(mask: Any, attach: Callable[..., Any], only: Callable[..., Any]) -> None:
    """A mask that is not plainly one of padding hides nothing: a NaN anywhere is a hit."""
    model = only()
    watch = attach(model)
    model(bad(2, 3, 4, at=(1, 2, 0)), attention_mask=mask)
    assert (1, {}) == (watch.flush().totals.nonfinite_forwards, watch.report.totals.errors)


def test_the_users_own_mask_function_decides(attach: Callable[..., Any], only: Callable[..., Any]) -> None:
    """A padding function sees the root call's arguments, and what it returns is honoured over any argument's name."""
    calls: list[tuple[int, list[str]]] = []

    def padding(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        calls.append((len(args), list(kwargs)))
        return MASK

    model = only()
    watch = attach(model, padding=padding, cost_budget=1e-9)
    model(torch.randn(2, 3, 4))
    calls.clear()
    model(bad(2, 3, 4, at=(1, 2, 0)), attention_mask=torch.ones(2, 3))
    assert (0, 1) == (watch.flush().totals.nonfinite_forwards, seen(watch.report).padding_forwards)
    assert [(1, ["attention_mask"])] == calls


def test_the_mask_function_is_asked_about_root_calls_alone(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """A part that is called by itself has no root call, so the user's function is not asked, let alone blamed."""

    def padding(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        raise LookupError("asked without a root call")

    model = nn.Sequential(block())
    watch = attach(model, padding=padding)
    model[0](bad(2, 8))
    assert (1, {}) == (watch.flush().totals.nonfinite_forwards, watch.report.totals.errors)


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 8), (6, 8), (2, 3, 5, 8), (3, 2, 8), (8,), ()])
def test_a_mask_applies_only_where_its_shape_fits(shape: tuple[int, ...]) -> None:
    """A mask (batch, tokens) is for tensors (batch, tokens, channels) and for no other shape."""
    assert padding.for_rows(MASK.bool(), torch.Size(shape)) is None


def test_a_mask_that_fits_is_flattened_and_one_that_hides_nothing_is_none() -> None:
    """The fitting mask comes as one flag a row; a mask without padding costs nothing later."""
    flags = padding.for_rows(MASK.bool(), torch.Size((2, 3, 8)))
    assert flags is not None
    assert [True, True, True, True, True, False] == flags.tolist()
    assert padding.for_rows(torch.ones(2, 3, dtype=torch.bool), torch.Size((2, 3, 8))) is None


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((torch.zeros(3, 2),), {}, 3),
        ((), {"a": None, "b": torch.zeros(5)}, 5),
        (("text", torch.tensor(1.0)), {}, 1),
        (("text",), {"flag": True}, 0),
        ((), {}, 0),
    ],
)
def test_the_batch_size_is_read_off_the_first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any], expected: int) -> None:
    """The batch is the first dimension of the first tensor among the arguments, 0 where there is none."""
    assert expected == padding.batch_size(padding.first_tensor(args, kwargs))


class Unreadable(nn.Module):
    """A module whose forward has no signature to read."""

    forward = dict.fromkeys


class Masked(nn.Module):
    """A module that takes its mask second."""

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return the input."""
        return x


class OnlyByName(nn.Module):
    """A module that takes its mask by name alone."""

    def forward(self, x: torch.Tensor, *, attention_mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return the input."""
        return x


class AfterAnother(nn.Module):
    """A module whose first argument cannot be named."""

    def forward(self, x: torch.Tensor, /, attention_mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return the input."""
        return x


@pytest.mark.parametrize(("cls", "expected"), [(Masked, 1), (AfterAnother, 1), (OnlyByName, None), (Unreadable, None), (nn.Identity, None)])
def test_the_mask_is_found_by_position_where_the_forward_names_it(cls: type[nn.Module], expected: int | None) -> None:
    """The place of `attention_mask` among positional arguments is read off the forward's signature, where it has one."""
    assert expected == padding.argument_position(cls())


class HandsOn(nn.Module):
    """A wrapper that names no argument, as DDP and FSDP are."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the wrapped module returns."""
        return self.module(*args, **kwargs)


class Prepares(HandsOn):
    """No wrapper, for its arguments are its own."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> Any:  # type: ignore[override]  # that is the point
        """Return what the module returns."""
        return self.module(x, mask)


class NamesIt(HandsOn):
    """A wrapper that takes the mask by name alone."""

    def forward(self, *args: Any, attention_mask: torch.Tensor | None = None) -> Any:
        """Return what the wrapped module returns."""
        return self.module(*args, attention_mask)


WRAPS: dict[str, tuple[Callable[[nn.Module], nn.Module], int | None]] = {
    "DataParallel": (nn.DataParallel, 1),
    "torch.compile": (lambda model: torch.compile(model, backend="eager"), 1),
    "one in another": (lambda model: nn.DataParallel(torch.compile(HandsOn(model), backend="eager")), 1),
    "a module that takes other arguments": (Prepares, None),
    "a module that takes the mask by name": (NamesIt, None),
    "a container": (nn.Sequential, None),
}


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_wrapper_is_asked_what_it_wraps(wrap: str, attach: Callable[..., Any], only: Callable[..., Any]) -> None:
    """Where a wrapper hands all arguments on, the mask is where the model it wraps takes it; where it has its own, it decides."""
    around, expected = WRAPS[wrap]
    model = around(only())
    watch = attach(model)
    assert expected == padding.argument_position(model)
    if expected is not None:
        with torch.no_grad():
            model(bad(2, 3, 4, at=(1, 2, 0)), MASK)
        (counted,) = watch.flush().totals.nonfinite.values()
        assert (0, 1, {}) == (counted.forwards, counted.padding_forwards, watch.report.totals.errors)


def test_a_mask_is_brought_to_each_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes once to a device that is not its own, and not where it hides nothing, a wait would be needed or a graph is recorded."""
    here, there = torch.device("cpu"), torch.device("meta")
    given = MASK.bool()
    mask = padding.Mask(given)
    assert mask.on(here) is given
    assert mask.on(there) is mask.on(there) is not None
    assert padding.Mask(given.to(there)).on(here) is None
    assert padding.Mask(torch.ones_like(given)).on(there) is None
    monkeypatch.setattr(padding, "capturing", lambda _: True)
    assert padding.Mask(given).on(there) is None
