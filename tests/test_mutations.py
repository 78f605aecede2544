"""The mutants of the campaign: one small change each, and only of what computes."""

import ast

import pytest

from tests.conftest import ROOT
from tests.mutate.__main__ import MODULES
from tests.mutate.mutations import mutants

SOURCE = '''"""Not 1 + 1."""
def f(a: int, b=2, *, é="ü + 1"):
    """Not 1 < 2."""
    if not a < b and b != 0:
        raise ValueError(f"{a + 1} of 3")
    a += min(a, 3) if True else -b
    return a * 0.5
'''


def test_the_changes():
    found = [(m.before, m.after) for m in mutants(SOURCE)]
    assert found == [
        ("2", "3"),
        ("not a < b and b != 0", "((not a < b) or (b != 0))"), ("not a < b", "(a < b)"),
        ("a < b", "(a) <= (b)"), ("b != 0", "(b) == (0)"), ("0", "1"),
        ("a += min(a, 3) if True else -b", "a -= min(a, 3) if True else -b"),
        ("min(a, 3) if True else -b", "(-b if True else min(a, 3))"), ("True", "False"),
        ("min", "max"), ("3", "4"), ("-b", "(b)"),
        ("a * 0.5", "None"), ("a * 0.5", "(a) / (0.5)"), ("0.5", "1.0"),
    ]  # fmt: skip


def test_a_mutant_differs_in_its_place_only():
    for mutant in mutants(SOURCE):
        changed = mutant.apply(SOURCE.encode()).decode()
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(SOURCE))
        lines = [
            i for i, (a, b) in enumerate(zip(changed.split("\n"), SOURCE.split("\n"))) if a != b
        ]
        assert lines == [mutant.line - 1]


@pytest.mark.thorough
def test_the_modules_and_their_tests_exist():
    total = 0
    for module, tests in MODULES.items():
        total += len(list(mutants((ROOT / f"gluon_asymmnet/{module}.py").read_text())))
        assert all((ROOT / f"tests/test_{test}.py").is_file() for test in tests.split()), module
    assert total >= 400
