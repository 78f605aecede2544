"""The documents say what the code does."""

import ast
import itertools
import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from benchmarks import deploy, int8
from benchmarks.installed import installed_size
from benchmarks.report import document
from gluon_asymmnet.errors import RunError
from tests.conftest import ROOT, run_python
from tests.test_structure import LAYERS
from tools.tables import TABLES, speed_table, updated

DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "symbols/README.md"]


@pytest.mark.parametrize("document", TABLES)
@pytest.mark.thorough
def test_tables_are_those_of_the_data(document):
    text = (ROOT / document).read_text()
    assert updated(text, TABLES[document]) == text, "run `make tables`"


@pytest.mark.parametrize(
    "name", ["measured", "measured-small", "measured-training", "pictures", "readers"]
)
def test_the_page_of_measurements_is_that_of_its_data(name):
    folder = ROOT / "benchmarks"
    measured = json.loads((folder / f"{name}.json").read_text())
    assert document(measured) == (folder / f"{name}.md").read_text()


def test_the_page_of_8_bits_is_that_of_its_data():
    folder = ROOT / "benchmarks"
    found = json.loads((folder / "int8.json").read_text())
    assert int8.document(found) == (folder / "int8.md").read_text()


def test_the_page_of_targets_is_that_of_its_data():
    folder = ROOT / "benchmarks"
    found = json.loads((folder / "deploy.json").read_text())
    assert deploy.document(found) == (folder / "deploy.md").read_text()
    done = [row for row in found["rows"] if "left_out" not in row]
    assert {row["target"] for row in done} > {"onnxruntime", "onnxruntime-web", "ncnn", "openvino"}
    found["rounds"] = 7  # with speed there is one column more, also where a target is missing
    for row in done:
        row["ratio"] = 1.25
    lines = deploy.document(found).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert sum(line.endswith("| 1.25 |") for line in table) == len(done)


def test_the_size_of_a_package_holds_what_it_needs():
    numpy = installed_size("numpy")
    assert numpy > 10
    assert installed_size("onnxruntime") > numpy
    assert installed_size("no_package_of_this_name") == 0


def test_a_target_elsewhere_that_fails_says_why(tmp_path):
    with pytest.raises(RunError, match="it failed: KeyError: 'nothing'"):
        deploy._Elsewhere("nothing", sys.executable, tmp_path, 1)


def test_the_table_of_speed_takes_the_best_thread_count(tmp_path):
    case = {"kind": "infer", "model": "asymmnet_large", "width": 1.0, "size": 224}
    rows = [{**case, "name": name, "batch": batch, "median": seconds}
            for name, batch, seconds in (
                ("plain", 1, 0.02), ("plain", 1, 0.01), ("plain", 32, 0.4),
                ("openvino_f32", 1, 0.002), ("openvino_f32", 1, 0.004),
                ("openvino_f32", 32, 0.1), ("onnxruntime", 1, 0.003))]  # fmt: skip
    rows.append({**case, "name": "openvino_int8", "batch": 1, "left_out": "no nncf"})
    (tmp_path / "m.json").write_text(json.dumps({"rows": rows}))
    assert speed_table(tmp_path / "m.json").splitlines()[2:] == [
        "| authors' code, MXNet | 10.0 | 1.0 | 80 | 1.0 |",
        "| OpenVINO, f32 | 2.0 | 5.0 | 320 | 4.0 |",
    ]


def block_of_readme(language: str) -> str:
    """Return the one code block of README in this language."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return block


def test_the_python_of_readme_runs():
    done = run_python("-W", "ignore", "-c", block_of_readme("python"))
    assert (done.returncode, done.stdout) == (0, "(1, 10)\n"), done.stderr


@pytest.mark.thorough
def test_the_commands_of_readme_run(tmp_path):
    commands = block_of_readme("sh")
    assert "--num-epochs 9" in commands
    quick = commands.replace("--num-epochs 9", "--num-epochs 1 --warmup-epochs 0")
    asymmnet = f'asymmnet() {{ "{sys.executable}" -m gluon_asymmnet "$@"; }}\n'
    done = subprocess.run(
        ["sh", "-e", "-c", asymmnet + quick], capture_output=True, text=True, cwd=tmp_path,
        timeout=600, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    predicted = done.stdout.splitlines()[-45:]  # one line for each of the held-out threes
    assert all(line.startswith("digits/images/val/3/") for line in predicted), done.stdout


def walks() -> dict[str, list[tuple[str, list[str]]]]:
    """Return the walks of CONTRIBUTING: title -> (file, functions) in order."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text[text.index("\n## Walks") : text.index("\n## Extending")]
    title, found = "", {}
    for line in section.splitlines():
        if line.startswith("### "):
            title = line[4:]
        elif line.startswith("- "):
            file, *functions = re.findall(r"`([^`]+)`", line)
            found.setdefault(title, []).append((file, functions))
    return found


def test_the_walks_name_functions_that_exist():
    assert len(walks()) == 5
    for steps in walks().values():
        for file, functions in steps:
            tree = ast.parse((ROOT / "gluon_asymmnet" / file).read_text())
            defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            for owner in tree.body:
                if isinstance(owner, ast.ClassDef):
                    defined |= {f"{owner.name}.{node.name}" for node in owner.body
                                if isinstance(node, ast.FunctionDef)}  # fmt: skip
            assert functions, file
            assert set(functions) <= defined, file


def test_the_cases_name_tests_that_exist():
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", (ROOT / "docs/correctness.md").read_text())
    assert len(named) > 60
    for file, name in named:
        assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text(), f"{file}::{name}"


def test_no_walk_returns_to_a_room_more_than_twice():
    for title, steps in walks().items():
        rooms = [file.partition("/")[0] for file, _ in steps]
        visits = Counter(room for room, _ in itertools.groupby(rooms))
        assert max(visits.values()) <= 3, title


def test_the_layout_lists_the_rooms_from_the_bottom_up():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    heads = re.findall(r"^\| (`.*?) \|", text[text.index("\n## Layout") :], re.MULTILINE)
    rooms = [room for head in heads for room in re.findall(r"`(\w+)(?:/|\.py)`", head)]
    assert rooms == [room for room in LAYERS if room != "__main__"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_make_targets_named_exist(path):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)`", path.read_text()):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
