"""Nets and engines to compare; each function here builds one candidate and returns its call.

A call waits for its result.  ``worker.py`` builds each candidate in a process of its own, so the
libraries are imported where they are used: one that is not measured must not add to the memory.
"""

import os
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np

from gluon_asymmnet.errors import RunError
from gluon_asymmnet.utils.doctor import cpu_features
from gluon_asymmnet.utils.threads import SETTINGS

Call = Callable[[], object]


class Case(NamedTuple):
    """A net, its input and the number of threads."""

    model: str = "asymmnet_large"
    width: float = 1.0
    batch: int = 1
    size: int = 224  # pixels
    threads: int = 1
    folder: str = ""  # with the exported files or the records


def _images(case: Case) -> np.ndarray:
    from gluon_asymmnet.export.parity import sample_images

    return sample_images(case.batch, case.size)


def _labels(case: Case) -> np.ndarray:
    # Not constant: with constant labels the gradients vanish and steps get faster.
    return np.random.default_rng(0).integers(0, 1000, case.batch).astype(np.float32)


def _mxnet_net(case: Case):
    from gluon_asymmnet import get_model
    from gluon_asymmnet._mxnet import mx

    net = get_model(case.model, width=case.width, input_size=case.size)
    mx.random.seed(0)
    net.initialize(mx.init.MSRAPrelu())
    return mx, net


def _mxnet_call(mx, net, images) -> Call:
    data = mx.nd.array(images)
    return lambda: net(data).wait_to_read()


def plain(case: Case) -> Call:
    """The net as the authors wrote it, hybridized with static memory and shapes."""
    from benchmarks.authors_net import plain_copy

    mx, net = _mxnet_net(case)
    net = plain_copy(net, mx.nd.array(_images(case)))
    net.hybridize(static_alloc=True, static_shape=True)
    return _mxnet_call(mx, net, _images(case))


def plain_settings(case: Case) -> Call:
    """The same, with the environment variables that our programs set."""
    return plain(case)


def hybrid(case: Case) -> Call:
    """Our net, hybridized, as evaluation runs it."""
    mx, net = _mxnet_net(case)
    net.hybridize(static_alloc=True, static_shape=True)
    return _mxnet_call(mx, net, _images(case))


def optimized(case: Case) -> Call:
    """``net.optimize_for_inference()``."""
    mx, net = _mxnet_net(case)
    images = _images(case)
    return _mxnet_call(mx, net.optimize_for_inference(mx.nd.array(images)), images)


def gluoncv_mobilenetv3(case: Case) -> Call:
    """GluonCV's mobilenetv3_large or _small, hybridized likewise."""
    from gluon_asymmnet._mxnet import gluoncv, mx

    size = case.model.rsplit("_", 1)[1]
    net = gluoncv.model_zoo.mobilenetv3.get_mobilenet_v3(size, multiplier=case.width)
    net.initialize(mx.init.MSRAPrelu())
    net.hybridize(static_alloc=True, static_shape=True)
    return _mxnet_call(mx, net, _images(case))


def _torch_net(case: Case):
    import torch

    from gluon_asymmnet.torch import asymmnet

    torch.set_num_threads(case.threads)
    torch.manual_seed(0)
    return torch, asymmnet(case.model, width=case.width)


def _torch_call(torch, net, images) -> Call:
    def call():
        with torch.inference_mode():
            return net(images)

    return call


def torch_eager(case: Case) -> Call:
    """Our PyTorch module, as it is."""
    torch, net = _torch_net(case)
    return _torch_call(torch, net.eval(), torch.from_numpy(_images(case)))


def torch_channels_last(case: Case) -> Call:
    """Our PyTorch module in channels-last memory."""
    torch, net = _torch_net(case)
    last = torch.channels_last
    images = torch.from_numpy(_images(case)).to(memory_format=last)
    return _torch_call(torch, net.eval().to(memory_format=last), images)


def torch_compiled(case: Case) -> Call:
    """Our PyTorch module through ``torch.compile``, channels last."""
    torch, net = _torch_net(case)
    last = torch.channels_last
    images = torch.from_numpy(_images(case)).to(memory_format=last)
    return _torch_call(torch, torch.compile(net.eval().to(memory_format=last)), images)


def _engine(case: Case, name: str, precision: str = "f32") -> Call:
    from gluon_asymmnet import Predictor

    images = _images(case)
    predictor = Predictor(case.folder, engine=name, threads=case.threads, precision=precision)
    return lambda: predictor.predict(images)


def onnxruntime(case: Case) -> Call:
    """ONNX Runtime on our exported file."""
    return _engine(case, "onnxruntime")


def onnxruntime_stock(case: Case) -> Call:
    """ONNX Runtime on the authors' net as MXNet's own exporter writes it."""
    import onnxruntime as library

    options = library.SessionOptions()
    options.intra_op_num_threads = case.threads
    options.log_severity_level = 3  # it warns of each of the 324 graph inputs
    path = str(Path(case.folder).parent / "stock.onnx")
    session = library.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {"data": _images(case)[:1].repeat(case.batch, axis=0)}
    return lambda: session.run(None, feed)


def opencv(case: Case) -> Call:
    """OpenCV's module dnn on the same file."""
    return _engine(case, "opencv")


def openvino_f32(case: Case) -> Call:
    """OpenVINO in single precision."""
    return _engine(case, "openvino")


def openvino_bf16(case: Case) -> Call:
    """OpenVINO in bfloat16."""
    return _engine(case, "openvino", "bf16")


def matmul(case: Case) -> Call:
    """A product of two 2048 x 2048 float32 matrices: 2 * 2048**3 operations."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(2048, 2048)).astype(np.float32) for _ in range(2))
    return lambda: a @ b


def _mxnet_train(mx, net, case: Case, optimizer=None) -> Call:
    data, labels = mx.nd.array(_images(case)), mx.nd.array(_labels(case))
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    net.hybridize(static_alloc=True, static_shape=True)
    settings = {"learning_rate": 0.01, "momentum": 0.9, "wd": 3e-5}
    trainer = mx.gluon.Trainer(net.collect_params(), "nag", settings, update_on_kvstore=False)

    def call():
        with mx.autograd.record():
            value = loss(net(data), labels)
        value.backward()
        trainer.step(case.batch)
        mx.nd.waitall()

    return call


def train_plain(case: Case) -> Call:
    """The authors' net without oneDNN, with which its backward pass fails."""
    from benchmarks.authors_net import plain_copy

    mx, net = _mxnet_net(case)
    return _mxnet_train(mx, plain_copy(net, mx.nd.array(_images(case))), case)


def train_plain_settings(case: Case) -> Call:
    """The same, with the environment variables that our programs set."""
    return train_plain(case)


def train_ours(case: Case) -> Call:
    """Our net in its training graph: bare forward, backward, update."""
    from gluon_asymmnet.nn.depthwise import note_map_sizes
    from gluon_asymmnet.nn.onednn import TRAINING, set_graph_mode

    mx, net = _mxnet_net(case)
    set_graph_mode(net, TRAINING)
    note_map_sizes(net, (1, 3, case.size, case.size))
    return _mxnet_train(mx, net, case)


def train_untuned(case: Case) -> Call:
    """Our net without the oneDNN layouts."""
    mx, net = _mxnet_net(case)
    return _mxnet_train(mx, net, case)


def train_task(case: Case) -> Call:
    """One step as the training loop does it: seeds, targets, metric, update."""
    from gluon_asymmnet._mxnet import mx
    from gluon_asymmnet.data.loader import Batch
    from gluon_asymmnet.train.classifier import ClassifierTask
    from gluon_asymmnet.train.classifier_config import ClassifierConfig
    from gluon_asymmnet.train.config import resolve

    given = {"model": case.model, "width": case.width, "batch_size": case.batch,
             "input_size": case.size, "rec_train": f"{case.folder}/train.rec",
             "rec_train_idx": f"{case.folder}/train.idx", "rec_val": ""}  # fmt: skip
    task = ClassifierTask(resolve(ClassifierConfig, given), [mx.cpu()])
    batch = Batch(mx.nd.array(_images(case)), mx.nd.array(_labels(case)))

    def call():
        mx.random.seed(1)
        task.step(batch, 0, np.random.default_rng(0)).wait_to_read()
        mx.nd.waitall()

    return call


def _torch_train(
    case: Case, *, last: bool = True, compiled: bool = False, bf16: bool = False
) -> Call:
    torch, net = _torch_net(case)
    images = torch.from_numpy(_images(case))
    labels = torch.from_numpy(_labels(case)).long()
    if last:
        net, images = (t.to(memory_format=torch.channels_last) for t in (net, images))
    net.train()
    if compiled:
        net = torch.compile(net)
    settings = {"lr": 0.01, "momentum": 0.9, "weight_decay": 3e-5, "nesterov": True}
    optimizer = torch.optim.SGD(net.parameters(), **settings)
    loss = torch.nn.CrossEntropyLoss()

    def call():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            value = loss(net(images), labels)
        value.backward()
        optimizer.step()

    return call


def train_torch_eager(case: Case) -> Call:
    """Our PyTorch module, as it is."""
    return _torch_train(case, last=False)


def train_torch_channels_last(case: Case) -> Call:
    """Our PyTorch module in channels-last memory."""
    return _torch_train(case)


def train_torch_compiled(case: Case) -> Call:
    """Our PyTorch module through ``torch.compile``, channels last."""
    return _torch_train(case, compiled=True)


def train_torch_bf16(case: Case) -> Call:
    """Our PyTorch module with autocast to bfloat16, channels last."""
    if "avx512_bf16" not in cpu_features():
        raise RunError("this processor has no bfloat16 (avx512_bf16): PyTorch would emulate it")
    return _torch_train(case, bf16=True)


INFER = (
    plain, plain_settings, hybrid, optimized, gluoncv_mobilenetv3, torch_eager, torch_channels_last,
    torch_compiled, onnxruntime_stock, onnxruntime, opencv, openvino_f32, openvino_bf16,
)  # fmt: skip
TRAIN = (
    train_plain, train_plain_settings, train_untuned, train_ours, train_task, train_torch_eager,
    train_torch_channels_last, train_torch_compiled, train_torch_bf16,
)  # fmt: skip
CANDIDATES = {function.__name__: function for function in (*INFER, *TRAIN, matmul)}

# Environment variables of a candidate's process.  Our programs set SETTINGS themselves.
_ONEDNN_OFF = {"MXNET_MKLDNN_ENABLED": "0"}
ENVIRONMENT = {
    "optimized": SETTINGS,
    "plain_settings": SETTINGS,
    "train_plain": _ONEDNN_OFF,
    "train_plain_settings": {**_ONEDNN_OFF, **SETTINGS},
    "train_ours": SETTINGS,
    "train_task": SETTINGS,
}


def environment(name: str, threads: int) -> dict:
    """Return the environment of a candidate's process, with the threads of every library."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(threads)), **ENVIRONMENT.get(name, {})}
