"""What a run directory holds besides weights."""

import json
import tempfile
from pathlib import Path

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.report.run_files import read_run
from gluon_asymmnet.train.checkpoint_files import (
    MANIFEST,
    REQUIRED,
    Checkpoint,
    find_damage,
    write_manifest,
)
from gluon_asymmnet.train.checkpoint_files import read_manifest as read_files
from gluon_asymmnet.utils.json_objects import read_json_lines
from tests.fuzz import mutations as damage
from tests.fuzz.parsers.base import Target


def write_checkpoint(folder):
    """A checkpoint of step 7, whole as far as its manifest says."""
    found = Checkpoint(folder / "step-000000007", 7)
    found.path.mkdir()
    for name in REQUIRED:
        (found.path / name).write_text(name)
    write_manifest(found.path, found.step)
    return found


def manifest_seeds():
    with tempfile.TemporaryDirectory() as folder:
        return [(write_checkpoint(Path(folder)).path / MANIFEST).read_bytes()]


def read_manifest(folder, data):
    """No file outside the checkpoint may be looked at: one lies there."""
    (folder / "outside").write_text("x")
    found = write_checkpoint(folder)
    (found.path / MANIFEST).write_bytes(data)
    reason = find_damage(found)
    if reason is not None:
        raise InputError(reason)
    assert set(read_files(found.path / MANIFEST)) >= set(REQUIRED)
    assert "outside" not in str(read_files(found.path / MANIFEST))


def read_state(folder, data):
    found = write_checkpoint(folder)
    (found.path / "state.json").write_bytes(data)
    assert isinstance(found.read_state(), dict)


def state_seeds():
    sums = {"loss": 1.5, "metric": 3.0, "steps": 2}
    state = {"step": 7, "best": 0.5, "best_epoch": 1, "best_step": 4, "sums": sums, "seed": 0}
    return [json.dumps(state).encode()]


def run_seeds():
    rows = [
        {"step": 4 * i, "epoch": i, "seconds": 1.5, "images": 32, "lr": 0.1, "val_top1": 0.1 * i}
        for i in range(3)
    ]
    return ["".join(json.dumps(row) + "\n" for row in rows).encode()]


def read_run_files(folder, data):
    """Its lines as metrics and events, and the whole as each of the other files."""
    for name in ("config.json", "card.json", "environment.json", "metrics.jsonl", "events.jsonl"):
        (folder / name).write_bytes(data)
    run = read_run(folder)
    assert all(isinstance(row, dict) for row in read_json_lines(folder / "metrics.jsonl"))
    assert all("\n" not in problem for problem in run.problems)
    assert [row["epoch"] for row in run.metrics] == sorted({row["epoch"] for row in run.metrics})
    assert run.state in ("stopped", "finished")
    assert run.best is None or run.best in run.metrics


TARGETS = {
    "manifest": Target(
        "`checkpoint_files.find_damage`", manifest_seeds, damage.damaged_json, read_manifest
    ),
    "state": Target("`Checkpoint.read_state`", state_seeds, damage.damaged_json, read_state),
    "run files": Target(
        "`report.read_run`, `read_json_lines`", run_seeds, damage.damaged_json_lines,
        read_run_files, 400,
    ),
}  # fmt: skip
