"""Export a model; ``export.py symbol --help`` lists the settings."""

import sys

from gluon_asymmnet.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]], prog="export.py"))
