"""Checkpoints as folders: which there are, whether they are whole, which may go.

``checkpoints/step-000000123`` holds what ``train.checkpoint`` wrote, and ``manifest.json`` with
the size and the SHA-256 of each of its files.  ``checkpoints/damaged-step-...`` was found damaged
and is kept for a person to look at; nothing here reads it again.
"""

import hashlib
import json
import os
import re
import reprlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Optional

from gluon_asymmnet.errors import FormatError
from gluon_asymmnet.utils.atomic import hidden_name
from gluon_asymmnet.utils.json_objects import parse_object

MANIFEST = "manifest.json"
REQUIRED = ("net.params", "trainer.params", "state.json")
_NAME = re.compile(r"step-(\d{9,18})")
_ASIDE = "damaged-"
_MOST_JSON = 1 << 26  # bytes; a state with the metrics of ten thousand epochs has a tenth of it


class Checkpoint(NamedTuple):
    """A checkpoint on disk."""

    path: Path
    step: int

    @property
    def params(self) -> Path:
        """The network's parameters."""
        return self.path / "net.params"

    def read_state(self) -> dict:
        """Return what is not an array: step, best score, sums.  Raises: FormatError, OSError."""
        return _read_json(self.path / "state.json")


class Damage(NamedTuple):
    """A checkpoint that is not whole, and why."""

    checkpoint: Checkpoint
    reason: str


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints, whole or not, oldest first."""
    found = ((path, _NAME.fullmatch(path.name)) for path in Path(folder).glob("step-*"))
    return sorted((Checkpoint(p, int(m[1])) for p, m in found if m), key=lambda c: c.step)


def list_set_aside(folder: Path) -> list[Path]:
    """Return the checkpoints that were found damaged earlier."""
    return sorted(Path(folder).glob(f"{_ASIDE}step-*"))


def latest(folder: Path) -> Optional[Checkpoint]:
    """Return the newest checkpoint, looked at by nobody yet, or None."""
    checkpoints = list_checkpoints(folder)
    return checkpoints[-1] if checkpoints else None


def write_manifest(folder: Path, step: int) -> None:
    """List every file of a checkpoint that is complete but for this."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _digest(path)}
        for path in sorted(folder.iterdir())
    }
    (folder / MANIFEST).write_text(json.dumps({"step": step, "files": files}, indent=1) + "\n")


def read_manifest(path: Path) -> dict[str, dict]:
    """Return ``{file: {"bytes": int, "sha256": str}}`` of a manifest.

    Raises: FormatError if it is damaged, names a file outside its folder or lacks a needed one.
    """
    manifest = _read_json(path)
    files = manifest.get("files")
    if not isinstance(manifest.get("step"), int) or not isinstance(files, dict):
        raise FormatError(f"{path.name} is no manifest: it lacks step or files")
    for name, entry in files.items():
        bare = name == Path(name).name and name not in ("", ".", "..")
        if not bare or not name.isprintable() or len(name) > 255:
            raise FormatError(
                f"{path.name} names {reprlib.repr(name)}, which is no file of its folder"
            )
        if not (
            isinstance(entry, dict)
            and isinstance(entry.get("bytes"), int)
            and isinstance(entry.get("sha256"), str)
        ):
            raise FormatError(f"{path.name} has no size and digest of {name}")
    for name in REQUIRED:
        if name not in files:
            raise FormatError(f"{path.name} does not name {name}")
    return files


def find_damage(checkpoint: Checkpoint) -> Optional[str]:
    """Read a checkpoint through; return what is wrong with it, in words, or None."""
    path = checkpoint.path
    try:
        if not path.is_dir():
            return "not a folder"
        if not (path / MANIFEST).exists():
            return f"{MANIFEST} is missing"
        files = read_manifest(path / MANIFEST)
        step = _read_json(path / MANIFEST)["step"]
        if step != checkpoint.step:
            return f"its manifest is that of step {step}"
        for name, entry in files.items():
            reason = _file_damage(path / name, entry)
            if reason:
                return reason
    except FormatError as error:
        return str(error)
    except OSError as error:
        return f"{Path(error.filename or path).name} cannot be read: {error.strerror}"
    return None


def _file_damage(path: Path, entry: dict) -> Optional[str]:
    if not path.exists():
        return f"{path.name} is missing"
    size = path.stat().st_size
    if size != entry["bytes"]:
        return f"{path.name} has {size} bytes instead of {entry['bytes']}"
    if _digest(path) != entry["sha256"]:
        return f"{path.name} is not what was written: its SHA-256 differs"
    return None


class Search(NamedTuple):
    """What a look for the newest good checkpoint found."""

    good: Optional[Checkpoint]
    damaged: list[Damage]  # newer than ``good``, newest first


def find_good(folder: Path) -> Search:
    """Read checkpoints through, newest first, until one is whole.  Changes nothing."""
    damaged: list[Damage] = []
    for checkpoint in reversed(list_checkpoints(folder)):
        reason = find_damage(checkpoint)
        if reason is None:
            return Search(checkpoint, damaged)
        damaged.append(Damage(checkpoint, reason))
    return Search(None, damaged)


def set_aside(checkpoint: Checkpoint) -> Path:
    """Rename a damaged checkpoint, so that it is not met again; return its new path."""
    path, number = checkpoint.path, 1
    aside = path.with_name(_ASIDE + path.name)
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{_ASIDE}{path.name}-{number}")
    path.rename(aside)
    return aside


class Reading(NamedTuple):
    """What reading one checkpoint through showed."""

    checkpoint: Checkpoint
    reason: Optional[str]  # what is damaged, or None
    epoch: Optional[int]  # of its last step; None if it is damaged
    best: bool  # whether the newest whole one names it as that of the best epoch


def read_through(folder: Path) -> list[Reading]:
    """Read every checkpoint, oldest first.  One that a run removes meanwhile is left out."""
    found, best = [], None
    for checkpoint in reversed(list_checkpoints(folder)):
        reason = find_damage(checkpoint)
        if not checkpoint.path.exists():
            continue
        state = {} if reason else checkpoint.read_state()
        best = best if best is not None else state.get("best_step")
        found.append(Reading(checkpoint, reason, state.get("epoch"), checkpoint.step == best))
    return found[::-1]


class Sorted(NamedTuple):
    """Which checkpoints stay and which may go."""

    kept: list[Checkpoint]
    removable: list[Checkpoint]
    damaged: list[Damage]


def sort_out(folder: Path, keep: int) -> Sorted:
    """Decide what the newest ``keep`` good checkpoints and that of the best epoch leave over.

    Damaged ones count for nothing.  Older ones than those kept are not read through.
    """
    kept: list[Checkpoint] = []
    removable, damaged = [], []
    best = None
    for checkpoint in reversed(list_checkpoints(folder)):
        if len(kept) >= max(keep, 1) and checkpoint.step != best:
            removable.append(checkpoint)
            continue
        reason = find_damage(checkpoint)
        if reason is not None:
            damaged.append(Damage(checkpoint, reason))
            continue
        if not kept:
            best = checkpoint.read_state().get("best_step")
        kept.append(checkpoint)
    return Sorted(kept[::-1], removable[::-1], damaged[::-1])


def clean_up(folder: Path, keep: int) -> list[Damage]:
    """Remove all but the newest ``keep`` good checkpoints and that of the best epoch.

    Returns: the damaged ones that were met; they were set aside.
    """
    found = sort_out(folder, keep)
    for damage in found.damaged:
        set_aside(damage.checkpoint)
    for checkpoint in found.removable:
        remove(checkpoint)
    return found.damaged


def remove(checkpoint: Checkpoint) -> None:
    """Delete a checkpoint: out of sight at once, so that a kill leaves no half of it."""
    hidden = hidden_name(checkpoint.path)
    checkpoint.path.rename(hidden)
    shutil.rmtree(hidden)


def folder_bytes(path: Path) -> int:
    """Return the size of a checkpoint's files."""
    return sum(file.stat().st_size for file in _files(path))


def _files(path: Path) -> Iterator[Path]:
    return (file for file in Path(path).rglob("*") if file.is_file())


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_json(path: Path) -> dict:
    """Read a JSON object.  Raises: FormatError naming the file without its folder, OSError."""
    if path.stat().st_size > _MOST_JSON:
        raise FormatError(f"{path.name} is damaged: it has {path.stat().st_size} bytes")
    return parse_object(path.read_bytes(), f"{path.name} is damaged", "a JSON object")
