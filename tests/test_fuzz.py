"""A short part of the fuzzing campaign, and that the campaign sees what it looks for."""

import json
import os
import signal
import time

import pytest

from gluon_asymmnet.errors import FormatError
from tests.conftest import ROOT, run_python
from tests.fuzz import campaign, targets

REPORT = ROOT / "docs/data/fuzzing.json"


def test_no_parser_fails_on_a_few_thousand_inputs(tmp_path):
    """Others than those of the campaign: another seed."""
    report = tmp_path / "report.json"
    done = run_python(
        "-m", "tests.fuzz.campaign", "--inputs", 150, "--seed", 1, "--report", report, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(report.read_text())["results"]
    assert set(results) == set(targets.TARGETS)
    for name, found in results.items():
        assert found["inputs"] == found["accepted"] + found["refused"] == 150, name
        assert found["accepted"], f"{name}: only refusals, so little of it was reached"


def test_the_report_is_that_of_a_whole_campaign():
    results = json.loads(REPORT.read_text())["results"]
    assert set(results) == set(targets.TARGETS)
    for name, found in results.items():
        assert found["inputs"] == found["accepted"] + found["refused"] >= 100_000, name
        assert found["crashes"] == found["hangs"] == 0, name


@pytest.mark.parametrize("name", targets.TARGETS)
def test_an_input_is_a_function_of_its_number(name):
    seeds = targets.TARGETS[name].seeds()
    once = [targets.input_of(name, seeds, 0, i) for i in range(30)]
    assert once == [targets.input_of(name, seeds, 0, i) for i in range(30)]
    assert len(set(once)) > 10


def spin(folder, data):
    while True:
        pass


def die(folder, data):
    os.kill(os.getpid(), signal.SIGKILL)


def leak(folder, data, kept=[]):  # noqa: B006 - it leaks
    kept.append(os.open(os.devnull, os.O_RDONLY))


BROKEN = {
    "another exception": (lambda folder, data: {}[data], "KeyError"),
    "two lines": (lambda folder, data: refuse("a\nb"), "AssertionError"),
    "a long message": (lambda folder, data: refuse("x" * 5000), "AssertionError"),
    "memory": (lambda folder, data: bytearray(10 << 20), "AssertionError"),
    "more memory": (lambda folder, data: bytearray(5 << 30), "MemoryError"),
    "open files": (leak, "AssertionError"),
    "death": (die, "killed by signal 9"),
    "a hang": (spin, "HangError"),
    "waiting": (lambda folder, data: time.sleep(99), "killed by signal 14"),
}


def refuse(message):
    raise FormatError(message)


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_parser_is_found(what, monkeypatch):
    """Each kind of failure is counted, with the input that did it, and the campaign goes on."""
    read, kind = BROKEN[what]

    def sound_at_first(folder, data):
        if data != b"sound":
            read(folder, data)

    target = targets.Target(what, lambda: [b"sound"], lambda rng, seed: b"x", sound_at_first)
    monkeypatch.setitem(targets.TARGETS, "broken", target)
    monkeypatch.setattr("tests.fuzz.worker.CPU_S", 0.3)
    monkeypatch.setattr("tests.fuzz.worker.WALL_S", 1 if what == "waiting" else 60)
    found = campaign.run("broken", 2)
    assert found["inputs"] == 2
    assert {failure["kind"] for failure in found["failures"]} == {kind}
    assert found["hangs"] == (2 if what in ("a hang", "waiting") else 0)
    assert found["crashes"] + found["hangs"] == 2
