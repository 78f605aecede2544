"""Chains of SIGKILLs: one run, killed again and again, each time by a process that goes on."""

import dataclasses
import random
import signal
import time
from pathlib import Path

from gluon_asymmnet.utils.json_objects import read_json_lines
from tests.faults.subject import KEEP, End, Subject, damaged_steps, good_steps, read_end
from tests.faults.watch import SPREAD, Watch, moment, wait_for


@dataclasses.dataclass
class Outcome:
    """One fault, and what became of the run."""

    subject: str
    kind: str  # of fault
    phase: str  # where it hit, or what exactly
    problem: str = ""  # empty: survived


def chain(
    subject: Subject, reference: End, place: Path, aims: list[str], rng: random.Random
) -> tuple[list[Outcome], list[str]]:
    """Kill a run once for each aim, let it end, and compare.

    Returns: the outcomes, and the aims left over because the run ended before their turn.
    """
    outcomes: list[Outcome] = []
    folder = place / subject.folder
    for number, aim in enumerate(aims):
        good = good_steps(folder)
        watch = Watch(subject, folder)
        process = subject.start(place)
        if wait_for(process, moment(watch, aim, rng.randint(1, 2))):
            time.sleep(rng.uniform(0, SPREAD[aim]))
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            if process.returncode:
                last = Path(f"{place}.out").read_text(errors="replace").splitlines()[-1:]
                outcomes.append(Outcome(subject.name, "SIGKILL", aim, f"ended with {last}"))
            aims = aims[number:]
            break
        outcomes.append(Outcome(subject.name, "SIGKILL", watch.phase()))
        outcomes[-1].problem = lost(folder, good, reference)
    else:
        aims = []
    problem = finish(subject, reference, place)
    for outcome in outcomes:
        outcome.problem = outcome.problem or problem
    return outcomes, aims


def lost(folder: Path, good_before: list[int], reference: End) -> str:
    """Say which good checkpoint or row of metrics a dead process has cost, if any."""
    good, damaged = good_steps(folder), damaged_steps(folder)
    if damaged:
        return f"checkpoints {damaged} are damaged"
    if max(good, default=0) < max(good_before, default=0):
        return f"the newest good checkpoint was {good_before[-1]}, now {good[-1:]}"
    if len(good) < min(KEEP, len(good_before)):
        return f"good checkpoints were {good_before}, now {good}"
    steps = [row["step"] for row in read_json_lines(folder / "metrics.jsonl")]
    if steps != [row["step"] for row in reference.metrics][: len(steps)]:
        return f"metrics.jsonl has steps {steps}"
    return ""


def finish(subject: Subject, reference: End, place: Path, **popen) -> str:
    """Let a run end and compare it with the undisturbed one; return what differs."""
    done = subject.finish(place, **popen)
    if done.returncode:
        return f"status {done.returncode}: {done.stderr.splitlines()[-1:]}"
    folder = place / subject.folder
    differences = read_end(folder).differences(reference)
    if differences:
        return f"other than undisturbed: {', '.join(differences[:3])} ({len(differences)} in all)"
    leftovers = [str(p.relative_to(folder)) for p in folder.rglob(".*.tmp")]
    return f"left behind: {leftovers}" if leftovers else ""
