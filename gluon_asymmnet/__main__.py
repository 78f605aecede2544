"""``python -m gluon_asymmnet`` is the ``asymmnet`` command."""

import sys

from gluon_asymmnet.cli import main

sys.exit(main())
