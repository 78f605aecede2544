"""The state of a run, read from its files by another process."""

import time
from pathlib import Path
from typing import Any

from gluon_asymmnet.report.formatting import moment
from gluon_asymmnet.report.run_files import finite, newest_checkpoint, read_object, read_run
from gluon_asymmnet.train.progress import PROGRESS_FILE, clock

_EVENTS = 5  # the last ones are shown


def status(path) -> dict[str, Any]:
    """Return the state of a run directory, ready for JSON.

    ``state`` (running, finished, stopped), ``epoch`` (from 0, the running one), ``epochs``,
    ``step``, ``steps``, ``training`` and ``validation`` (the last values), ``best``, ``lr``,
    ``images_per_s``, ``epoch_ends_in`` and ``run_ends_in`` (seconds; None unless it runs),
    ``checkpoint``, ``events`` (the last ones) and ``problems``.  None: not known (yet).

    Raises: InputError if it is not a run directory.
    """
    run = read_run(path)
    checkpoint = newest_checkpoint(run.path)
    last = run.metrics[-1] if run.metrics else {}
    # of equals the end of the epoch; there is no progress file where nothing is logged
    now = max(_after_epoch(last), _progress(run.path), key=lambda found: found.get("step", -1))
    if checkpoint and not run.running and not run.finished:
        now["step"] = checkpoint[0]  # here it goes on
    per_epoch = now.get("steps_per_epoch")
    epoch_ends, run_ends = _ends(now, last, run.epochs) if run.running else (None, None)
    return {
        "path": str(run.path),
        "state": run.state,
        "epoch": now.get("epoch"),
        "epochs": run.epochs or None,
        "step": now.get("step"),
        "steps": per_epoch * run.epochs if per_epoch and run.epochs else None,
        "training": _values(now, "train_"),
        "validation": _values(last, "val_"),
        "validated_epoch": last.get("epoch") if _values(last, "val_") else None,
        "best": {"epoch": run.best["epoch"], **_values(run.best, "val_")} if run.best else None,
        "lr": now.get("lr"),
        "images_per_s": now.get("images_per_s"),
        "epoch_ends_in": epoch_ends,
        "run_ends_in": run_ends,
        "checkpoint": str(checkpoint[1]) if checkpoint else None,
        "checkpoint_age": _age(checkpoint[1]) if checkpoint else None,
        "events": run.events[-_EVENTS:],
        "problems": run.problems,
    }


def lines(found: dict[str, Any]) -> str:
    """Write what ``status`` returns for a person."""
    shown = [f"{found['path']}: {found['state']}"]
    epoch, step = found["epoch"], found["step"]
    if epoch is not None:
        place = f"epoch {epoch} (of 0 to {found['epochs'] - 1})" if found["epochs"] else f"{epoch}"
        share = f" of {found['steps']} ({step / found['steps']:.1%})" if found["steps"] else ""
        shown.append(f"  at         {place}, step {step}{share}")
    else:
        shown.append("  at         the first steps: nothing is written yet")
    training = {**found["training"], "lr": found["lr"]}
    speed = f", {found['images_per_s']:.1f} images/s" if finite(found["images_per_s"]) else ""
    if epoch is not None:
        shown.append(f"  training   {_pairs(training)}{speed}")
    if found["run_ends_in"] is not None:
        end = moment(time.time() + found["run_ends_in"])
        shown.append(f"  left       epoch {clock(found['epoch_ends_in'])}, run "
                     f"{clock(found['run_ends_in'])}, until {end}")  # fmt: skip
    if found["validation"]:
        shown.append(
            f"  validated  epoch {found['validated_epoch']}: {_pairs(found['validation'])}"
        )
    if found["best"]:
        best = dict(found["best"])
        shown.append(f"  best       epoch {best.pop('epoch')}: {_pairs(best)}")
    if found["checkpoint"]:
        age = clock(found["checkpoint_age"])
        shown.append(f"  checkpoint {found['checkpoint']}, {age} ago")
    for event in found["events"]:
        text = " ".join(str(event.get("message", "")).split())
        step = f" step {event['step']}" if "step" in event else ""
        shown.append(f"  event      {moment(event.get('time'))}{step} {event.get('kind')}: {text}")
    shown += [f"  problem    {problem}" for problem in found["problems"]]
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in shown)


def _progress(folder: Path) -> dict[str, Any]:
    found = read_object(folder / PROGRESS_FILE)
    needed = ("step", "epoch", "time", "steps_per_epoch")
    return found if all(finite(found.get(name)) for name in needed) else {}


def _after_epoch(last: dict) -> dict[str, Any]:
    """Return the end of an epoch as progress."""
    if not finite(last.get("step")):
        return {}
    return {**last, "steps_per_epoch": last["step"] // (last["epoch"] + 1)}


def _ends(now: dict, last: dict, epochs: int) -> tuple:
    """Return seconds until the ends of the epoch and of the run, or None."""
    if finite(now.get("epoch_ends_in")) and finite(now.get("run_ends_in")):
        passed = time.time() - now["time"]
        return tuple(max(0.0, now[name] - passed) for name in ("epoch_ends_in", "run_ends_in"))
    if finite(last.get("seconds")) and epochs:
        left = last["seconds"] * max(0, epochs - last["epoch"] - 1)
        return min(last["seconds"], left), left
    return None, None


def _values(row: dict, prefix: str) -> dict[str, Any]:
    return {k[len(prefix) :]: v for k, v in row.items() if k.startswith(prefix)}


def _pairs(values: dict) -> str:
    return ", ".join(f"{k} {v:.6g}" if finite(v) else f"{k} {v}" for k, v in values.items())


def _age(path: Path) -> float:
    return max(0.0, time.time() - path.stat().st_mtime)
