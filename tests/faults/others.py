"""Faults other than SIGKILL: signals, damaged files, full and read-only disks, two processes."""

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, NamedTuple

from gluon_asymmnet.train.checkpoint_files import list_checkpoints
from gluon_asymmnet.utils.json_objects import read_json_lines
from tests.faults.kills import Outcome, finish, lost
from tests.faults.subject import End, Subject, good_steps
from tests.faults.watch import RESUME, SPREAD, STEP, VALIDATION, Watch, moment, wait_for


class Scene(NamedTuple):
    """What a case works with."""

    subject: Subject
    reference: End
    template: Path  # a run that was stopped near its end, with three checkpoints
    place: Path  # of this case, new
    rng: random.Random

    @property
    def folder(self) -> Path:
        """The case's run directory."""
        return self.place / self.subject.folder

    def copy(self) -> Path:
        """Copy the template."""
        shutil.copytree(self.template, self.place)
        return self.folder

    def newest(self) -> Path:
        """The newest checkpoint."""
        return list_checkpoints(self.folder / "checkpoints")[-1].path

    def finish(self, **popen) -> str:
        """Let the run end; return what is wrong."""
        return finish(self.subject, self.reference, self.place, **popen)


def make_template(subject: Subject, place: Path) -> None:
    """Run almost to the end, then stop with SIGTERM."""
    watch = Watch(subject, place / subject.folder)
    process = subject.start(place)
    wanted = subject.steps - subject.steps_per_epoch - 1
    assert wait_for(process, lambda: len(watch.batches()) >= wanted)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert watch.steps()[-1] < subject.steps


# --- Signals ---------------------------------------------------------------------------------


def stopped(scene: Scene, number: int, aim: str) -> str:
    """SIGTERM or Ctrl-C: finish the step, save, print the command, exit with 128 + signal."""
    watch = Watch(scene.subject, scene.folder)
    process = scene.subject.start(scene.place)
    wait_for(process, moment(watch, aim, scene.rng.randint(1, 9)))
    time.sleep(scene.rng.uniform(0, SPREAD[aim]))
    process.send_signal(number)
    if process.wait() != 128 + number:
        return f"status {process.returncode} after {signal.Signals(number).name}"
    said = Path(f"{scene.place}.out").read_text()
    if "to resume: " not in said:
        return "it does not say how to go on"
    epoch, batch = watch.batches()[-1]
    if watch.steps()[-1] != epoch * scene.subject.steps_per_epoch + batch + 1:
        return f"the last step is {epoch}, {batch}, the newest checkpoint {watch.steps()[-1]}"
    if read_json_lines(scene.folder / "events.jsonl")[-1]["kind"] != "stopped":
        return "events.jsonl does not end with the stop"
    return scene.finish()


# --- Damaged checkpoints ---------------------------------------------------------------------

CHECKPOINT_FILES = (
    "net.params", "trainer.params", "state.json", "manifest.json", "metrics.jsonl", "config.json",
)  # fmt: skip


def cut(path: Path, rng: random.Random) -> None:
    """Truncate a file somewhere."""
    os.truncate(path, rng.randrange(path.stat().st_size))


def flip(path: Path, rng: random.Random) -> None:
    """Turn one bit of a file over."""
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def remove(path: Path, _rng) -> None:
    """Remove a file."""
    path.unlink()


def obstruct(path: Path, _rng) -> None:
    """Put something unreadable in a file's place."""
    path.unlink()
    path.mkdir()


def empty(path: Path, _rng) -> None:
    """Remove everything in a folder."""
    shutil.rmtree(path)
    path.mkdir()


def flatten(path: Path, _rng) -> None:
    """Put a file in a folder's place."""
    shutil.rmtree(path)
    path.write_text("")


def fallback(scene: Scene, damage: Callable, file: str) -> str:
    """Damage the newest checkpoint: the one before is taken, and it is said."""
    scene.copy()
    newest = scene.newest()
    before = good_steps(scene.folder)
    damage(newest / file, scene.rng)
    while good_steps(scene.folder) == before:  # a bit that means nothing, in white space
        damage(newest / file, scene.rng)
    problem = scene.finish()
    aside = newest.with_name(f"damaged-{newest.name}")
    said = (scene.folder / "log.txt").read_text()
    kinds = [event["kind"] for event in read_json_lines(scene.folder / "events.jsonl")]
    if not aside.exists():
        return problem or "the damaged checkpoint was not set aside"
    if f"set aside {newest}: " not in said or "fallback" not in kinds:
        return problem or "it does not say that it fell back"
    return problem


def all_damaged(scene: Scene) -> str:
    """Nothing good: refuse, twice, naming each; with a good copy back, go on."""
    folder = scene.copy() / "checkpoints"
    saved = scene.newest()
    kept = shutil.copytree(saved, scene.place / "kept")
    for checkpoint in list_checkpoints(folder):
        cut(checkpoint.params, scene.rng)
    for _ in range(2):
        done = scene.subject.finish(scene.place)
        named = all(c.path.name in done.stderr for c in list_checkpoints(folder))
        if done.returncode != 1 or not named or "Traceback" in done.stderr:
            return f"status {done.returncode}: {done.stderr.splitlines()[-1:]}"
    shutil.rmtree(saved)
    shutil.move(kept, saved)
    return scene.finish()


# --- Damaged files beside them ---------------------------------------------------------------


def _append(text: bytes) -> Callable:
    def damage(path: Path, _rng) -> None:
        with open(path, "ab") as file:
            file.write(text)

    return damage


def _stray(path: Path, _rng) -> None:
    """What people and killed processes leave among checkpoints."""
    (path / "step-latest").mkdir()
    (path / "notes.txt").write_text("mine")
    (path / ".step-000000099.0123456789abcdef.tmp").mkdir()


BESIDE = {
    "metrics.jsonl cut": ("metrics.jsonl", cut),
    "metrics.jsonl flipped": ("metrics.jsonl", flip),
    "metrics.jsonl missing": ("metrics.jsonl", remove),
    "metrics.jsonl with a line too many": ("metrics.jsonl", _append(b'{"step": 1, "epoch": 0}\n')),
    "metrics.jsonl with garbage": ("metrics.jsonl", _append(b"\xff\x00[[[[\n5\n")),
    "events.jsonl cut": ("events.jsonl", cut),
    "events.jsonl with garbage": ("events.jsonl", _append(b"\xff\x00{")),
    "config.json cut": ("config.json", cut),
    "config.json missing": ("config.json", remove),
    "environment.json cut": ("environment.json", cut),
    "log.txt missing": ("log.txt", remove),
    "last weights half written": (".last.params.0123456789abcdef.tmp", _append(b"half")),
    "strange names among the checkpoints": ("checkpoints", _stray),
}


def beside(scene: Scene, file: str, damage: Callable) -> str:
    """Damage what is not a checkpoint: the run goes on, and nothing is lost."""
    folder = scene.copy()
    damage(folder / file, scene.rng)
    problem = scene.finish()
    last = read_json_lines(folder / "events.jsonl")[-1:]
    if not last or last[0]["kind"] != "resumed":
        return problem or f"events.jsonl ends with {last}"
    return problem


# --- Disks -----------------------------------------------------------------------------------


def refused(scene: Scene, what: str, **popen) -> str:
    """Run into a disk that does not take it: status 1, one line, nothing lost."""
    good = good_steps(scene.folder)
    done = scene.subject.finish(scene.place, **popen)
    if done.returncode != 1 or "Traceback" in done.stderr or what not in done.stderr:
        return f"status {done.returncode}: {done.stderr.splitlines()[-1:]}"
    return lost(scene.folder, good, scene.reference)


def limited(scene: Scene, share: float) -> str:
    """Files may not grow beyond a share of the network's parameters."""
    scene.copy()
    limit = int((scene.newest() / "net.params").stat().st_size * share)

    def set_limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return refused(scene, "File too large", preexec_fn=set_limit) or scene.finish()


@contextlib.contextmanager
def small_disk(scene: Scene) -> Iterator[Path]:
    """Mount a file system of its own with a copy of the template in it."""
    scene.place.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", "size=128m", "none", str(scene.place))
    try:
        shutil.copytree(scene.template, scene.place, dirs_exist_ok=True)
        yield scene.place
    finally:
        subprocess.run(["umount", str(scene.place)], check=True)


def may_mount(folder: Path) -> bool:
    """Whether this machine lets us mount."""
    folder.mkdir(parents=True)
    try:
        _mount("-t", "tmpfs", "none", str(folder))
    except (OSError, subprocess.CalledProcessError):
        return False
    subprocess.run(["umount", str(folder)], check=True)
    return True


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def full(scene: Scene, left: int) -> str:
    """A disk with ``left`` bytes free when the run starts."""
    with small_disk(scene) as disk:
        filler = _fill(disk, left)
        problem = refused(scene, "No space left on device")
        filler.unlink()
        return problem or scene.finish()


def fills_up(scene: Scene) -> str:
    """A disk that somebody fills while the run works."""
    with small_disk(scene) as disk:
        watch, good = Watch(scene.subject, scene.folder), good_steps(scene.folder)
        process = scene.subject.start(scene.place)
        wait_for(process, moment(watch, STEP, 1))
        filler = _fill(disk, 0)
        status = process.wait()
        said = Path(f"{scene.place}.out").read_text()
        filler.unlink()
        if status != 1 or "No space left on device" not in said or "Traceback" in said:
            return f"status {status}: {said.splitlines()[-1:]}"
        return lost(scene.folder, good, scene.reference) or scene.finish()


def _fill(disk: Path, left: int) -> Path:
    filler = disk / "filler"
    free = os.statvfs(disk)
    with open(filler, "wb") as file, contextlib.suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, max(free.f_bavail * free.f_frsize - left, 1))
    return filler


def read_only(scene: Scene) -> str:
    """A disk that may not be written."""
    with small_disk(scene) as disk:
        _mount("-o", "remount,ro", str(disk))
        problem = refused(scene, "Read-only file system")
        _mount("-o", "remount,rw", str(disk))
        return problem or scene.finish()


# --- Two processes ---------------------------------------------------------------------------


def second_process(scene: Scene, aim: str) -> str:
    """The second is refused with status 2; the first goes on undisturbed."""
    scene.copy()
    watch = Watch(scene.subject, scene.folder)
    first = scene.subject.start(scene.place)
    wait_for(first, moment(watch, aim, 1))
    os.kill(first.pid, signal.SIGSTOP)  # so that it is still there when the second looks
    second = scene.subject.finish(scene.place)
    os.kill(first.pid, signal.SIGCONT)
    if first.wait():
        return f"the first ended with status {first.returncode}"
    if second.returncode != 2 or "another process is working on this run" not in second.stderr:
        return f"the second: status {second.returncode}: {second.stderr.splitlines()[-1:]}"
    return scene.finish()


# --- All of them -----------------------------------------------------------------------------

Case = tuple[str, str, Callable[[Scene], str]]  # kind, what exactly, the case itself


def cases(mounts: bool) -> list[Case]:
    """Every fault other than SIGKILL."""
    found: list[Case] = []

    def add(kind: str, what: str, function: Callable, *arguments) -> None:
        found.append((kind, what, lambda scene: function(scene, *arguments)))

    for number in (signal.SIGTERM, signal.SIGINT):
        for aim in (STEP, STEP, STEP, VALIDATION):
            add(signal.Signals(number).name, aim, stopped, number, aim)
    for file in CHECKPOINT_FILES:
        for how, damage in (("cut", cut), ("bit flipped", flip), ("missing", remove)):
            add("newest checkpoint damaged", f"{file} {how}", fallback, damage, file)
    for what, damage, file in (
        ("net.params unreadable", obstruct, "net.params"), ("emptied", empty, "."),
        ("manifest.json unreadable", obstruct, "manifest.json"), ("a file", flatten, "."),
    ):  # fmt: skip
        add("newest checkpoint damaged", what, fallback, damage, file)
    add("every checkpoint damaged", "net.params cut", all_damaged)
    for what, (file, damage) in BESIDE.items():
        add("other file damaged", what, beside, file, damage)
    for share in (0, 0.0001, 0.001, 0.5, 0.99):
        add("file size limited", f"to {share:.2%} of the parameters", limited, share)
    for aim in (RESUME, STEP):
        add("second process", aim, second_process, aim)
    if mounts:
        for left in (0, 10_000, 300_000):
            add("disk full", f"{left:,} bytes left at the start", full, left)
        add("disk full", "in mid-run", fills_up)
        add("disk read-only", "at the start", read_only)
    return found


def run_case(case: Case, scene: Scene) -> Outcome:
    """Run one case; what it raises is a problem, too."""
    kind, what, function = case
    try:
        problem = function(scene)
    except (AssertionError, OSError, ValueError, KeyError, IndexError) as error:
        problem = f"{type(error).__name__}: {error}"
    return Outcome(scene.subject.name, kind, what, problem)
