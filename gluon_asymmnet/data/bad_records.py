"""Damaged records in a training: another stands in, and they are counted and listed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

from gluon_asymmnet.errors import FormatError
from gluon_asymmnet.utils.atomic import naming, write_text

SKIPPED_FILE = "skipped_records.jsonl"
_ADVICE = "find all of them with `asymmnet records verify`"


class SkippedRecords:
    """The records of a training set that could not be used; each counts once, in any epoch.

    Args:
        limit: how many are left out; the next one stops the run.
        advice: what a person can do, for the message of the one that stops the run.
    """

    def __init__(self, limit: int = 0, advice: str = _ADVICE):
        self.limit, self.advice = limit, advice
        self._known: set[int] = set()
        self._path: Path | None = None
        self._add_event: Callable | None = None

    def __len__(self) -> int:
        return len(self._known)

    def list_in(
        self, folder: Path, add_event: Callable[[str, int, str], None], worker: int = 0
    ) -> None:
        """Go on with the list of a run's folder, so that a resumed run counts what it met before.

        Args:
            add_event: called with ``("skipped_records", step, message)`` for each new one.
            worker: of several, each with a list and a limit of its own.
        """
        name = SKIPPED_FILE if not worker else SKIPPED_FILE.replace(".", f"-{worker}.")
        self._path, self._add_event = Path(folder) / name, add_event
        rows = list(_rows(self._path))
        self._known |= {row["position"] for row in rows}
        if self._path.exists():  # without a line that a kill has cut
            write_text(self._path, "".join(map(_line, rows)))

    def add(self, step: int, position: int, reason: str) -> None:
        """Count a record, met in an update.  Raises: FormatError if that is one too many."""
        if position in self._known:
            return
        if len(self._known) >= self.limit:
            allowed = f"; --max-bad-records {self.limit} allows no more" if self.limit else ""
            raise FormatError(f"{reason}{allowed}; {self.advice}")
        self._known.add(position)
        if self._path is not None:
            row = {"step": step, "position": position, "reason": reason}
            with naming(self._path), open(self._path, "a", encoding="utf-8") as file:
                file.write(_line(row))
            self._add_event("skipped_records", step, reason)


def _rows(path: Path) -> Iterator[dict]:
    if path.exists():
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                row = json.loads(line)
                if isinstance(row, dict) and type(row.get("position")) is int:
                    yield row


def _line(row: dict) -> str:
    return json.dumps(row) + "\n"
