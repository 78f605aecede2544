import json
import os
import subprocess
import sys

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import ClassifierCard, read_card
from gluon_asymmnet.errors import FormatError, InputError, RunError
from gluon_asymmnet.export import symbol as exporter
from gluon_asymmnet.export.parity import compare, sample_images
from gluon_asymmnet.export.symbol import export_symbol
from gluon_asymmnet.saved import Saved, open_saved
from gluon_asymmnet.zoo import get_model
from symbols.asymmnet import get_symbol
from symbols.make_goldens import MODELS, manifest_entry, symbol_json
from tests.conftest import ROOT, run_python, thorough_but
from tests.floats import NET, assert_close
from tests.random_nets import random_model


def model(tmp_path, **changes):
    card = ClassifierCard(
        **{"model": "asymmnet_small", "width": 0.5, "classes": 7, "input_size": 32, **changes}
    )
    net = get_model(card.model, width=card.width, rate=card.rate, classes=card.classes)
    mx.random.seed(0)
    net.initialize(mx.init.MSRAPrelu())
    net.hybridize()
    return Saved(card, net, tmp_path / "net.params")


@pytest.mark.parametrize("rate", thorough_but([0, 1, 2], 1))
def test_exported_reloaded_equal(tmp_path, rate):
    made = model(tmp_path, rate=rate)
    out = export_symbol(made, tmp_path / "out")
    assert sorted(p.name for p in out.iterdir()) == [
        f"asymmnet_small_w0.5_r{rate}-0000.params", f"asymmnet_small_w0.5_r{rate}-symbol.json",
        "card.json",
    ]  # fmt: skip
    images = sample_images(3, 32, seed=9)
    found = compare(made.predict(images), open_saved(out).predict(images))
    assert found.relative < 1e-5
    assert found.top1_agreement == 1
    card = read_card(out / "card.json")
    assert card.parity["Module"]["relative"] < 1e-5
    assert card.parameters == sum(
        p.data().size for p in made.net.collect_params().values() if p.grad_req != "null"
    )


@pytest.mark.parametrize("rate", thorough_but([0, 1, 2], 1))
def test_optimized_symbol_is_of_stock_operators_and_equal(tmp_path, rate):
    made = model(tmp_path, rate=rate)
    out = export_symbol(made, tmp_path / "out", optimized=True)
    images = sample_images(3, 32, seed=9)
    assert_close(open_saved(out).predict(images), made.predict(images), terms=NET)
    nodes = json.loads(next(out.glob("*-symbol.json")).read_text())["nodes"]
    operators = {node["op"] for node in nodes}
    assert "BatchNorm" not in operators
    assert not any(name.startswith("_sg_") for name in operators)


def test_a_difference_is_refused_and_nothing_written(tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "_module_run", lambda prefix, x: [np.ones((len(x), 7))])
    with pytest.raises(RunError, match=r"symbol in mx\.mod\.Module differs .* nothing was written"):
        export_symbol(model(tmp_path), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_nothing_good_is_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="out exists already"):
        export_symbol(model(tmp_path), tmp_path / "out")


@pytest.mark.thorough
def test_the_command(tmp_path):
    made = model(tmp_path)
    made.net.save_parameters(str(made.weights))
    done = run_python(
        ROOT / "export.py", "symbol", made.weights, tmp_path / "out", "--model",
        "asymmnet_small_0.5", "--classes", 7, "--input-size", 32,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "same best class on 100 % of 4 images" in done.stdout
    assert done.stderr == ""


def test_a_card_of_an_earlier_version_is_read(tmp_path):
    """One written before there were specs."""
    out = export_symbol(model(tmp_path), tmp_path / "out")
    card = json.loads((out / "card.json").read_text())
    del card["spec"]
    (out / "card.json").write_text(json.dumps(card))
    assert open_saved(out).card.model == "asymmnet_small"


def test_damaged_exports_are_named(tmp_path):
    out = export_symbol(model(tmp_path), tmp_path / "out")
    symbol, weights = sorted(out.glob("asymm*"), reverse=True)
    good = weights.read_bytes()
    weights.write_bytes(good[:1000])
    with pytest.raises(FormatError, match=r"0000\.params"):
        open_saved(out)
    weights.write_bytes(good)
    symbol.write_text("{}")
    with pytest.raises(FormatError, match=r"symbol\.json: MXNet cannot read it"):
        open_saved(out)
    (out / "card.json").write_text(json.dumps({"model": "asymmnet_small"}))
    with pytest.raises(FormatError, match="not the card of a model: it lacks 'input_size'"):
        open_saved(out)
    for path, message in ((tmp_path / "none", "no such file"), (tmp_path, "neither a run nor an")):
        with pytest.raises((FileNotFoundError, InputError), match=message):
            open_saved(path)


@pytest.mark.parametrize("spec", thorough_but(MODELS, 0, -1), ids=lambda spec: spec.id)
def test_golden_symbols(spec):
    """A change of architecture shows here: the first node that differs is named."""
    name = spec.id
    golden = (ROOT / "symbols" / f"{name}-symbol.json").read_text()
    rebuilt = symbol_json(spec)
    for old, new in zip(json.loads(golden)["nodes"], json.loads(rebuilt)["nodes"]):
        assert new == old, f"{name}: node {old['name']} changed"
    assert json.loads(golden) == json.loads(rebuilt)
    manifest = json.loads((ROOT / "symbols/manifest.json").read_text())["symbols"]
    assert manifest[name] == manifest_entry(spec, golden)
    assert len(manifest) == len(MODELS)


@pytest.mark.thorough
def test_get_symbol_trains_in_a_module(tmp_path):
    symbol = get_symbol(5, "asymmnet_small", width=0.35)
    module = mx.mod.Module(symbol, context=mx.cpu())
    data = mx.io.NDArrayIter(
        np.random.default_rng(0).normal(size=(8, 3, 32, 32)).astype(np.float32),
        np.arange(8) % 5, batch_size=8, label_name="softmax_label",
    )  # fmt: skip
    metric = mx.metric.Accuracy()
    module.fit(data, num_epoch=30, eval_metric=metric, initializer=mx.init.MSRAPrelu(),
               optimizer_params={"learning_rate": 0.05})  # fmt: skip
    assert metric.get()[1] == 1.0
    assert symbol.list_outputs() == ["softmax_output"]


_MXNET_2 = """
import sys, mxnet as mx, numpy as np
symbol, params, images, logits = sys.argv[1:]
net = mx.gluon.SymbolBlock.imports(symbol, ["data"], params)
np.save(logits, net(mx.np.array(np.load(images))).asnumpy())
"""


@pytest.mark.slow
def test_an_exported_symbol_runs_in_mxnet_2(tmp_path):
    """In an environment of its own.  With oneDNN the check ``!is_view`` of MXNet 2.0.0b1 fails."""
    venv, images = tmp_path / "venv", sample_images(3, 32, seed=9)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run(
        [venv / "bin/pip", "install", "-q", "mxnet==2.0.0b1", "numpy<1.24"], check=True
    )  # fmt: skip
    made = random_model(tmp_path)
    out = export_symbol(made, tmp_path / "out")
    np.save(tmp_path / "images.npy", images)
    files = (*out.glob("*-symbol.json"), *out.glob("*.params"), tmp_path / "images.npy")

    def run(**variables):
        return subprocess.run(
            [venv / "bin/python", "-c", _MXNET_2, *files, tmp_path / "logits.npy"],
            env={**os.environ, **variables}, capture_output=True, text=True,
        )  # fmt: skip

    done = run(MXNET_ONEDNN_ENABLED="0")
    assert done.returncode == 0, done.stderr
    assert_close(np.load(tmp_path / "logits.npy"), made.predict(images), terms=NET)
    assert "is_view" in run(MXNET_ONEDNN_ENABLED="1").stderr
