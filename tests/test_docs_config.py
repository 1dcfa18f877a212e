"""The page of settings, made from `Config` itself; `GELUWATCH_UPDATE_DOCS=1 pytest tests/test_docs_config.py` writes it anew."""

from __future__ import annotations

import ast
import inspect
import os
from dataclasses import fields
from pathlib import Path

import pytest

from geluwatch import Config
from geluwatch.retention import Retention

PAGE = Path(__file__).parents[1] / "docs" / "config.md"
HEAD = """\
# Settings

`geluwatch.attach(model, name=..., config=geluwatch.Config(...))`. The default is meant to be left alone. What is set is
checked at once, and a value out of its range is refused with the range. This page is made from the class.

"""
RETENTION = "\n## `Retention`: what is kept of closed windows\n\n[docs/history.md](history.md) says what comes of it.\n\n"


def settings(cls: type) -> list[str]:
    """Return each field of a class of settings as a list item: name, default, and what its docstring says."""
    tree = ast.parse(inspect.getsource(cls)).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = []
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            assert isinstance(text, ast.Expr), f"{field.target.id} has no docstring"
            assert isinstance(text.value, ast.Constant)
            default = ast.unparse(field.value) if field.value else "needed"
            default = {"field(default_factory=Retention)": "Retention()"}.get(default, default)
            said = " ".join(str(text.value.value).split())
            found.append(f"- **`{field.target.id}`** = `{default}`: {said[0].lower()}{said[1:]}")
    return found


def page() -> str:
    """Return the page as it ought to be."""
    return HEAD + "\n".join(settings(Config)) + "\n" + RETENTION + "\n".join(settings(Retention)) + "\n"


def test_the_page_of_settings_is_current() -> None:
    """Every setting is on the page with its default and its meaning, and nothing else is."""
    if os.environ.get("GELUWATCH_UPDATE_DOCS"):
        PAGE.write_text(page())
    assert page() == PAGE.read_text()


@pytest.mark.parametrize("cls", [Config, Retention])
def test_every_setting_is_described(cls: type) -> None:
    """None of the fields is left out for being written otherwise."""
    assert {field.name for field in fields(cls)} == {item.split("`")[1] for item in settings(cls)}
