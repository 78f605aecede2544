"""Every format into every other, against the libraries they come from, and against damage."""

import itertools
import json
import os
import re
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy
import torch

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.arch import WIDTHS
from gluon_asymmnet.cli import convert as command
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.models.registry import ModelSpec
from gluon_asymmnet.weights.convert import convert, read_arrays, read_weights
from gluon_asymmnet.weights.layouts import FORMATS, LAYOUTS, entries
from gluon_asymmnet.weights.load import load_weights
from gluon_asymmnet.weights.params_file import read_params, write_params
from gluon_asymmnet.weights.safetensors_file import write_safetensors
from gluon_asymmnet.weights.state_dict_file import write_state_dict
from gluon_asymmnet.zoo import get_model
from tests.conftest import ROOT, run_python

pytestmark = pytest.mark.thorough

DATA = ROOT / "tests" / "data"


def random_arrays(named_shapes, dtype=np.float32):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in named_shapes}


def write_net(path, name="asymmnet_small", *, width=0.35, rate=1, stem="authors", layout="ours"):
    """A small file of 7 classes; returns the plan."""
    plan = ModelSpec.parse(name, width=width, rate=rate, stem=stem).plan()
    write_params(path, random_arrays(entries(plan, 7, layout)))
    return plan


@pytest.fixture
def small(tmp_path):
    """The smallest network there is, in our names."""
    path = tmp_path / "small.params"
    write_net(path)
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file with the names, order and shapes of the authors' checkpoint; values are made up."""
    path = tmp_path_factory.mktemp("published") / "published.params"
    write_params(
        path, random_arrays(json.loads((DATA / "published_checkpoint_layout.json").read_text()))
    )
    return path


# ------------------------------------------------------------------- there and back


@pytest.mark.parametrize("to", FORMATS)
def test_published_there_and_back_is_the_same_file(published, tmp_path, to):
    done = convert(published, tmp_path / "there", to)
    assert done == ("published", ModelSpec("asymmnet_large", 1.0, 1), 1000, 265, ())
    assert convert(tmp_path / "there", tmp_path / "back", "published").arrays == 265
    assert (tmp_path / "back").read_bytes() == published.read_bytes()


@pytest.mark.parametrize(("first", "second"), itertools.permutations(FORMATS, 2))
def test_every_pair_of_formats(small, tmp_path, first, second):
    convert(small, tmp_path / "first", first)
    convert(tmp_path / "first", tmp_path / "second", second)
    convert(tmp_path / "second", tmp_path / "again", first)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "first").read_bytes()
    ours, theirs = read_weights(small).arrays, read_weights(tmp_path / "second").arrays
    for a, b in zip(ours, theirs):
        np.testing.assert_array_equal(a.ravel(), b.ravel())


NETWORKS = [
    (name, width, rate)
    for name in ("asymmnet_large", "asymmnet_small")
    for width in WIDTHS
    for rate in (0, 1, 2)
    if (width, rate) != (0.35, 2)  # cannot be built
]


@pytest.mark.parametrize(("name", "width", "rate"), NETWORKS)
def test_every_network_is_found(tmp_path, name, width, rate):
    plan = ModelSpec.parse(name, width=width, rate=rate).plan()
    arrays = {e.name: np.zeros(e.shape, np.float16) for e in entries(plan, 7, "torch")}
    write_state_dict(tmp_path / "net.pt", arrays)
    done = convert(tmp_path / "net.pt", tmp_path / "net.params", "ours")
    assert done[:3] == ("torch", ModelSpec(name, width, rate), 7)
    shapes = {n: a.shape for n, a in read_params(tmp_path / "net.params").items()}
    assert shapes == {e.name: e.shape for e in entries(plan, 7)}


def test_mobilenet_and_the_scaled_stem_are_found(tmp_path):
    """At rate 0 these are other networks only where the authors' first block expands."""
    for name, stem in (("mobilenetv3_large", "authors"), ("asymmnet_large", "scaled")):
        plan = write_net(tmp_path / "net.params", name, width=1.25, rate=0, stem=stem)
        weights = read_weights(tmp_path / "net.params")
        assert list(entries(weights.plan, 7)) == list(entries(plan, 7))
        assert weights.model == ModelSpec("asymmnet_large", 1.25, 0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("to", FORMATS)
def test_no_bit_changes(tmp_path, to, dtype):
    """Neither of the dtype nor of values such as -0.0, subnormals, infinities and NaNs."""
    plan = ModelSpec("asymmnet_small", 0.35).plan()
    arrays = random_arrays(entries(plan, 7), dtype)
    odd = [-0.0, np.finfo(dtype).smallest_subnormal, np.inf, -np.inf, np.nan, -np.nan, 1 / 3]
    arrays["output.bias"][:] = odd
    write_params(tmp_path / "net.params", arrays)
    convert(tmp_path / "net.params", tmp_path / "there", to)
    convert(tmp_path / "there", tmp_path / "back", "ours")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "net.params").read_bytes()


def test_converted_file_gives_the_same_logits(tmp_path):
    net, other = (get_model("asymmnet_small", width=0.5, classes=7) for _ in range(2))
    net.initialize(mx.init.MSRAPrelu())
    net.save_parameters(str(tmp_path / "net.params"))
    convert(tmp_path / "net.params", tmp_path / "port.pt", "torch")
    convert(tmp_path / "port.pt", tmp_path / "released.params", "released")
    assert load_weights(other, tmp_path / "released.params") == "released"
    images = mx.nd.random.normal(shape=(1, 3, 32, 32))
    assert (net(images) == other(images)).asnumpy().all()


def test_unusual_width_has_to_be_named(tmp_path):
    source, out = tmp_path / "net.params", tmp_path / "net.npz"
    write_net(source, width=0.6)
    expected = r"nearest known net is asymmnet_small_w0\.\d+_r\d: .* name the net with --model"
    with pytest.raises(FormatError, match=expected):
        convert(source, out, "npz")
    assert convert(source, out, "npz", model="asymmnet_small_0.6").model.width == 0.6
    assert convert(
        source, out, "ours", model="asymmnet_small", width=0.6, rate=1, overwrite=True
    ).model == ModelSpec("asymmnet_small", 0.6, 1)


# ------------------------------------------------------------------- against the libraries


def module_named(names):
    """A tree of empty modules that has parameters and norms of these names and shapes."""
    root = torch.nn.Module()
    shapes = dict(names)
    for name, shape in shapes.items():
        path, _, leaf = name.rpartition(".")
        parent, _, last = path.rpartition(".")
        at = root
        for part in parent.split(".") if parent else ():
            if not hasattr(at, part):
                at.add_module(part, torch.nn.Module())
            at = getattr(at, part)
        if f"{path}.running_var" in shapes:
            if leaf == "weight":
                at.add_module(last, torch.nn.BatchNorm2d(shape[0]))
        else:
            if not hasattr(at, last):
                at.add_module(last, torch.nn.Module())
            getattr(at, last).register_parameter(leaf, torch.nn.Parameter(torch.empty(shape)))
    return root


@pytest.mark.parametrize("mmap", [False, True])
def test_the_ports_module_loads_our_file_strictly(published, tmp_path, mmap):
    names = json.loads((DATA / "authors_torch_layout.json").read_text())["asymmnet_large"]
    convert(published, tmp_path / "port.pt", "torch")
    state = torch.load(tmp_path / "port.pt", weights_only=True, mmap=mmap)
    port = module_named(names)
    assert len(port.state_dict()) == 265 + 46  # a batch counter beside each of 46 norms
    port.load_state_dict(state, strict=True)
    for (_, ours), theirs in zip(read_params(published).items(), (state[n] for n, _ in names)):
        np.testing.assert_array_equal(theirs.numpy(), ours.reshape(theirs.shape))
    assert all(t.data_ptr() % 64 == 0 for t in state.values())


@pytest.mark.parametrize("legacy", [False, True])
def test_a_state_dict_of_the_port_is_read(tmp_path, legacy):
    names = json.loads((DATA / "authors_torch_layout.json").read_text())["asymmnet_small"]
    port = module_named(names)
    for parameter in port.parameters():
        torch.nn.init.normal_(parameter)
    state = port.state_dict()
    torch.save(state, tmp_path / "port.pt", _use_new_zipfile_serialization=not legacy)
    done = convert(tmp_path / "port.pt", tmp_path / "net.params", "ours")
    assert done[:4] == ("torch", ModelSpec("asymmnet_small"), 1000, len(names))
    for ours, (name, _) in zip(read_params(tmp_path / "net.params").values(), names):
        np.testing.assert_array_equal(ours.ravel(), state[name].numpy().ravel())


def test_our_net_as_safetensors_of_a_torch_module(tmp_path):
    """Any names in any kind of file: what safetensors.torch.save_model writes is read, too."""
    from gluon_asymmnet.torch import asymmnet

    net = asymmnet("asymmnet_small", width=0.35, classes=7)
    state = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    safetensors.numpy.save_file(state, tmp_path / "net.safetensors")
    done = convert(tmp_path / "net.safetensors", tmp_path / "net.params", "ours")
    assert done.source_layout == "torch-ours"


def contents(arrays):
    return [(name, array.tobytes()) for name, array in arrays.items()]


def test_npz_is_numpys(small, tmp_path):
    convert(small, tmp_path / "weights", "npz")  # no suffix is added
    with np.load(tmp_path / "weights") as archive:
        assert contents(archive) == contents(read_params(small))
    np.savez_compressed(tmp_path / "small.npz", **read_params(small))
    assert contents(read_arrays(tmp_path / "small.npz")) == contents(read_params(small))


@pytest.mark.parametrize("to", FORMATS)
def test_equal_weights_make_equal_files(small, tmp_path, to):
    convert(small, tmp_path / "a", to)
    os.utime(small, (0, 0))
    convert(small, tmp_path / "b", to)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# ------------------------------------------------------------------- notes


@pytest.mark.parametrize(("name", "width", "rate", "stem", "note"), [
    ("asymmnet_large", 0.35, 1, "authors", "w0.35_r1: .*gives? other logits"),
    ("asymmnet_large", 0.5, 1, "authors", "w0.5_r1: .*has a shortcut in .*stem=scaled"),
    ("asymmnet_large", 0.5, 0, "authors", "w0.5_r0: .*has a shortcut"),
    ("asymmnet_large", 1.25, 0, "authors", "w1.25_r0: .*these weights expands.*cannot load them"),
    ("asymmnet_large", 1.25, 0, "scaled", "w1.25_r0: .*does not expand.*ours does with stem=sca"),
    ("asymmnet_large", 0.75, 1, "authors", None),
    ("asymmnet_large", 1.25, 1, "authors", None),
    ("asymmnet_small", 0.5, 1, "authors", None),  # its first block has stride 2: never a shortcut
])  # fmt: skip
def test_where_the_port_is_another_network_a_note_says_so(tmp_path, name, width, rate, stem, note):
    write_net(tmp_path / "net.params", name, width=width, rate=rate, stem=stem)
    there = convert(tmp_path / "net.params", tmp_path / "port.pt", "torch")
    back = convert(tmp_path / "port.pt", tmp_path / "back.params", "ours")
    among_ours = convert(tmp_path / "net.params", tmp_path / "a.npz", "npz")
    among_torch = convert(tmp_path / "port.pt", tmp_path / "b.pt", "torch")
    assert there.notes == back.notes
    assert len(there.notes) == (note is not None)
    assert all(re.search(note, text) for text in there.notes)
    assert among_ours.notes == among_torch.notes == ()


# ------------------------------------------------------------------- refused


def refused(path, message, kind=FormatError, **kwargs):
    out = path.parent / "out"
    with pytest.raises(kind, match=message) as caught:
        convert(path, out, kwargs.pop("to", "ours"), **kwargs)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    assert [p.name for p in path.parent.glob(".*")] == []


@pytest.mark.parametrize("to", FORMATS)
def test_truncated_files(small, tmp_path, to):
    path = tmp_path / "whole"
    convert(small, path, to)
    whole = path.read_bytes()
    for length in (0, 5, 30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path, r"whole: ")


@pytest.mark.parametrize(("container", "message"), [
    ("params", r"truncated: array \d+, float32 of shape .* are left"),
    ("state_dict", "not a valid file of plain tensors, and nothing else is loaded: RuntimeError"),
    ("safetensors", "not a valid safetensors file: .* file not fully covered"),
    ("npz", "not a valid .npz file of plain arrays: File is not a zip file"),
])  # fmt: skip
def test_half_a_file_of_each_kind(small, tmp_path, container, message):
    to = next(name for name, form in FORMATS.items() if form.container == container)
    convert(small, tmp_path / "net", to)
    whole = (tmp_path / "net").read_bytes()
    (tmp_path / "net").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "net", message)


def test_other_files(tmp_path):
    path = tmp_path / "file"
    path.write_text("<html>")
    refused(path, r"file: HTML or XML text.*; expected a \.params, \.pt, \.safetensors or \.npz")
    path.write_bytes(b"\x80\x04N.")
    refused(path, r"file: a Python pickle .*; expected a \.params, \.pt")
    path.write_bytes(b"MZ" + bytes(100))
    refused(path, r"file: not an MXNet \.params file: magic number")
    refused(tmp_path / "absent", "absent: no such file", FileNotFoundError)
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "is not a regular file", InputError)


def test_other_networks(tmp_path):
    path = tmp_path / "net.params"
    write_params(path, {"conv0.weight": np.zeros(3, np.float32), "fc.bias": np.ones(2)})
    refused(path, r"of AsymmNet or MobileNetV3: its names \(conv0\.weight, \.\.\.\)")
    write_params(path, {})
    refused(path, r"its names \(none, \.\.\.\) are in none of the layouts ours, released, publ")
    plan = write_net(path)
    refused(path, r"does not fit the net: .* missing: ", model="asymmnet_large", width=0.35)
    arrays = random_arrays(entries(plan, 7, "torch"))
    del arrays["last_block.4.weight"]
    arrays["fc.weight"] = np.ones(2)
    arrays["output.weight"] = np.ones((9, 1280), np.float32)
    write_state_dict(path, arrays)
    refused(
        path,
        r"net\.params \(torch layout\) does not fit the net: 1 missing: last_block\.4\.weight; "
        r"1 unexpected: fc\.weight; 1 wrongly shaped: output\.weight is \(9, 1280\) in the file, "
        r"\(7, 1280\) in the net; the nearest known net is asymmnet_small_w0\.35_r1: ",
    )


def test_whole_numbers_are_not_weights(tmp_path):
    plan = ModelSpec("asymmnet_small", 0.35).plan()
    arrays = random_arrays(entries(plan, 7))
    arrays["output.bias"] = np.zeros(7, np.int64)
    write_safetensors(tmp_path / "net", arrays)
    refused(tmp_path / "net", r"output\.bias is int64, expected one of float16, float32, float64")


def test_wrong_settings(small):
    refused(small, r"unknown format 'onnx': expected one of ours, .*npz", InputError, to="onnx")
    refused(small, "a width or rate needs a model", InputError, width=0.5)
    refused(small, "did you mean 'asymmnet_small'", InputError, model="asymnet_small")
    refused(small, "rates that fit: 0, 1", InputError, model="asymmnet_small_0.35", rate=2)


@pytest.mark.parametrize("to", FORMATS)
def test_existing_file_is_kept_unless_told(small, tmp_path, to):
    out = tmp_path / "out"
    out.write_text("before")
    with pytest.raises(InputError, match="out exists and is not overwritten"):
        convert(small, out, to)
    assert out.read_text() == "before"
    convert(small, out, to, overwrite=True)
    assert read_weights(out).model == ModelSpec("asymmnet_small", 0.35)
    convert(small, tmp_path / "new" / "out", to)  # makes the folder
    assert read_weights(tmp_path / "new" / "out").model == ModelSpec("asymmnet_small", 0.35)


def test_npz_of_objects_is_not_unpickled(tmp_path):
    np.savez(tmp_path / "net.npz", weight=np.array([print], dtype=object))
    refused(tmp_path / "net.npz", "Object arrays cannot be loaded when allow_pickle=False")


def test_npz_that_promises_more_than_it_holds(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}\n"
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    with zipfile.ZipFile(tmp_path / "net.npz", "w") as archive:
        archive.writestr("weight.npy", npy)
    refused(tmp_path / "net.npz", r"not a valid \.npz file of plain arrays")


@pytest.mark.parametrize(("saved", "message"), [
    ([1], "holds a list, expected a state_dict"),
    ({"state_dict": {"a": torch.ones(1)}}, "'state_dict' is a dict, expected a tensor; save a"),
    ({1: torch.ones(1)}, "1 is a Tensor, expected a tensor; save a state_dict"),
    ({"a": torch.ones(2).bfloat16()}, "'a' is a tensor of torch.bfloat16, .* dense float32"),
    ({"a": torch.ones(2, 2).to_sparse()}, "torch.sparse_coo, which NumPy does not have"),
    (torch.nn.Linear(2, 2), "nothing else is loaded: it names torch.nn.modules.linear.Linear"),
])  # fmt: skip
def test_pt_files_that_are_not_state_dicts(tmp_path, saved, message):
    torch.save(saved, tmp_path / "net.pt")
    refused(tmp_path / "net.pt", message)


# ------------------------------------------------------------------- the command


def run_command(*words) -> int:
    args = command.build_parser("asymmnet convert").parse_args(list(map(str, words)))
    return args.run(args)


def test_command(tmp_path, capsys):
    write_net(tmp_path / "net.params", "asymmnet_large", width=0.5, layout="released")
    assert run_command(tmp_path / "net.params", tmp_path / "port.pt", "--to", "torch") == 0
    found, note, written = capsys.readouterr().out.splitlines()
    assert found == "asymmnet_large_w0.5_r1, 7 classes, 265 arrays: released layout to torch"
    assert note.startswith("note: asymmnet_large_w0.5_r1: the first block has a shortcut in the")
    assert written == f"written: {tmp_path / 'port.pt'}"


def test_command_with_a_model(tmp_path):
    write_net(tmp_path / "net.params", width=0.6)
    words = (tmp_path / "net.params", tmp_path / "net.npz", "--to", "npz")
    model = ("--model", "asymmnet_small", "--width", 0.6, "--rate", 1)
    assert run_command(*words, *model) == 0
    with pytest.raises(InputError, match="exists and is not overwritten"):
        run_command(*words, *model)
    assert run_command(*words, *model, "--overwrite") == 0


def test_every_layout_is_the_layout_of_some_format():
    assert {form.layout for form in FORMATS.values()} == set(LAYOUTS)


def test_only_reading_pt_takes_pytorch_and_nothing_takes_mxnet(small, tmp_path):
    code = (
        "import sys; sys.modules.update(torch=None, mxnet=None)\n"
        "from gluon_asymmnet.weights.convert import convert\n"
        f"for to in {list(FORMATS)}: convert({str(small)!r}, to, to)\n"
        "convert('torch', 'back', 'ours')"
    )
    done = run_python("-c", code, cwd=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*FORMATS, small.name])
    assert done.stderr.splitlines()[-1].endswith(
        "torch is a PyTorch file and needs PyTorch: pip install 'gluon_asymmnet[torch]'"
    )
