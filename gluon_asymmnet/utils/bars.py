"""Where progress bars are shown: on a terminal and in a notebook, not in a file."""

import sys


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    return "ipykernel" in sys.modules


def shows_bars() -> bool:
    """Return whether a bar on standard error is one line that changes."""
    return sys.stderr.isatty() or in_notebook()
