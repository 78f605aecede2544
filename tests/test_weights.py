import json
from pathlib import Path

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.arch import LARGE, SMALL, plan_net
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.weights.layouts import entries, exported_names
from gluon_asymmnet.weights.load import load_weights, newest_weights
from gluon_asymmnet.weights.params_file import write_params
from gluon_asymmnet.zoo import get_model

DATA = Path(__file__).parent / "data"


def listed(plan, layout):
    return [[e.name, list(e.shape)] for e in entries(plan, layout=layout)]


def test_published_layout():
    expected = json.loads((DATA / "published_checkpoint_layout.json").read_text())
    assert listed(plan_net(LARGE), "published") == expected
    assert len(expected) == 265


@pytest.mark.parametrize(("name", "spec"), [("asymmnet_large", LARGE), ("asymmnet_small", SMALL)])
def test_layout_of_the_authors_port(name, spec):
    expected = json.loads((DATA / "authors_torch_layout.json").read_text())[name]
    assert listed(plan_net(spec), "torch") == expected


def test_our_layout_is_the_nets():
    for width, rate in ((1.0, 1), (0.35, 0), (1.25, 2)):
        net = get_model("asymmnet_small", width=width, rate=rate, classes=7)
        names = {n: p.shape for n, p in net._collect_params_with_prefix().items()}
        assert names == {e.name: e.shape for e in entries(net.plan, 7)}
        assert list(names) == [e.name for e in entries(net.plan, 7)]


def values(plan, classes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=e.shape).astype(np.float32) for e in entries(plan, classes)]


@pytest.mark.parametrize("layout", ["ours", "released", "published", "exported"])
def test_every_gluon_layout_loads(tmp_path, layout):
    net = get_model("asymmnet_small", width=0.5, classes=7)
    arrays = values(net.plan, 7)
    if layout == "exported":
        names = [f"arg:{n}" for n in exported_names(net.prefix, net.plan, 7)]
    else:
        names = [e.name for e in entries(net.plan, 7, layout)]
    write_params(tmp_path / "a.params", dict(zip(names, arrays)))
    assert load_weights(net, tmp_path / "a.params") == layout
    for parameter, value in zip(net._collect_params_with_prefix().values(), arrays):
        np.testing.assert_array_equal(parameter.data().asnumpy(), value)


def test_plain_gluon_reads_and_writes_our_files(tmp_path):
    net = get_model("asymmnet_small", width=0.5, classes=7)
    net.initialize()
    net.save_parameters(str(tmp_path / "gluon.params"))
    other = get_model("asymmnet_small", width=0.5, classes=7)
    assert load_weights(other, tmp_path / "gluon.params") == "ours"
    x = mx.nd.ones((1, 3, 32, 32))
    assert (net(x) == other(x)).asnumpy().all()


def test_all_but_the_classifier(tmp_path):
    source = get_model("asymmnet_small", width=0.5, classes=7)
    source.initialize()
    source.save_parameters(str(tmp_path / "a.params"))
    net = get_model("asymmnet_small", width=0.5, classes=3)
    load_weights(net, tmp_path / "a.params", skip_output=True)
    assert net(mx.nd.ones((1, 3, 32, 32))).shape == (1, 3)
    ours, theirs = (n.features.hidden.weight.data().asnumpy() for n in (net, source))
    np.testing.assert_array_equal(ours, theirs)


def test_missing_unexpected_and_wrongly_shaped_are_listed_apart(tmp_path):
    net = get_model("asymmnet_small", width=0.5, classes=7)
    net.initialize()
    before = net.output.bias.data().asnumpy().copy()
    arrays = dict(zip([e.name for e in entries(net.plan, 7)], values(net.plan, 7)))
    del arrays["features.stem.norm.beta"]
    arrays["surplus"] = np.zeros(1, np.float32)
    arrays["output.bias"] = np.zeros(10, np.float32)
    write_params(tmp_path / "a.params", arrays)
    expected = (
        r"a\.params \(ours layout\) does not fit the net: "
        r"1 missing: features\.stem\.norm\.beta; 1 unexpected: surplus; "
        r"1 wrongly shaped: output\.bias is \(10,\) in the file, \(7,\) in the net"
    )
    with pytest.raises(FormatError, match=expected):
        load_weights(net, tmp_path / "a.params")
    np.testing.assert_array_equal(net.output.bias.data().asnumpy(), before)


def test_a_foreign_network_is_named_as_such(tmp_path):
    write_params(tmp_path / "a.params", {"conv0.weight": np.zeros(3, np.float32)})
    with pytest.raises(FormatError, match=r"not a parameter file of asymmnet_small.*conv0\.weight"):
        load_weights(get_model("asymmnet_small"), tmp_path / "a.params")


def test_another_width_is_refused(tmp_path):
    net = get_model("asymmnet_small", width=0.75)
    net.initialize()
    net.save_parameters(str(tmp_path / "a.params"))
    with pytest.raises(FormatError, match=r"wrongly shaped: features\.stem\.conv\.weight is"):
        load_weights(get_model("asymmnet_small", width=1.25), tmp_path / "a.params")


def test_the_best_weights_of_a_run_come_before_the_last_and_the_newest(tmp_path):
    with pytest.raises(InputError, match="the run has no weights yet"):
        newest_weights(tmp_path)
    order = [
        "checkpoints/step-000000009/net.params", "checkpoints/step-000000010/net.params",
        "last.params", "best.params",
    ]  # fmt: skip
    for name in order:  # each comes before those already there
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        assert newest_weights(tmp_path) == tmp_path / name
