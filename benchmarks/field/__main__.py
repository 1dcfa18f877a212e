"""Compare the detector with the field; see `python -m field --help`, from the folder benchmarks."""

from .driver import main

if __name__ == "__main__":
    raise SystemExit(main())
