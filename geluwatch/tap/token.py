"""A sign of life of a thread."""

from __future__ import annotations


class Token:
    """Lives in a thread's locals and dies with them.

    The thread object would not do: one that was started outside Python has a dummy that counts as alive for ever.
    """
