"""Packages that can be called: ``from gluon_asymmnet import train; train(...)``."""

import importlib
import sys
import types


def make_callable(package: str, module: str) -> None:
    """Make a call of a package that of the function ``run`` in one of its modules.

    A function of the package's own name is not possible: importing the package sets its name in
    the parent to the package.
    """

    class CallablePackage(types.ModuleType):
        def __call__(self, *args, **kwargs):
            return importlib.import_module(f"{package}.{module}").run(*args, **kwargs)

    sys.modules[package].__class__ = CallablePackage
