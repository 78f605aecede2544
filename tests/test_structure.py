"""The rules of CONTRIBUTING, read from the source."""

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = "gluon_asymmnet"
FILES = sorted((ROOT / PACKAGE).rglob("*.py"))

# Rooms from the bottom up: a room imports only from rooms before it.
LAYERS = (
    "errors", "utils", "_mxnet", "arch", "data", "nn", "models", "weights", "evaluation", "card",
    "zoo", "gluoncv_names", "saved", "predict", "distributed", "train", "export", "compress",
    "report", "torch", "cli", "__main__",
)  # fmt: skip

# Rooms and modules that load without MXNet.
WITHOUT_MXNET = (
    "errors", "utils", "arch", "data", "card", "evaluation", "cli", "report", "predict", "torch",
    "models.registry", "models.ssd_spec", "models.ssd_box_coder",
    "models.complexity", "models.rpw_plan", "nn.folding", "weights.convert", "weights.layouts",
    "weights.params_file", "weights.published", "weights.safetensors_file",
    "weights.state_dict_file", "distributed.group", "distributed.launch",
    "distributed.environment", "distributed.heartbeat", "distributed.workers", "train.config",
    "train.classifier_config", "train.detector_config", "train.losses", "train.optimizers",
    "train.schedules", "train.session", "train.recipes", "train.checkpoint_files",
    "train.finetune", "train.mixing", "train.progress", "train.reporter", "train.run_directory",
    "compress.decomposition", "compress.moments", "compress.options", "compress.receptive_field",
    "compress.search", "export.parity", "export.int8.nncf", "export.int8.qdq", "export.int8.report",
    "export.int8.search",
)  # fmt: skip

OUTSIDE = {"benchmarks", "examples", "tools", "symbols", "tests", "train_imagenet", "eval"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports_of(path: Path, *, at_load_only: bool = False) -> set[str]:
    """Return the modules that a file imports; inside functions, too, unless ``at_load_only``."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in tree.body if at_load_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            found.update(name if name in MODULES else node.module for name in names)
    return found


def own_imports(module: str, **how) -> set[str]:
    return {name for name in imports_of(MODULES[module], **how) if name in MODULES}


def room(module: str) -> str:
    return (module.split(".")[1:] or [""])[0]


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_from_a_layer_above_its_own(module):
    if not room(module):
        return  # the package itself resolves its names when they are used
    for name in own_imports(module):
        if room(name):
            assert LAYERS.index(room(name)) <= LAYERS.index(room(module)), f"imports {name}"


def test_the_layers_are_the_rooms():
    assert {room(module) for module in MODULES} - {""} == set(LAYERS)


def test_no_imports_go_in_a_circle():
    left = {module: own_imports(module) - {module} for module in MODULES}
    while left:
        free = [module for module, needed in left.items() if not needed & left.keys()]
        assert free, f"these import each other: {sorted(left)}"
        for module in free:
            del left[module]


def loads_without_mxnet(module: str) -> bool:
    name = module.partition(".")[2]
    return not name or any(name == p or name.startswith(p + ".") for p in WITHOUT_MXNET)


@pytest.mark.parametrize("module", [m for m in MODULES if loads_without_mxnet(m)])
def test_what_needs_no_mxnet_loads_without_it(module):
    for name in imports_of(MODULES[module], at_load_only=True):
        assert name.split(".")[0] not in ("mxnet", "gluoncv")
        if name in MODULES and room(name):
            assert loads_without_mxnet(name) or name.count(".") == 1, name


@pytest.mark.parametrize("module", MODULES)
def test_mxnet_comes_through_its_own_module(module):
    if module != f"{PACKAGE}._mxnet":
        names = {name.split(".")[0] for name in imports_of(MODULES[module])}
        assert not names & {"mxnet", "gluoncv"}


def test_the_package_imports_nothing_outside_itself():
    for path in FILES:
        assert not {name.split(".")[0] for name in imports_of(path)} & OUTSIDE, path


def test_readme_is_one_page_and_starts_with_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert text.index("make demo") < text.index("make test") < 1500


def test_no_file_holds_two_subjects():
    lengths = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert {module: n for module, n in lengths.items() if n > 460} == {}


def test_changelog_names_the_version():
    from gluon_asymmnet import __version__

    assert re.search(rf"^## {re.escape(__version__)}", (ROOT / "CHANGELOG.md").read_text(), re.M)
