"""What the commands with commands of their own share: ``records`` and ``voc``."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator


def add_command(commands, name: str, run, summary: str, epilog: str) -> argparse.ArgumentParser:
    """Add a command whose help begins with ``summary`` and ends with ``epilog`` as it stands."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


@contextlib.contextmanager
def progress_bar(what: str, unit: str = " images", *, scaled: bool = True) -> Iterator:
    """A bar on a terminal; in a log file it would be a thousand lines, so nothing there."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(desc=what, unit=unit, unit_scale=scaled, leave=False) as bar:

        def advance(done: int, total) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance
