"""Alarms in every window; what it scores says what a measure is worth."""

import numpy as np
from _speak import serve

if __name__ == "__main__":
    serve(lambda _: lambda windows: np.ones(len(windows)), 1.0)
