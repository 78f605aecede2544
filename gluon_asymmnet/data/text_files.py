"""Read text files of one item per line: class names, lists of images."""

from __future__ import annotations

import codecs
from pathlib import Path

from gluon_asymmnet.data.records.recordio import PathLike, require_file
from gluon_asymmnet.errors import FormatError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_lines(path: PathLike, kind: str) -> list[tuple[int, str]]:
    """Return ``(line number from 1, text)`` of a text file, without comments.

    Left out are a byte order mark, blanks at both ends of a line, lines that begin with ``#``, and
    empty lines at the end of the file; empty lines in between are returned as "".  Lines end with
    LF, CRLF or CR.  UTF-8, or UTF-16 with a byte order mark, as PowerShell writes it.

    Args:
        kind: name of the file's kind for the message, e.g. "list of images".

    Raises: FileNotFoundError; FormatError if the file is not such a text.
    """
    path = Path(path)
    require_file(path, kind)
    data = path.read_bytes()
    try:
        text = data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: byte {error.start} is not UTF-8 text") from None
    if "\0" in text:
        raise FormatError(f"{path}: holds a byte of zero; expected a {kind} in UTF-8")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    return [(number, line) for number, line in numbered if not line.startswith("#")]
