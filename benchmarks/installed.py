"""The size of an installed package."""

import importlib.metadata
import re
from pathlib import Path


def installed_size(package: str) -> float:
    """Return the MB of an installed package with all it depends on, NumPy included."""
    left, seen = [package], {}
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in seen:
            continue
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system, or provided by a package of another name
        files = (found.locate_file(file) for file in found.files or ())
        seen[name] = sum(Path(file).stat().st_size for file in files if Path(file).is_file())
        for need in found.requires or ():
            if "extra ==" not in need:
                left.append(re.match(r"[\w.-]+", need)[0])
    return sum(seen.values()) / 1e6
