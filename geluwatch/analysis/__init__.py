"""What is run on purpose, not all the time: gates before a release, experiments, reports and post-mortems.

=========  ==========================================================================================
module     answers
=========  ==========================================================================================
`compare`  are two models the same, and if not, at which GELU do they part?
`report`   what happened to a model over a period, where first, and what is to be done?
`incident` what happened in the night, and does it happen again?
=========  ==========================================================================================
"""

from __future__ import annotations
