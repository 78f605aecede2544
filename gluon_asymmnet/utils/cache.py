"""The folder for files that can be made again: downloads and measurements."""

import os
from pathlib import Path


def cache_folder(root=None) -> Path:
    """Return ``root``, by default the package's folder in the user's cache."""
    if root is not None:
        return Path(root).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification says to ignore a relative one
        base = Path.home() / ".cache"
    return Path(base) / "gluon_asymmnet"
