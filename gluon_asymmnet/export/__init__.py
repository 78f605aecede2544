"""From a network to files, compared before they are put in place.

``gluon_asymmnet.export(...)`` is ``session.run``.
"""

from gluon_asymmnet.utils.callable_module import make_callable

make_callable(__name__, "session")
