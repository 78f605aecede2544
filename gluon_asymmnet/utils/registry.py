"""Tables of parts by name, to which users add their own, and the import of users' modules."""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, Optional

from gluon_asymmnet.errors import InputError, did_you_mean


class Registry(dict):
    """Parts of one kind by name: the package's, which stay, and those that users register.

    Args:
        kind: what they are, for messages: "optimizer".
        parts: the package's own.
    """

    def __init__(self, kind: str, parts: Mapping[str, Any]):
        super().__init__(parts)
        self.kind, self.builtin = kind, frozenset(parts)

    def register(self, name: str, part=None) -> Callable:
        """Add a part; without one, return a decorator that adds what it decorates.

        Registering a name again replaces the part, as a notebook's cell does that runs twice.

        Raises: InputError for a name of the package's, or one that cannot be a file's name.
        """
        if part is None:
            return lambda found: self.register(name, found)
        if not isinstance(name, str) or not name.replace("_", "").replace("-", "").isalnum():
            raise InputError(f"{name!r} cannot name a {self.kind}: take letters, digits, - and _")
        if name in self.builtin:
            raise InputError(f"{self.kind} {name!r} is the package's own: choose another name")
        self[name] = part
        return part

    def find(self, name: str):
        """Return the part of this name; InputError with the known names."""
        if name not in self:
            raise InputError(
                f"unknown {self.kind} {name!r}: one of {', '.join(self)}, or your own with "
                f"--import MODULE{did_you_mean(name, self)}"
            )
        return self[name]


_loaded: set[str] = set()  # the files that were imported


def import_modules(names: Optional[Sequence[str]]) -> None:
    """Import modules that register own parts, each once.

    Args:
        names: names of modules, or paths that end with ``.py``.  The working directory is searched,
            too.

    Raises: InputError in one line if a module is missing or fails.
    """
    for name in names or ():
        is_file = name.endswith(".py")
        if is_file and not Path(name).is_file():
            raise InputError(f"--import {name}: no such file; expected a module with own parts")
        try:
            _import_file(Path(name).resolve()) if is_file else _import_name(name)
        except InputError:
            raise
        except Exception as error:  # the user's code may raise anything
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise InputError(
                f"--import {name}: {type(error).__name__}: {error} ({where.filename}, line "
                f"{where.lineno})"
            ) from error


def _import_name(name: str) -> None:
    here = str(Path.cwd())
    if here not in sys.path:  # a console script does not have it
        sys.path.append(here)
    importlib.import_module(name)


def _import_file(path: Path) -> None:
    if str(path) in _loaded:
        return
    spec = importlib.util.spec_from_file_location(f"own_parts_{len(_loaded)}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    _loaded.add(str(path))
