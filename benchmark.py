"""Measure speed and memory; ``--help`` lists the settings."""

import sys

from benchmarks.cli import main

if __name__ == "__main__":
    sys.exit(main())
