"""Scrapes an address once for every line it is given, and answers each with a line: seconds, and whether the answer was a new one.

    python benchmarks/scraper.py http://127.0.0.1:9464/metrics

A process of its own, as Prometheus is, and started by `scraping.py`; it imports nothing that takes time.
"""

from __future__ import annotations

import sys
import time
import urllib.request

HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
    "Accept-Encoding": "gzip",
}
"""Prometheus asks for OpenMetrics."""


def main() -> None:
    """Scrape until there are no more lines."""
    request, before = urllib.request.Request(sys.argv[1], headers=HEADERS), b""
    for _ in sys.stdin:
        began = time.perf_counter()
        with urllib.request.urlopen(request) as answer:
            body = answer.read()
        print(time.perf_counter() - began, int(body != before), flush=True)
        before = body


if __name__ == "__main__":
    main()
