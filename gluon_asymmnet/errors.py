"""The errors this package raises on purpose.

The command line turns them into one line and an exit status; anything else that
escapes is a bug and keeps its traceback.
"""


class InputError(ValueError):
    """What the user gave is wrong: the message says what, the value, and what would be right.

    Exit status 2.
    """


class FormatError(InputError):
    """A file is damaged, truncated or of another kind than its name says.  Exit status 2."""


class RunError(RuntimeError):
    """The input was fine and the work failed, e.g. a loss that is not finite.  Exit status 1."""


def reason_of(error: Exception) -> str:
    """Return one line that says why a file cannot be used, without the file's name."""
    text = str(getattr(error, "strerror", None) or error)
    return text[:1].lower() + text[1:] if isinstance(error, OSError) else text
