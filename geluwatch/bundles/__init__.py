"""Bundles of evidence: what is known of a trouble, in one file, before anybody restarts the process that holds it.

`recorder` decides when one is due and gathers what goes into it, `contents` lays it out, `bundle` writes and reads the file,
`folder` keeps the newest. `docs/incident-bundle.md` is the format.
"""

from __future__ import annotations
