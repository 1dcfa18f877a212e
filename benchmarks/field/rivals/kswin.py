"""river's KSWIN, a Kolmogorov-Smirnov test of the last 30 numbers against 30 of the 70 before; alpha .005 by default."""

from _river import ladder
from _speak import serve
from river.drift import KSWIN

if __name__ == "__main__":
    serve(ladder(lambda alpha: KSWIN(alpha=alpha, seed=0), (5e-3, 1e-4, 1e-6, 1e-8, 1e-11), run_in=100), 1.0)
