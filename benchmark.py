"""Measure speed and memory; ``--help`` lists the settings."""

import argparse
import sys

from benchmarks import cli as bench
from gluon_asymmnet.cli import guarded


def main(argv=None) -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=bench.DESCRIPTION)
    bench.add_flags(parser)
    args = parser.parse_args(argv)
    return guarded(lambda: bench.run(args), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
