"""Count and log the damaged images of a run's data, which are left out up to a limit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Callable

from gluon_asymmnet.errors import FormatError
from gluon_asymmnet.utils.atomic import naming, write_text
from gluon_asymmnet.utils.json_objects import read_json_lines

SKIPPED_FILE = "skipped_records.jsonl"
TRAINING, VALIDATION = "training", "validation"  # the set that an image is in
_ADVICE = "find all of them with `asymmnet records verify`"
BOX_ADVICE = "find all of them with `asymmnet voc check`"


class SkippedRecords:
    """The unusable records of a training and a validation set; each counts once over all epochs.

    Args:
        limit: number of records, of both sets, that may be skipped; one more stops the run.
        advice: advice to the user in the error message that stops the run.
    """

    def __init__(self, limit: int = 0, advice: str = _ADVICE):
        self.limit, self.advice = limit, advice
        self._known: set[tuple[str, int]] = set()  # set and position
        self._path: Path | None = None
        self._add_event: Callable | None = None

    def __len__(self) -> int:
        return len(self._known)

    def log_to(
        self, folder: Path, add_event: Callable[[str, int, str], None], worker: int = 0
    ) -> None:
        """Log to a run's folder; a resumed run continues the log and its count.

        Args:
            add_event: called with ``("skipped_records", step, message)`` for each new record.
            worker: rank of the worker; each has its own log and limit.
        """
        name = SKIPPED_FILE if not worker else SKIPPED_FILE.replace(".", f"-{worker}.")
        self._path, self._add_event = Path(folder) / name, add_event
        rows = _rows(self._path)
        self._known |= {(_set_of(row), row["position"]) for row in rows}
        if self._path.exists():  # drops a line that a killed process left incomplete
            write_text(self._path, "".join(map(_line, rows)))

    def add(self, step: int, position: int, reason: str, of: str = TRAINING) -> None:
        """Count a record of a set, found after ``step`` updates.

        Raises: FormatError above the limit.
        """
        if (of, position) in self._known:
            return
        if len(self._known) >= self.limit:
            allowed = f"{self.limit} allows no more" if self.limit else "N allows N such records"
            raise FormatError(f"{reason}; --max-bad-records {allowed}; {self.advice}")
        self._known.add((of, position))
        if self._path is not None:
            row = {"step": step, "set": of, "position": position, "reason": reason}
            with naming(self._path), open(self._path, "a", encoding="utf-8") as file:
                file.write(_line(row))
            self._add_event("skipped_records", step, reason)


class LeftOut:
    """The images that one pass over a validation set leaves out.

    Args:
        skipped: counts them.
        step: updates done before the validation.
    """

    def __init__(self, skipped: SkippedRecords, step: int = 0):
        self._skipped, self._step = skipped, step
        self.positions: list[int] = []
        self.reasons: list[str] = []

    def add(self, position: int, reason: str) -> None:
        """Leave out an image.  Raises: FormatError above the limit."""
        self._skipped.add(self._step, position, reason, VALIDATION)
        self.positions.append(position)
        self.reasons.append(reason)


def _rows(path: Path) -> list[dict]:
    return [
        row
        for row in read_json_lines(path)
        if type(row.get("position")) is int and _set_of(row) in (TRAINING, VALIDATION)
    ]


def _set_of(row: dict) -> str:
    return row.get("set", TRAINING)  # rows of version 0.1.0 have none


def _line(row: dict) -> str:
    return json.dumps(row) + "\n"
