"""river's ADWIN, the adaptive window; delta .002 by default, down to 1e-30."""

from _river import ladder
from _speak import serve
from river.drift import ADWIN

if __name__ == "__main__":
    serve(ladder(lambda delta: ADWIN(delta=delta), (2e-3, 1e-4, 1e-6, 1e-9, 1e-12, 1e-16, 1e-22, 1e-30)), 1.0)
