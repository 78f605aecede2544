"""The ONNX graph of each operator alone, and of what ONNX cannot say, against MXNet."""

import functools

import numpy as np
import onnxruntime
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import ClassifierCard
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.export.onnx.export import LOGITS, OnnxForm, build_graph, build_model, to_proto
from gluon_asymmnet.export.onnx.operators import OPERATORS
from gluon_asymmnet.export.onnx.trace import HARD_SWISH, trace
from gluon_asymmnet.export.parity import sample_images
from gluon_asymmnet.utils.extras import load_extra
from tests.floats import assert_close
from tests.test_onnx_symbol import run_all

SIDE = 6


class Alone(mx.gluon.HybridBlock):
    """A function ``(F, x, arrays by name)`` as a net; arrays are random of the shapes given."""

    def __init__(self, function, **arrays):
        super().__init__()
        self._function = function
        rng = np.random.default_rng(7)
        with self.name_scope():
            for name, value in arrays.items():
                if isinstance(value, tuple):
                    value = rng.uniform(0.2, 1.5, value).astype(np.float32)
                setattr(self, name, self.params.get_constant(name, value))
        self.initialize()

    def hybrid_forward(self, F, x, **arrays):
        return self._function(F, x, **arrays)


def call(op, *names, **settings):
    """A function that applies one operator to the input and the arrays named."""
    return lambda F, x, **arrays: getattr(F, op)(x, *(arrays[n] for n in names), **settings)


def rows(F, x):
    """``(N, 3, 6, 6)`` as ``(N, 3, 36)``."""
    return F.reshape(x, shape=(0, 0, -1))


def norm(F, x, gamma, beta, mean, var, **settings):
    return F.BatchNorm(x, gamma, beta, mean, var, **settings)


OF_THREE = dict(gamma=(3,), beta=(3,), mean=(3,), var=(3,))

CASES = {
    "convolution": (
        call("Convolution", "w", "b", kernel=(3, 3), num_filter=4, stride=(2, 1), pad=(2, 1),
             dilate=(1, 2)), dict(w=(4, 3, 3, 3), b=(4,))),
    "convolution of one pixel": (
        lambda F, x, w, b: F.Convolution(
            F.mean(x, axis=(2, 3), keepdims=True), w, b, kernel=(3, 5), num_filter=6, num_group=3,
            stride=(2, 1), pad=(1, 2)), dict(w=(6, 1, 3, 5), b=(6,))),
    "convolution in groups": (
        call("Convolution", "w", kernel=(1, 3), num_filter=6, num_group=3, no_bias=True),
        dict(w=(6, 1, 1, 3))),
    "convolution of rows": (
        lambda F, x, w: F.Convolution(rows(F, x), w, kernel=(3,), num_filter=2, pad=(1,),
                                      no_bias=True), dict(w=(2, 3, 3))),
    "convolution with weights computed": (
        lambda F, x, w, at: F.Convolution(x, F.take(w * 2, at) + 1, kernel=(1, 1), num_filter=5,
                                          no_bias=True),
        dict(w=(4, 3, 1, 1), at=np.float32([0, 3, 1, 1, 2]))),
    "batch norm": (functools.partial(norm, fix_gamma=False, eps=0.1), OF_THREE),
    "batch norm, gamma fixed": (norm, OF_THREE),
    "batch norm of rows": (
        lambda F, x, **held: norm(F, F.mean(x, axis=(2, 3)), **held, fix_gamma=False), OF_THREE),
    "batch norm folded": (
        lambda F, x, w, b, **held: norm(
            F, F.Convolution(x, w, b, kernel=(1, 1), num_filter=3), **held, fix_gamma=False),
        dict(w=(3, 3, 1, 1), b=(3,), **OF_THREE)),
    "batch norm of a convolution read twice": (
        lambda F, x, w, **held: (lambda y: y - norm(F, y, **held))(
            F.Convolution(x, w, kernel=(1, 1), num_filter=3, no_bias=True)),
        dict(w=(3, 3, 1, 1), **OF_THREE)),
    "one weight, two norms": (
        lambda F, x, w, other, **held: F.concat(*(
            norm(F, F.Convolution(x, w, kernel=(3,) * 2, num_filter=3, no_bias=True),
                 **{**held, "beta": beta}) for beta in (held["beta"], other))),
        dict(w=(3, 3, 3, 3), other=(3,), **OF_THREE)),
    **{f"activation {kind}": (call("Activation", act_type=kind), {})
       for kind in ("relu", "sigmoid", "tanh", "softrelu", "softsign")},
    "leaky": (call("LeakyReLU", slope=0.1), {}),
    "elu": (call("LeakyReLU", act_type="elu", slope=0.3), {}),
    "prelu": (call("LeakyReLU", "slopes", act_type="prelu"), dict(slopes=(3,))),
    "prelu, one slope": (call("LeakyReLU", "slopes", act_type="prelu"), dict(slopes=(1,))),
    "prelu of rows": (
        lambda F, x, s: F.LeakyReLU(F.mean(x, axis=(2, 3)), s, act_type="prelu"), dict(s=(3,))),
    **{op: (call(op), {}) for op in (
        "relu", "sigmoid", "tanh", "exp", "abs", "negative", "square", "erf", "zeros_like",
        "ones_like", "Flatten", "softsign", "hard_sigmoid",
    )},
    **{f"{op}, gone": (lambda F, x, op=op: F.exp(getattr(F, op)(x)), {})
       for op in ("Dropout", "identity", "BlockGrad")},
    "sqrt": (lambda F, x: F.sqrt(F.abs(x)), {}),
    "log": (lambda F, x: F.log(1 + F.square(x)), {}),
    "reciprocal": (lambda F, x: F.reciprocal(2 + F.square(x)), {}),
    "hard sigmoid of its own": (call("hard_sigmoid", alpha=0.3, beta=0.4), {}),
    "hard swish": (lambda F, x: x * F.hard_sigmoid(x, alpha=1 / 6, beta=0.5), {}),
    "hard swish of three": (lambda F, x: x * (F.clip(x + 3, 0, 6) / 6), {}),
    "hard sigmoid of three": (lambda F, x: F.clip(x + 3, 0, 6) / 6, {}),
    "shift of another": (lambda F, x: x * (F.clip(x + 2, 0, 6) / 6), {}),
    "shift that others read": (lambda F, x: (x + 3) * (F.clip(x + 3, 0, 6) / 6), {}),
    "gate of another": (lambda F, x: (x + 1) * F.hard_sigmoid(x, alpha=1 / 6, beta=0.5), {}),
    "relu6": (call("clip", a_min=0, a_max=6), {}),
    "softmax": (call("softmax", axis=1), {}),
    "scalars": (lambda F, x: 3 - (2.5 * (x + 1.25) - 4) / 8, {}),
    "scalars above": (lambda F, x: 2 / (1 + x**2) + 2**x, {}),
    "scalars that limit": (
        lambda F, x: F.maximum(F.minimum(x, 1.1), -0.3), {}),
    "elementwise": (lambda F, x: (x + F.exp(x)) * x / (F.exp(x) - 0.5 * x), {}),
    "broadcasts": (
        lambda F, x, a: F.broadcast_div(F.broadcast_sub(F.broadcast_add(
            x, a), F.broadcast_mul(x, a)), a), dict(a=(1, 3, 1, 1))),
    "larger, smaller and powers": (
        lambda F, x, a: F.broadcast_power(F.broadcast_maximum(x, a), F.broadcast_minimum(x, a)),
        dict(a=(1, 3, 1, 1))),
    "larger, smaller and powers of the same shape": (
        lambda F, x: F.maximum(x, 2 - x) ** F.minimum(x, 1 - x), {}),
    "add_n": (lambda F, x: F.add_n(x, 2 * x, F.exp(x)), {}),
    "broadcast like": (lambda F, x: F.broadcast_like(F.mean(x, axis=1, keepdims=True), x), {}),
    "broadcast to": (
        lambda F, x: F.broadcast_to(F.mean(x, axis=1, keepdims=True), shape=(0, 5, 0, 0)), {}),
    "broadcast axis": (
        lambda F, x: F.broadcast_axis(F.mean(x, axis=1, keepdims=True), axis=1, size=4), {}),
    "cast to what it is": (lambda F, x: F.exp(F.cast(x, dtype="float32")), {}),
    **{f"{kind}, {what}": (call(kind, **settings), {}) for kind in ("mean", "sum", "max", "min")
       for what, settings in {
           "axis 1": dict(axis=1), "last two": dict(axis=(-1, -2)),
           "map kept": dict(axis=(2, 3), keepdims=True),
           "all but the batch": dict(axis=0, exclude=True)}.items()},
    **{f"{kind} pooling {text}": (call("Pooling", pool_type=kind, **settings), {})
       for kind in ("max", "avg")
       for text, settings in {
           "global": dict(global_pool=True), "2": dict(kernel=(2, 2), stride=(2, 2)),
           "padded": dict(kernel=(3, 3), stride=(2, 2), pad=(1, 1)),
           "full": dict(kernel=(3, 4), stride=(2, 3), pooling_convention="full"),
           "full, padded": dict(kernel=(3, 3), stride=(2, 2), pad=(1, 1),
                                pooling_convention="full"),
           "without its padding": dict(kernel=(3, 3), stride=(2, 1), pad=(1, 1),
                                       pooling_convention="full", count_include_pad=False),
       }.items()},
    "pooling of rows": (
        lambda F, x: F.Pooling(rows(F, x), kernel=(3,), stride=(2,), pool_type="avg"), {}),
    "adaptive pooling": (lambda F, x: F.contrib.AdaptiveAvgPooling2D(x, output_size=3), {}),
    "adaptive pooling, all": (lambda F, x: F.contrib.AdaptiveAvgPooling2D(x), {}),
    "upsampling": (call("UpSampling", scale=2, sample_type="nearest"), {}),
    **{f"bilinear, corners {align}": (
        lambda F, x, align=align: F.contrib.BilinearResize2D(
            x, height=9, width=4, align_corners=align), {}) for align in (True, False)},
    "concat": (lambda F, x: F.concat(x, F.exp(x), x), {}),
    "concat, last": (lambda F, x: F.concat(x, 2 * x, dim=-1), {}),
    "transpose": (call("transpose", axes=(0, 2, 3, 1)), {}),
    "swap axes": (call("SwapAxis", dim1=1, dim2=3), {}),
    "reshape, rest": (call("reshape", shape=(0, -1)), {}),
    "reshape, joined": (call("reshape", shape=(0, -3, 0)), {}),
    "reshape, split": (call("reshape", shape=(0, 0, -4, 2, -1, -2)), {}),
    "reshape, from behind": (call("reshape", shape=(-1, 2, 0), reverse=True), {}),
    "reshape, batch and channels joined and apart": (
        lambda F, x: F.reshape(F.exp(F.reshape(x, shape=(-3, 0, 0))), shape=(-1, 3, 6, 6)), {}),
    "reshape like": (lambda F, x: F.reshape_like(F.exp(rows(F, x)), x), {}),
    "expand dims": (call("expand_dims", axis=1), {}),
    "squeeze": (lambda F, x: F.squeeze(F.max(x, axis=2, keepdims=True), axis=2), {}),
    "shuffle": (lambda F, x: F.reshape(F.swapaxes(F.reshape(
        F.concat(x, 2 * x), shape=(0, -4, 2, -1, -2)), 1, 2), shape=(0, -3, -2)), {}),
    "slice": (call("slice", begin=(None, 1, None, 4), end=(None, 3, None, None),
                   step=(None, None, -1, -2)), {}),
    "slice an axis": (call("slice_axis", axis=-1, begin=1, end=-2), {}),
    "slice to the end": (call("slice_axis", axis=1, begin=-2, end=None), {}),
    "slice nothing off": (lambda F, x: F.exp(F.slice_axis(x, axis=1, begin=0, end=None)), {}),
    "split": (lambda F, x: (lambda a, b, c: a - b * c)(*F.split(x, 3)), {}),
    "split, axis dropped": (
        lambda F, x: (lambda a, b, c: a - b * c)(*F.split(x, 3, squeeze_axis=True)), {}),
    "split at": (
        lambda F, x: (lambda a, b, c: F.concat(c, a, b, dim=2))(*F.split_v2(x, (1, 4), axis=2)),
        {}),
    "split, one part used": (lambda F, x: F.split(x, 3)[1], {}),
    "take": (call("take", "at", axis=1), dict(at=np.float32([2, 0, 0, 7, -1]))),
    "take, wrapping": (call("take", "at", axis=1, mode="wrap"),
                       dict(at=np.float32([2, 4, -1]))),
    "pad": (call("pad", mode="constant", pad_width=(0, 0, 0, 0, 1, 2, 3, 0), constant_value=0.5),
            {}),
    "pad, edge": (call("pad", mode="edge", pad_width=(0, 0, 0, 0, 1, 2, 3, 0)), {}),
    "pad, reflect": (call("pad", mode="reflect", pad_width=(0, 0, 0, 0, 1, 2, 3, 0)), {}),
    "dense": (call("FullyConnected", "w", "b", num_hidden=4), dict(w=(4, 108), b=(4,))),
    "dense of rows": (
        lambda F, x, w: F.FullyConnected(F.mean(x, axis=(2, 3)), w, num_hidden=4, no_bias=True),
        dict(w=(4, 3))),
    "dense at each": (call("FullyConnected", "w", "b", num_hidden=4, flatten=False),
                      dict(w=(4, 6), b=(4,))),
    "batch dot": (lambda F, x: F.batch_dot(rows(F, x), rows(F, F.exp(x)), transpose_b=True), {}),
    "batch dot, first transposed": (
        lambda F, x: F.batch_dot(rows(F, x), rows(F, x), transpose_a=True), {}),
    "dot": (lambda F, x, w: F.dot(x, w, transpose_b=True), dict(w=(4, 6))),
    "a block called twice": (
        lambda F, x: F.Activation(F.Activation(x, act_type="tanh", name="twice"),
                                  act_type="sigmoid", name="twice"), {}),
    "a block called twice that splits": (
        lambda F, x: (lambda a, b, c: F.concat(*F.split(F.concat(c, a), 2, name="s"), b))(
            *F.split(x, 3, name="s")), {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_operator_alone(case):
    function, arrays = CASES[case]
    net = Alone(function, **arrays)
    card = ClassifierCard(input_size=SIDE, classes=1)
    rng = np.random.default_rng(0)
    images = rng.normal(0, 2, (3, 3, SIDE, SIDE)).astype(np.float32)
    expected = {n: net(mx.nd.array(images[:n])).asnumpy() for n in (3, 1)}
    for opset in (13, 17):
        form = OnnxForm(opset)
        graph = build_graph(net, [LOGITS], SIDE, form)
        assert graph.outputs == {LOGITS: (None, *expected[1].shape[1:])}
        model = to_proto(graph, card, form).SerializeToString()
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        for batch, logits in expected.items():
            (found,) = session.run(None, {"data": images[:batch]})
            assert_close(found, logits, terms=500)
    openvino = load_extra("openvino")
    compiled = openvino.Core().compile_model(
        openvino.Core().read_model(model, b""), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    assert_close(compiled(images)[0], expected[3], terms=500)


def test_every_operator_has_a_case():
    traced = [trace(Alone(function, **arrays), SIDE) for function, arrays in CASES.values()]
    found = {t.nodes[number].op for t in traced for number in t.live}
    assert OPERATORS.keys() - found == {HARD_SWISH}  # which fuse_hard_swish makes


REFUSED = {
    "unknown": (
        lambda F, x: F.topk(x, ret_typ="value"), {},
        r"operator topk of node alone\w*topk0 cannot be written as ONNX: it is not one of the \d+ "
    ),
    "setting not provided for": (
        call("UpSampling", scale=2, sample_type="nearest", multi_input_mode="sum"), {},
        "its setting multi_input_mode is not supported",
    ),
    "pool": (call("Pooling", pool_type="sum", kernel=(2, 2)), {}, "its pool_type is sum, not max"),
    "empty window": (
        call("Pooling", kernel=(2, 2), stride=(3, 3), pooling_convention="full"), {},
        "a window of it covers nothing but padding",
    ),
    "axis of a norm": (
        functools.partial(norm, axis=3), dict.fromkeys(OF_THREE, (6,)),
        "it normalises axis 3, not the channels, axis 1",
    ),
    "weights from the picture": (
        lambda F, x: F.take(x, x, axis=1), {}, "its input 1 must be a constant",
    ),
    "noise": (call("Dropout", mode="always"), {}, "it drops values at inference as well"),
    "other numbers": (call("cast", dtype="float16"), {}, "only float32 is supported"),
    "split of the batch": (
        lambda F, x: F.split(F.concat(x, x, dim=0), 2, axis=0)[0], {}, "it splits the batch"),
    "built-in batch": (
        lambda F, x: F.reshape(F.exp(x), shape=(2, 108)), {},
        r"the number of images is built into its shape, \(2, 108\)",
    ),
    "batch on two axes": (
        lambda F, x: F.expand_dims(F.dot(F.Flatten(x), F.Flatten(x), transpose_b=True), axis=0),
        {}, "more than one axis of its result depends on the batch",
    ),
    "windows": (
        lambda F, x: F.contrib.AdaptiveAvgPooling2D(x, output_size=4), {},
        r"\(6, 6\) does not divide into \(4, 4\) windows",
    ),
    "leaky": (call("LeakyReLU", act_type="gelu"), {}, "its act_type is gelu, not leaky, prelu or"),
    "dot of more axes": (
        lambda F, x: F.dot(x, x, transpose_a=True), {}, "it is not a product of matrices",
    ),
    "axis of a norm behind a convolution": (
        lambda F, x, w, **held: norm(
            F, F.Convolution(x, w, kernel=(1, 1), num_filter=6, no_bias=True), **held, axis=2),
        dict(w=(6, 3, 1, 1), **dict.fromkeys(OF_THREE, (6,))), "it normalises axis 2, not the",
    ),
    "temperature": (call("softmax", temperature=2), {}, "a temperature or lengths are not"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_onnx_cannot_say(case):
    function, arrays, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as error:
        build_graph(Alone(function, **arrays), [LOGITS], SIDE, OnnxForm())
    assert "\n" not in str(error.value)


def test_networks_that_are_not_classifiers():
    card, form = ClassifierCard(classes=5, input_size=SIDE), OnnxForm()
    with pytest.raises(InputError, match=r"gives \(None, 3, 6, 6\), expected logits \(batch, 5\)"):
        build_model(Alone(call("exp")), [LOGITS], card)
    two = Alone(lambda F, x: [x, F.exp(x)])
    with pytest.raises(InputError, match="the network has 2 outputs, expected logits"):
        build_graph(two, [LOGITS], SIDE, form)
    dense = Alone(call("FullyConnected", "w", num_hidden=4, no_bias=True), w=(4, 108))
    with pytest.raises(InputError, match=r"does not take images \(2, 3, 7, 7\): .*\[4,108\]"):
        build_graph(dense, [LOGITS], 7, form)


def test_several_outputs():
    """In the order of their names; one may be read on the way to another."""

    def function(F, x):
        y = F.exp(x)
        return [F.mean(y, axis=(2, 3)), y]

    net, form = Alone(function), OnnxForm()
    graph = build_graph(net, ["a", "b"], SIDE, form)
    assert graph.outputs == {"a": (None, 3), "b": (None, 3, SIDE, SIDE)}
    images = sample_images(2, SIDE)
    found = run_all(to_proto(graph, ClassifierCard(input_size=SIDE), form), images)
    for expected, output in zip(net(mx.nd.array(images)), found):
        assert_close(output, expected, terms=SIDE**2)
