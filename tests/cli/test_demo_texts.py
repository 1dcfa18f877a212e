"""The demonstration's traffic."""

from __future__ import annotations

import pytest

from geluwatch.cli.demo import texts
from geluwatch.errors import MissingPartError


def test_the_same_seed_gives_the_same_texts(corpus: texts.Texts) -> None:
    """Texts depend on the standard library and the seed alone."""
    assert corpus == texts.load(baseline=64, held_out=128, code=64)
    assert corpus.baseline != texts.load(baseline=64, held_out=128, code=64, seed=7).baseline


def test_what_is_held_out_is_not_in_the_baseline(corpus: texts.Texts) -> None:
    """No prose text is served twice, neither whole nor with the same beginning."""
    prose = [*corpus.baseline, *corpus.held_out]
    assert (64, 128) == (len(corpus.baseline), len(corpus.held_out))
    assert len(prose) == len({text[:40].casefold() for text in prose})


def test_prose_reads_as_prose_and_code_as_code(corpus: texts.Texts) -> None:
    """Prose comes in one line without interpreter sessions, code with its line breaks and without docstrings."""
    for text in (*corpus.baseline, *corpus.held_out):
        assert 100 <= len(text) <= 400
        assert "\n" not in text
        assert ">>>" not in text
    for text in corpus.code:
        assert 100 <= len(text) <= 400
        assert "\n" in text
        assert not text.lstrip().startswith(('"""', "'''"))


def test_too_small_a_library_is_refused() -> None:
    """A library without enough prose is named as the fault, with its number of texts."""
    with pytest.raises(MissingPartError, match=r"yield \d+ texts, too few"):
        texts.load(baseline=10**6)
