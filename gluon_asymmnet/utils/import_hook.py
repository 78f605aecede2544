"""Call a function when another package has been imported."""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext


def when_imported(
    name: str, function: Callable[[], None],
    around: Callable[[], AbstractContextManager] = nullcontext,
) -> None:  # fmt: skip
    """Call ``function`` after the package ``name`` is imported; at once if it is already.

    Args:
        around: a context in which the package is executed.
    """
    if sys.modules.get(name) is not None:  # None: it must not be imported
        function()
    elif not any(isinstance(f, _Finder) and f.name == name for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder(name, function, around))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, name: str, function: Callable, around: Callable):
        self.name, self._function, self._around = name, function, around

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self.name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                with self._around():
                    execute(module)
                sys.meta_path.remove(self)
                self._function()

            spec.loader.exec_module = exec_module
        return spec
