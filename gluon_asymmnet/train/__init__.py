"""The training loop and what it needs.  ``gluon_asymmnet.train(...)`` is ``session.run``."""

from gluon_asymmnet.utils.callable_module import make_callable

make_callable(__name__, "session")
