"""The errors this package raises on purpose.

The command line turns them into one line and an exit status; anything else that
escapes is a bug and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What the user gave is wrong: the message says what, the value, and what would be right.

    Exit status 2.
    """


class FormatError(InputError):
    """A file is damaged, truncated or of another kind than its name says.  Exit status 2."""


class RunError(RuntimeError):
    """The input was fine and the work failed, e.g. a loss that is not finite.  Exit status 1."""


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return the end of a message about an unknown name: the nearest one, or ``otherwise``."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else otherwise


def reason_of(error: Exception) -> str:
    """Return one line that says why a file cannot be used, without the file's name."""
    text = str(getattr(error, "strerror", None) or error)
    return text[:1].lower() + text[1:] if isinstance(error, OSError) else text
