"""Never alarms."""

import numpy as np
from _speak import serve

if __name__ == "__main__":
    serve(lambda _: lambda windows: np.zeros(len(windows)), 1.0)
