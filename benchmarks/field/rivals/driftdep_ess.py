"""driftdep with its analytic correction by effective sample size, whose p has no floor and can be tuned; see `_driftdep`."""

import math

from _driftdep import fit_with
from _speak import serve

if __name__ == "__main__":
    serve(fit_with(correction="ess_adjust"), -math.log10(0.05))
