"""river's Page-Hinkley test; threshold 50 by default, lower for quicker alarms and higher for fewer.

The default lies in the middle of the ladder, for in units of the baseline's own deviation it may well be slow.
"""

from _river import ladder
from _speak import serve
from river.drift import PageHinkley

if __name__ == "__main__":
    serve(ladder(lambda most: PageHinkley(threshold=most), (6.0, 12.0, 18.0, 25.0, 35.0, 50.0, 75.0, 100.0, 150.0, 250.0, 400.0)), 6.0)
