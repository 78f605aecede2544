"""The documents say what the code does."""

import json
import re

import pytest

from gluon_asymmnet.bench.report import document
from gluon_asymmnet.tables import TABLES, updated
from tests.conftest import ROOT

DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "symbols/README.md"]


@pytest.mark.parametrize("document", TABLES)
def test_tables_are_those_of_the_data(document):
    text = (ROOT / document).read_text()
    assert updated(text, TABLES[document]) == text, "run `make tables`"


def test_the_page_of_measurements_is_that_of_its_data():
    folder = ROOT / "benchmarks"
    measured = json.loads((folder / "measured.json").read_text())
    assert document(measured) == (folder / "measured.md").read_text()


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
