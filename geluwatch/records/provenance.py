"""Where a baseline comes from: the weights, the arithmetic and the machine that its windows were seen on, and who vouches for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Weights:
    """All parameters and buffers of a model, by digest (see `geluwatch.tap.weights`)."""

    digest: str = ""
    """SHA-256 of all of them, 64 hexadecimal digits; equal for equal weights under any wrapper, device or tying. Empty where unknown."""
    reason: str = ""
    """Why it is unknown."""
    tensors: Mapping[str, str] = field(default_factory=dict)
    """The first 16 digits of each tensor's own digest, by its name without wrapper prefixes, in the model's order."""
    parameters: int = 0
    """Elements of all parameters; one that is shared counts once."""
    dtypes: tuple[str, ...] = ()
    """Dtypes of the parameters, that of the most elements first."""
    devices: tuple[str, ...] = ()
    """Kinds of device they lie on, for example "cuda", likewise."""


@dataclass(frozen=True, slots=True)
class Activation:
    """What one GELU says it computes, and what it was seen to compute (see `geluwatch.core.parity`)."""

    layer: str
    form: str
    kind: str
    declared: str
    """Formula by the code: "erf", "tanh", "quick" or "other"."""
    measured: str = ""
    """Formula by the values; empty where they were not measured or do not tell."""
    dtype: str = ""
    """Dtype of the values; empty where they were not measured."""
    precision: str = ""
    """Dtype whose rounding explains the errors; empty where none does, or they were not measured."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a model was, and what it ran on, at one moment."""

    weights: Weights = field(default_factory=Weights)
    activations: tuple[Activation, ...] = ()
    """The census, in its order."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of "python", "geluwatch" and "torch", and of "cuda", "hip" and "transformers" where they are there."""
    machine: Mapping[str, str] = field(default_factory=dict)
    """"platform", "cpu" (the instruction set that torch uses) and, where there is one, "accelerator"."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The watch's `Config`, each value as text."""


@dataclass(frozen=True, slots=True)
class Signature:
    """An Ed25519 signature of a baseline's content (see `geluwatch.store.signing`)."""

    key: str
    """The public key, 32 bytes as hexadecimal digits."""
    value: str
    """The signature, 64 bytes likewise."""

    @property
    def signer(self) -> str:
        """How a key is called in short: its first 16 digits."""
        return self.key[:16]


@dataclass(frozen=True, slots=True)
class BaselineOrigin:
    """What readers are shown of where an armed baseline comes from; each "unknown" where the baseline does not tell."""

    weights: str = "unknown"
    """The first 16 digits of the weights' digest."""
    dtype: str = "unknown"
    device: str = "unknown"
    torch: str = "unknown"
    signer: str = "none"
    promoted: bool = False
    """Whether it was promoted when it was armed."""
