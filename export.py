"""Export a model; ``export.py symbol --help`` lists the settings."""

import argparse
import sys

from gluon_asymmnet.cli import export, guarded


def main(argv=None) -> int:
    """Parse, export, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    export.add_forms(parser)
    args = parser.parse_args(argv)
    return guarded(lambda: args.run(args), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
