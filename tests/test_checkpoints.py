"""Checkpoints as folders, a run's directory and its events: without MXNet, on real files."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from gluon_asymmnet.errors import FormatError, InputError, RunError
from gluon_asymmnet.train import checkpoint_files as files
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.config import resolve
from gluon_asymmnet.train.progress import TensorBoard
from gluon_asymmnet.train.run_directory import RunDirectory
from gluon_asymmnet.utils.json_objects import read_json_lines
from tests.conftest import ROOT, run_python

SETTINGS = {"model": "asymmnet_small", "num_epochs": 9, "warmup_epochs": 0}


def config(**changes):
    return resolve(ClassifierConfig, {**SETTINGS, **changes})


def write_checkpoint(folder, step, *, best_step=None, **texts):
    path = folder / f"step-{step:09d}"
    path.mkdir(parents=True)
    (path / "net.params").write_bytes(bytes(range(256)))
    (path / "trainer.params").write_bytes(b"momentum" * 9)
    state = {"step": step, "epoch": step // 10, "best_step": best_step}
    (path / "state.json").write_text(json.dumps(state))
    for name, text in texts.items():
        (path / name.replace("_", ".")).write_text(text)
    files.write_manifest(path, step)
    return path


@pytest.fixture
def run(tmp_path):
    """A run with checkpoints at 10 (the best), 20, 30 and 40."""
    folder = tmp_path / "run"
    RunDirectory(folder, config(), {}).close()
    for step in (10, 20, 30, 40):
        write_checkpoint(folder / "checkpoints", step, best_step=10)
    return folder


def steps(run):
    return [c.step for c in files.list_checkpoints(run / "checkpoints")]


def newest(run):
    return files.list_checkpoints(run / "checkpoints")[-1]


# --- Manifest --------------------------------------------------------------------------------


def test_manifest_is_that_of_sha256sum(run):
    """The digests are those of coreutils."""
    path = newest(run).path
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["step"] == 40
    for name, entry in manifest["files"].items():
        said = subprocess.run(["sha256sum", path / name], capture_output=True, text=True).stdout
        assert entry == {"bytes": (path / name).stat().st_size, "sha256": said.split()[0]}
    assert sorted(manifest["files"]) == ["net.params", "state.json", "trainer.params"]


@pytest.mark.parametrize("name", ["net.params", "trainer.params", "state.json"])
def test_every_flipped_bit_and_every_cut_is_found(run, name):
    checkpoint = newest(run)
    file = checkpoint.path / name
    data = file.read_bytes()
    for bit in range(0, 8 * len(data), 7):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        assert files.find_damage(checkpoint) == (
            f"{name} is not what was written: its SHA-256 differs"
        )
    for size in range(0, len(data), 5):
        file.write_bytes(data[:size])
        assert files.find_damage(checkpoint) == f"{name} has {size} bytes instead of {len(data)}"
    file.unlink()
    assert files.find_damage(checkpoint) == f"{name} is missing"
    file.mkdir()
    assert files.find_damage(checkpoint)


def test_a_flipped_bit_of_the_manifest_is_found_or_means_nothing(run):
    checkpoint = newest(run)
    file = checkpoint.path / "manifest.json"
    data = file.read_bytes()
    harmless = 0
    for bit in range(0, 8 * len(data), 3):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        if files.find_damage(checkpoint) is None:
            harmless += 1
            assert files.read_manifest(file) == json.loads(data)["files"]
    assert harmless < 0.05 * 8 / 3 * len(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "manifest.json is damaged"),
        ("[" * 100_000, "manifest.json is damaged"),
        ("[]", "holds a list, not an object"),
        ("{}", "lacks step or files"),
        (
            '{"step": 40, "files": {"../../x": {}}}',
            r"names '\.\./\.\./x', which is not a file of its",
        ),
        ('{"step": 40, "files": {"/etc/passwd": {}}}', "which is not a file of its folder"),
        ('{"step": 40, "files": {"net.params": {"bytes": "1"}}}', "no size and digest of net.par"),
        ('{"step": 40, "files": {}}', "does not name net.params"),
    ],
)
def test_manifests_that_are_none(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(FormatError, match=message):
        files.read_manifest(tmp_path / "manifest.json")


def test_a_checkpoint_under_another_name_is_damaged(run):
    path = newest(run).path
    os.rename(path, path.with_name("step-000000050"))
    assert files.find_damage(newest(run)) == "its manifest is that of step 40"


def test_one_without_a_manifest_is_damaged(run):
    (newest(run).path / "manifest.json").unlink()
    assert files.find_damage(newest(run)) == "manifest.json is missing"


# --- Which stay ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "kept"), [(1, [10, 40]), (2, [10, 30, 40]), (3, [10, 20, 30, 40])]
)
def test_the_newest_and_the_best_stay(run, keep, kept):
    files.clean_up(run / "checkpoints", keep)
    assert steps(run) == kept


def test_damaged_ones_do_not_count_and_are_not_deleted(run):
    (newest(run).path / "net.params").write_bytes(b"")
    damaged = files.clean_up(run / "checkpoints", 2)
    assert [d.checkpoint.step for d in damaged] == [40]
    assert steps(run) == [10, 20, 30]
    assert [p.name for p in files.list_set_aside(run / "checkpoints")] == ["damaged-step-000000040"]


def test_set_aside_twice_keeps_both(run):
    folder = run / "checkpoints"
    for _ in range(2):
        assert files.set_aside(newest(run)).exists()
        write_checkpoint(folder, 40)
    names = [p.name for p in files.list_set_aside(folder)]
    assert names == ["damaged-step-000000040", "damaged-step-000000040-2"]


def test_odd_names_are_not_checkpoints(run):
    for name in ("step-latest", "step-1", "step-000000050.bak", ".step-000000060"):
        (run / "checkpoints" / name).mkdir()
    assert steps(run) == [10, 20, 30, 40]


# --- Opening a run ---------------------------------------------------------------------------


def test_falls_back_to_the_newest_good_one_and_says_so(run):
    folder = run / "checkpoints"
    (folder / "step-000000040/net.params").unlink()
    os.truncate(folder / "step-000000030/state.json", 3)
    directory = RunDirectory(run, config(), {})
    assert directory.latest.step == 20
    assert steps(run) == [10, 20]
    events = [(e["kind"], e["step"], e["message"]) for e in directory.read_events()]
    assert events == [
        ("fallback", 40, "set aside as damaged-step-000000040: net.params is missing"),
        ("fallback", 30, "set aside as damaged-step-000000030: state.json has 3 bytes instead of "
                         f"{len(json.dumps({'step': 30, 'epoch': 3, 'best_step': 10}))}"),
    ]  # fmt: skip
    directory.close()


def test_never_starts_anew_where_every_checkpoint_is_damaged(run):
    for path in (run / "checkpoints").iterdir():
        (path / "net.params").unlink()
    for _ in range(2):
        with pytest.raises(RunError, match=r"every checkpoint is damaged \(step-000000040: net\.p"):
            RunDirectory(run, config(), {})
    assert steps(run) == [10, 20, 30, 40]
    for checkpoint in files.list_checkpoints(run / "checkpoints"):
        files.set_aside(checkpoint)
    with pytest.raises(RunError, match="damaged-step-000000010: set aside"):
        RunDirectory(run, config(), {})


def test_settings_come_from_the_checkpoint_where_config_is_damaged(run):
    from gluon_asymmnet.utils.settings import to_json

    write_checkpoint(run / "checkpoints", 50, config_json=to_json(config()))
    for damage in (lambda f: f.write_text("{"), lambda f: f.unlink()):
        damage(run / "config.json")
        with pytest.raises(InputError, match=r"other settings \(lr 0.1 -> 3"):
            RunDirectory(run, config(lr=3.0), {})
        RunDirectory(run, config(), {}).close()
        assert json.loads((run / "config.json").read_text())["model"] == "asymmnet_small"
    kinds = [e["message"] for e in read_json_lines(run / "events.jsonl")]
    assert "config.json is damaged; taken from step-000000050" in kinds
    assert "config.json is missing; taken from step-000000050" in kinds


def test_a_damaged_config_without_a_checkpoint_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"hidden_size": 768}')
    with pytest.raises(InputError, match="not the configuration of a run"):
        RunDirectory(tmp_path, config(), {})
    assert (tmp_path / "config.json").read_text() == '{"hidden_size": 768}'


def test_a_start_that_was_killed_early_is_not_a_foreign_folder(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".config.json.0123456789abcdef.tmp").touch()
    RunDirectory(tmp_path, config(), {}).close()
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match="is not empty and holds no run"):
        RunDirectory(tmp_path, config(), {})


def test_what_killed_processes_left_is_removed_and_nothing_else(run):
    hidden = "0123456789abcdef.tmp"
    (run / f"checkpoints/.step-000000050.{hidden}").mkdir()
    for name in ("best.params", "metrics.jsonl", "report.html"):
        (run / f".{name}.{hidden}").touch()
    RunDirectory(run, config(), {}).close()
    assert [p.name for p in run.rglob("*.tmp")] == [f".report.html.{hidden}"]


def test_a_moved_run_goes_on(run, tmp_path):
    os.rename(run, tmp_path / "elsewhere")
    directory = RunDirectory(tmp_path / "elsewhere", config(save_dir="x", tag_name="y"), {})
    assert directory.latest.step == 40
    directory.close()


def test_metrics_are_those_of_the_checkpoint(run):
    rows = [{"step": 10, "x": 0.1}, {"step": 20, "x": 1e-9}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_checkpoint(run / "checkpoints", 50, metrics_jsonl=text)
    for found in ("", "garbage\n", text + text, text + '{"step": 60}\n{"st'):
        (run / "metrics.jsonl").write_text(found)
        directory = RunDirectory(run, config(), {})
        assert directory.read_metrics() == rows
        assert (run / "metrics.jsonl").read_text() == text
        directory.add_metrics(step=60)
        assert read_json_lines(run / "metrics.jsonl") == [*rows, {"step": 60}]
        assert directory.texts()["metrics.jsonl"] == text + '{"step": 60}\n'
        directory.close()


def test_a_run_without_a_checkpoint_forgets_its_metrics(tmp_path):
    """It was killed before the first one, and will do these steps again."""
    first = RunDirectory(tmp_path, config(), {})
    first.add_metrics(step=10)
    first.close()
    RunDirectory(tmp_path, config(), {}).close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


# --- Events ----------------------------------------------------------------------------------


def test_events_survive_a_cut_line(tmp_path):
    directory = RunDirectory(tmp_path, config(), {})
    directory.add_event("started", 0, "at step 0")
    with open(tmp_path / "events.jsonl", "ab") as file:
        file.write(b'{"time": "2026-01-01T00:00:00+00:00", "kind": "res')
    directory.add_event("stopped", 7, "by SIGTERM, \u00fc")
    events = directory.read_events()
    assert [(e["step"], e["kind"], e["message"]) for e in events] == [
        (0, "started", "at step 0"), (7, "stopped", "by SIGTERM, \u00fc"),
    ]  # fmt: skip
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
    assert all(re.fullmatch(pattern, e["time"]) and len(e) == 4 for e in events)
    directory.close()


def test_json_lines_leave_out_what_is_none(tmp_path):
    (tmp_path / "x").write_bytes(b'{"a": 1}\n\xff\xfe\n5\n' + b"[" * 100_000 + b'\n{"b": 2}')
    assert read_json_lines(tmp_path / "x") == [{"a": 1}, {"b": 2}]
    assert read_json_lines(tmp_path / "none") == []


def test_the_board_is_written_at_once_and_says_where_it_starts(tmp_path):
    """Read with tensorboardX's own messages; each event is framed by length and checksums."""
    from tensorboardX.proto.event_pb2 import Event

    board = TensorBoard(tmp_path, purge_step=3)
    board.add_scalar("val_top1", 0.5, 3)
    data = next(tmp_path.glob("events.out.tfevents.*")).read_bytes()  # before it is closed
    events = []
    while data:
        size = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + size]))
        data = data[size + 16 :]
    board.close()
    assert events[1].step == 3
    assert events[1].session_log.status == 1  # START: forget what is from there on
    assert (events[2].step, events[2].summary.value[0].tag) == (3, "val_top1")
    assert events[2].summary.value[0].simple_value == 0.5


def test_a_full_disk_is_an_error_of_the_board_and_of_the_log_not_a_hang(tmp_path):
    code = """
import resource, signal, sys
from pathlib import Path
from gluon_asymmnet.train.progress import TensorBoard
from gluon_asymmnet.train.run_directory import logging_to
folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
board = TensorBoard(folder, 0)
try:
    for epoch in range(99):
        board.add_scalar("x", 1, epoch)
except OSError as error:
    print("board", error)
with logging_to(folder / "log.txt") as log:
    try:
        for _ in range(99):
            log.info("x" * 20)
    except OSError as error:
        print("log", error, file=sys.stderr)
"""
    done = run_python("-c", code, tmp_path, timeout=60)
    assert "board [Errno 27] File too large" in done.stdout
    assert re.search(r"^log \[Errno 27\] File too large: '.*log\.txt'$", done.stderr.strip())
    assert len(done.stdout.splitlines()) < 99


def test_nobody_reading_the_output_does_not_end_a_run(tmp_path):
    code = """
import sys
from pathlib import Path
from gluon_asymmnet.train.run_directory import logging_to
with logging_to(Path(sys.argv[1])) as log:
    for i in range(20000):
        log.info("%d", i)
sys.stdout = None
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "log.txt"], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 0
    assert "Traceback" not in said
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 20000


# --- The command -----------------------------------------------------------------------------


def asymmnet(*arguments):
    return run_python("-m", "gluon_asymmnet", "checkpoints", *arguments)


def test_list_and_verify(run):
    done = asymmnet("verify", run)
    assert (done.returncode, done.stdout) == (0, "4 checkpoints, 0 damaged\n")
    os.truncate(newest(run).path / "net.params", 7)
    files.set_aside(files.list_checkpoints(run / "checkpoints")[1])
    done = asymmnet("verify", run)
    assert done.returncode == 1
    assert "step-000000040: net.params has 7 bytes instead of 256\n" in done.stdout
    assert "damaged-step-000000020: set aside earlier\n3 checkpoints, 1 damaged" in done.stdout
    lines = asymmnet("list", run).stdout.splitlines()
    assert lines[0].split() == ["step", "epoch", "MB", "best", "state"]
    assert lines[1].split() == ["10", "1", "0.0", "best", "whole"]
    assert lines[2].split() == ["30", "3", "0.0", "whole"]
    reason = "damaged: net.params has 7 bytes instead of 256"
    assert lines[3].split(maxsplit=3) == ["40", "?", "0.0", reason]
    assert lines[4] == "damaged-step-000000020: damaged, set aside"


def test_prune(run):
    folder = run / "checkpoints"
    os.truncate(newest(run).path / "net.params", 7)
    dry = asymmnet("prune", run, "--keep", 1, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "step-000000020: would go, 0.0 MB" in dry.stdout
    assert steps(run) == [10, 20, 30, 40]
    done = asymmnet("prune", run, "--keep", 1)
    assert "step-000000040: left alone, damaged: net.params has 7 bytes" in done.stdout
    assert "kept: step-000000010, step-000000030" in done.stdout
    assert steps(run) == [10, 30, 40]
    assert not list(folder.glob(".*"))


def test_prune_leaves_everything_where_nothing_is_whole(run):
    for path in (run / "checkpoints").iterdir():
        (path / "net.params").unlink()
    assert "kept: none is whole" in asymmnet("prune", run, "--keep", 1).stdout
    assert steps(run) == [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "/nowhere"], "/nowhere holds no checkpoints/; expected the directory of a run"),
        (["prune", "{run}", "--keep", "0"], "expected a whole number, at least 1"),
        (["prune", "{run}"], "another process is working on this run"),
    ],
)
def test_refusals(run, arguments, message):
    with open(run / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = asymmnet(*(a.format(run=run) for a in arguments))
    assert done.returncode == 2
    assert message in done.stderr
    assert steps(run) == [10, 20, 30, 40]


def test_a_removal_that_is_killed_leaves_no_half_checkpoint(run):
    """A child that is killed while it removes the third file: the rest is hidden, and goes."""
    victim = files.list_checkpoints(run / "checkpoints")[0]
    for number in range(9):
        (victim.path / f"{number}.txt").touch()
    whole, pid = len(list(victim.path.iterdir())), os.fork()
    if not pid:
        more = iter(range(2))

        def kill_at_the_third(event, _):  # an audit hook is called before each removal
            if event == "os.remove" and next(more, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill_at_the_third)
        files.remove(victim)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert steps(run) == [20, 30, 40]
    (rest,) = (run / "checkpoints").glob(".step-000000010.*.tmp")
    assert len(list(rest.iterdir())) == whole - 2
    RunDirectory(run, config(), {}).close()
    assert not list((run / "checkpoints").glob(".*"))
