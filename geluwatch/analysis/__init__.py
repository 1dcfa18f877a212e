"""What is run on purpose, not all the time: gates before a release, experiments, reports and post-mortems.

=============  ======================================================================================
module         answers
=============  ======================================================================================
`compare`      are two models the same, and if not, at which GELU do they part?
`checkpoints`  the same of one model with the weights of two files
`live`         has one running process drifted where another has not?
`shadow`       what would another form of GELU, a table or int8 weights cost in accuracy, and save in time?
`report`       what happened to a model over a period, where first, and what is to be done?
`incident`     what happened in the night, and does it happen again?
=============  ======================================================================================
"""

from __future__ import annotations
