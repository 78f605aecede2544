"""The rules of CONTRIBUTING, read from the source."""

import ast
import re

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "gluon_asymmnet"
MODULES = sorted(PACKAGE.rglob("*.py"))

# May be imported and tested without MXNet.
PURE = (
    "arch", "atomic", "card", "cli", "compat/convert", "compat/layouts", "compat/params_file",
    "compat/published", "compat/published_evaluation", "compat/safetensors_file",
    "compat/state_dict_file", "compat/states_file", "compat/walk", "complexity",
    "compress/optimizer", "compress/receptive_field", "config", "data", "detection/agreement",
    "detection/card", "detection/coco_ap", "detection/config", "detection/evaluate",
    "detection/nms", "detection/pictures", "detection/report", "detection/sources",
    "detection/spec", "detection/voc_ap", "distributed/join", "distributed/launch",
    "distributed/place", "distributed/watch", "distributed/workers", "doctor", "download", "errors",
    "evaluate", "evaluation_report", "export/detector_graph", "export/folder", "export/int8_report",
    "export/int8_search", "export/onnx_graph", "export/onnx_int8", "export/parity", "extras",
    "folding", "json_objects", "predict", "recipes", "registry", "related/rpw_plan", "report",
    "settings", "threads", "train/checkpoint_files", "train/curves", "train/mixing",
    "compress/decomposition", "compress/images", "compress/moments", "compress/options",
    "compress/report", "config", "data",
    "detection/agreement", "detection/card", "detection/coco_ap", "detection/config",
    "detection/evaluate", "detection/nms", "detection/pictures", "detection/report",
    "detection/sources", "detection/spec", "detection/voc_ap", "distributed/join",
    "distributed/launch", "distributed/place", "distributed/watch", "distributed/workers", "doctor",
    "download", "errors", "evaluate", "evaluation_report", "export/detector_graph", "export/folder",
    "export/int8_report", "export/int8_search", "export/onnx_graph", "export/onnx_int8",
    "export/parity", "extras", "folding", "json_objects", "predict", "recipes", "registry",
    "report", "settings", "threads", "train/checkpoint_files", "train/curves", "train/mixing",
    "train/progress", "train/run_directory", "train/schedule",
)  # fmt: skip


def name_of(path):
    return str(path.relative_to(PACKAGE).with_suffix("")).replace("/__init__", "")


def imports_of(path, *, at_load_only=False):
    """Yield the modules a file imports; inside functions, too, unless ``at_load_only``."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if at_load_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def is_pure(name):
    return any(name == p or name.startswith(p + "/") for p in PURE)


@pytest.mark.parametrize("path", [p for p in MODULES if is_pure(name_of(p))], ids=name_of)
def test_pure_modules_load_only_pure_ones(path):
    for module in imports_of(path, at_load_only=True):
        assert not module.startswith(("mxnet", "gluoncv", "gluon_asymmnet._environment")), module
        if module.startswith("gluon_asymmnet."):
            inner = module.split(".", 1)[1].replace(".", "/")
            assert is_pure(inner), f"{name_of(path)} loads {module}, which is not pure"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_mxnet_comes_through_the_environment_module(path):
    if path.name != "_environment.py":
        direct = [m for m in imports_of(path) if m.split(".")[0] in ("mxnet", "gluoncv")]
        assert direct == []


FORBIDDEN = [
    ("nn", ("data", "train", "export", "compat", "saved", "registry", "config")),
    ("data", ("nn", "train", "export", "compat", "registry", "saved")),
    ("nn", ("related", "compress")),
    ("related", ("data", "train", "export", "compat", "saved", "config")),
    ("compress", ("train", "export")),
    ("train", ("export", "saved", "related")),
    ("export", ("train",)),
    ("arch", ("nn", "data", "train", "registry")),
]


@pytest.mark.parametrize(("part", "others"), FORBIDDEN)
def test_who_may_import_whom(part, others):
    files = [p for p in MODULES if name_of(p) == part or name_of(p).startswith(part + "/")]
    assert files
    for path in files:
        for module in imports_of(path):
            inner = module.split(".")[1:2] if module.startswith("gluon_asymmnet.") else []
            assert not set(inner) & set(others), f"{name_of(path)} imports {module}"


def test_the_package_knows_no_scripts():
    for path in MODULES:
        found = {m.split(".")[0] for m in imports_of(path)}
        assert not found & {"symbols", "train_imagenet", "eval", "export", "tests"}, path


def test_readme_is_one_page_and_starts_with_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert text.index("make demo") < text.index("make test") < 1500


def test_no_file_is_two_things_in_one():
    long = {name_of(p): n for p in MODULES if (n := len(p.read_text().splitlines())) > 460}
    assert long == {}


def test_changelog_names_the_version():
    from gluon_asymmnet import __version__

    assert re.search(rf"^## {re.escape(__version__)}", (ROOT / "CHANGELOG.md").read_text(), re.M)
