"""driftdep with its default correction, block permutation; see `_driftdep`. A thousand permutations leave no p below .001."""

import math

from _driftdep import fit_with
from _speak import serve

if __name__ == "__main__":
    serve(fit_with(), -math.log10(0.05))
