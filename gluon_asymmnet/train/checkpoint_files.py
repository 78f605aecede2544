"""Checkpoint folders: list them, check them for damage, remove old ones.

``checkpoints/step-000000123`` holds the files of ``train.checkpoint``, and ``manifest.json`` with
the size and the SHA-256 of each.  A damaged checkpoint is renamed to ``damaged-step-...`` for
inspection and never read again.
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
from gluon_asymmnet.utils.atomic import hidden_name, write_text
from gluon_asymmnet.utils.json_objects import parse_object

MANIFEST, VALIDATION = "manifest.json", "validation.json"
REQUIRED = ("net.params", "trainer.params", "state.json")
_NAME = re.compile(r"step-(\d{9,18})")
_ASIDE = "damaged-"
_MAX_JSON = 1 << 26  # bytes; ten times the state of a run of ten thousand epochs


class Checkpoint(NamedTuple):
    """A checkpoint on disk."""

    path: Path
    step: int

    @property
    def params(self) -> Path:
        """The network's parameters."""
        return self.path / "net.params"

    def read_state(self) -> dict:
        """Return the values that are not arrays: step, best score, sums, with the validation's.

        Raises: FormatError, OSError.
        """
        state = _read_json(self.path / "state.json")
        if VALIDATION in read_manifest(self.path / MANIFEST):
            state.update(_read_json(self.path / VALIDATION))
        return state


class Damage(NamedTuple):
    """A damaged checkpoint with the reason."""

    checkpoint: Checkpoint
    reason: str


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints, damaged ones included, oldest first."""
    found = ((path, _NAME.fullmatch(path.name)) for path in Path(folder).glob("step-*"))
    return sorted((Checkpoint(p, int(m[1])) for p, m in found if m), key=lambda c: c.step)


def list_set_aside(folder: Path) -> list[Path]:
    """Return the checkpoints that were found damaged earlier."""
    return sorted(Path(folder).glob(f"{_ASIDE}step-*"))


def latest(folder: Path) -> Optional[Checkpoint]:
    """Return the newest checkpoint without checking it, or None."""
    checkpoints = list_checkpoints(folder)
    return checkpoints[-1] if checkpoints else None


def write_manifest(folder: Path, step: int) -> None:
    """Write the manifest, the last file of a checkpoint."""
    files = {path.name: _file_entry(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(_manifest_text(step, files))


def _file_entry(path: Path) -> dict:
    return {"bytes": path.stat().st_size, "sha256": _digest(path)}


def _manifest_text(step: int, files: dict) -> str:
    return json.dumps({"step": step, "files": files}, indent=1) + "\n"


def add_validation(checkpoint: Checkpoint, state: dict) -> None:
    """Add the results of a validation, which replace values of the checkpoint's state.

    The new manifest comes last: until then the checkpoint is whole without them.
    """
    path, manifest = checkpoint.path / VALIDATION, checkpoint.path / MANIFEST
    files = read_manifest(manifest)
    write_text(path, json.dumps(state, indent=1) + "\n")
    files[VALIDATION] = _file_entry(path)
    write_text(manifest, _manifest_text(checkpoint.step, files))


def read_manifest(path: Path) -> dict[str, dict]:
    """Return ``{file: {"bytes": int, "sha256": str}}`` of a manifest.

    Raises: FormatError if it is damaged, names a file outside its folder or lacks a needed one.
    """
    manifest = _read_json(path)
    files = manifest.get("files")
    if not isinstance(manifest.get("step"), int) or not isinstance(files, dict):
        raise FormatError(f"{path.name} is not a manifest: it lacks step or files")
    for name, entry in files.items():
        bare = name == Path(name).name and name not in ("", ".", "..")
        if not bare or not name.isprintable() or len(name) > 255:
            raise FormatError(
                f"{path.name} names {reprlib.repr(name)}, which is not a file of its folder"
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
    """Read a whole checkpoint; return the reason why it is damaged, or None."""
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
    """The result of the search for the newest good checkpoint."""

    good: Optional[Checkpoint]
    damaged: list[Damage]  # newer than ``good``, newest first


def find_good(folder: Path) -> Search:
    """Check checkpoints, newest first, until one is good.  Changes nothing."""
    damaged: list[Damage] = []
    for checkpoint in reversed(list_checkpoints(folder)):
        reason = find_damage(checkpoint)
        if reason is None:
            return Search(checkpoint, damaged)
        damaged.append(Damage(checkpoint, reason))
    return Search(None, damaged)


def set_aside(checkpoint: Checkpoint) -> Path:
    """Rename a damaged checkpoint, so that it is not read again; return its new path."""
    path, number = checkpoint.path, 1
    aside = path.with_name(_ASIDE + path.name)
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{_ASIDE}{path.name}-{number}")
    path.rename(aside)
    return aside


class Reading(NamedTuple):
    """The result of a check of one checkpoint."""

    checkpoint: Checkpoint
    reason: Optional[str]  # of the damage, or None
    epoch: Optional[int]  # of its last step; None if it is damaged
    best: bool  # whether it is that of the best epoch, according to the newest good one


def read_through(folder: Path) -> list[Reading]:
    """Check every checkpoint, oldest first, except those that a run removes meanwhile."""
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
    """The checkpoints to keep, those to remove and the damaged ones."""

    kept: list[Checkpoint]
    removable: list[Checkpoint]
    damaged: list[Damage]


def sort_out(folder: Path, keep: int) -> Sorted:
    """Keep the newest ``keep`` good checkpoints and that of the best epoch.

    Damaged ones do not count.  Checkpoints older than those to keep are not checked.
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

    Returns: the damaged ones among those checked; they are renamed.
    """
    found = sort_out(folder, keep)
    for damage in found.damaged:
        set_aside(damage.checkpoint)
    for checkpoint in found.removable:
        remove(checkpoint)
    return found.damaged


def remove(checkpoint: Checkpoint) -> None:
    """Delete a checkpoint; it is hidden first, so that a kill leaves no partial one."""
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
    if path.stat().st_size > _MAX_JSON:
        raise FormatError(f"{path.name} is damaged: it has {path.stat().st_size} bytes")
    return parse_object(path.read_bytes(), f"{path.name} is damaged", "a JSON object")
