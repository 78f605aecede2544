#!/bin/sh
# Usage: make_venv.sh FOLDER [PYTHON]: create a virtual environment with a Python that MXNet runs on.
set -eu
folder=$1
fits='import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 12))'
for candidate in ${2:-python3.11 python3.12 python3.10 python3.9 python3 python}; do
    # A version manager's stand-in may be on the PATH and still not run: try it.
    if "$candidate" -c "$fits" 2>/dev/null; then
        "$candidate" -m venv "$folder" || { rm -rf "$folder"; exit 1; }
        exit 0
    fi
done
echo "gluon_asymmnet needs Python 3.9, 3.10, 3.11 or 3.12, and ${2:-the PATH} offers none:" \
     "install one, or name it with PYTHON=/path/to/python" >&2
exit 2
