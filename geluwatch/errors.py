"""Every error geluwatch raises on purpose, as one tree.

::

    GeluwatchError
    ├── ConfigError             a setting or argument is unusable        (also a ValueError)
    ├── AttachError             the model cannot be watched
    │   ├── NoGeluError         ... because no GELU was found in it
    │   └── AlreadyAttachedError ... because a watch is on it already
    ├── DetachedError           the watch has been detached
    ├── ProbeError              a probe cannot be recorded or replayed
    │   └── ProbeBusyError      ... at this moment
    ├── BaselineError           a baseline cannot be recorded, armed or read
    │   ├── UnknownBaselineError
    │   ├── SignatureError      ... because it is unsigned, signed by another key, or changed
    │   └── PromotionError      ... because it was retired, or lacks what its model's policy asks for
    ├── StoreError              the database cannot be reached or used
    │   └── DamagedError        ... for some of what it holds; the rest was given
    ├── ReportError             there is nothing to report on, or the file cannot be written
    ├── IncidentError           a bundle of evidence cannot be written, read or replayed
    ├── ListenError             the HTTP listener cannot start
    ├── LatticeError            histograms or tables that do not belong together
    ├── MissingPartError        an optional package or program is not installed
    └── MixinError              rendered artefacts are stale or cannot be written

Each message is one sentence that says what was wrong, the value, and what to do.
Inside a hook nothing is ever raised: failures there are counted by the breaker.
"""

from __future__ import annotations


class GeluwatchError(Exception):
    """Base of every error that geluwatch raises on purpose."""


class ConfigError(GeluwatchError, ValueError):
    """A setting or an argument has an unusable value."""


class AttachError(GeluwatchError):
    """The model cannot be watched."""


class NoGeluError(AttachError):
    """The model holds no GELU that geluwatch knows."""


class AlreadyAttachedError(AttachError):
    """The model is being watched already."""


class DetachedError(GeluwatchError):
    """The watch has been detached from its model."""


class BaselineError(GeluwatchError):
    """A baseline cannot be recorded, armed or read."""


class UnknownBaselineError(BaselineError):
    """No baseline of that name is stored for this model."""


class SignatureError(BaselineError):
    """A baseline is unsigned, signed by a key that is not trusted, or not what was signed; or a key is unusable."""


class PromotionError(BaselineError):
    """A baseline cannot be promoted, approved, retired or armed as it stands."""


class ProbeError(GeluwatchError):
    """A probe cannot be recorded or replayed."""


class ProbeBusyError(ProbeError):
    """A probe cannot be replayed at this moment, for what the model is doing elsewhere."""


class StoreError(GeluwatchError):
    """The database cannot be reached or used."""


class DamagedError(StoreError):
    """Some of what the database holds cannot be read; everything else has been given."""


class ReportError(GeluwatchError):
    """There is nothing to report on, or a report cannot be written."""


class IncidentError(GeluwatchError):
    """A bundle of evidence cannot be written, read or replayed."""


class ListenError(GeluwatchError):
    """The HTTP listener cannot start."""


class LatticeError(GeluwatchError, ValueError):
    """Two histograms, or sets of channels, do not belong together."""


class MissingPartError(GeluwatchError):
    """An optional package or program is not installed."""


class MixinError(GeluwatchError):
    """Rendered artefacts are stale or cannot be written."""
