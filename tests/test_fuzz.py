"""A short part of the fuzzing campaign, and that the campaign sees what it looks for."""

import json

import pytest

from tests.conftest import ROOT, run_python
from tests.fuzz import targets
from tests.fuzz.broken import BROKEN

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


def test_broken_parsers_are_found():
    """Each kind of failure is counted, with the input that did it, and the campaign goes on."""
    done = run_python("-m", "tests.fuzz.broken", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert set(results) == set(BROKEN)
    for what, found in results.items():
        assert found["inputs"] == 2, what
        assert {failure["kind"] for failure in found["failures"]} == {BROKEN[what].kind}, what
        hangs = 2 if what in ("a hang", "waiting") else 0
        assert (found["hangs"], found["crashes"]) == (hangs, 2 - hangs), what
