"""What quantises a network, one class per engine, all with the same surface.

A quantiser has ``write(kept)``, which puts a file into its scratch folder with everything but the
named parts in 8 bits, ``place(file, final, card)``, which copies such a file with a card inside,
``float_file``, the network in float32, ``suffix``, and ``engine``, the class of ``predict/engines``
for these files.
"""

import contextlib
import io
import itertools
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gluon_asymmnet.card import Card
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.export.int8.onnx import measure_ranges, quantized
from gluon_asymmnet.export.onnx.export import to_onnx
from gluon_asymmnet.export.onnx.graph import set_card
from gluon_asymmnet.export.openvino import save_ir, set_ir_card, to_ir
from gluon_asymmnet.predict.engines import OnnxRuntime, OpenVino
from gluon_asymmnet.saved import Saved, card_id
from gluon_asymmnet.utils.extras import load_extra

SQUEEZE_EXCITE = "squeeze-excites"
_RUNS = 12


def parts_of(model: Saved) -> dict[str, str]:
    """Return what may stay in float: name -> pattern of the names of its nodes.

    One part per block of ``arch.py``, the layers around them, and all squeeze-and-excites together.
    Of a related net, up to a dozen runs of nodes with as many convolutions each.
    """
    spec = model.card.model_spec
    if spec.family_model is not None:
        return _runs(to_onnx(model).graph.node, f"{card_id(model.card)}_")
    parts, blocks = {"stem": r"features\.stem\..*"}, spec.plan().blocks
    parts.update({f"block {i}": rf"features\.blocks\.{i}\..*" for i in range(len(blocks))})
    if any(block.se_hidden for block in blocks):
        parts[SQUEEZE_EXCITE] = r".*\.se\..*"
    parts["squeeze"] = r"features\.squeeze\..*"
    parts["hidden"] = r"features\.(mean|hidden).*"
    parts["output"] = r"output.*|logits"
    return parts


def _runs(nodes, prefix: str) -> dict[str, str]:
    """Cut nodes into runs, each from a convolution on, after which it is named."""
    convolutions = [i for i, node in enumerate(nodes) if node.op_type == "Conv"]
    first = convolutions[:: -(-len(convolutions) // _RUNS)]
    runs = zip(first, [0, *first[1:]], [*first[1:], len(nodes)])
    return {
        f"from {nodes[conv].name.removeprefix(prefix).removesuffix('_fwd')} on": "|".join(
            re.escape(n.name) for n in nodes[start:end]
        )
        for conv, start, end in runs
    }


class OnnxQuantizer:
    """ONNX files with QuantizeLinear and DequantizeLinear, for ONNX Runtime."""

    suffix, engine = ".onnx", OnnxRuntime

    def __init__(self, model: Saved, images: np.ndarray, scratch: Path):
        self._onnx = load_extra("onnx")
        load_extra("onnxruntime")
        self._model, self._parts = to_onnx(model), parts_of(model)
        self._ranges = measure_ranges(self._model, images)
        self._names = (scratch / f"trial{i}.onnx" for i in itertools.count())
        self.float_file = scratch / "float.onnx"
        self._onnx.save(self._model, self.float_file)

    def write(self, kept: Sequence[str]) -> Path:
        """Write the file in which all but ``kept`` is in 8 bits."""
        in_float = re.compile("|".join(self._parts[part] for part in kept) or "(?!)")
        names = [n.name for n in self._model.graph.node if in_float.fullmatch(n.name)]
        path = next(self._names)
        self._onnx.save(quantized(self._model, self._ranges, names), path)
        return path

    def place(self, file: Path, final: Path, card: Card) -> None:
        """Copy a file, with the card inside."""
        model = self._onnx.load(file)
        set_card(model, card)
        self._onnx.save(model, final)


class NncfQuantizer:
    """OpenVINO's IR, quantised by NNCF with its fast bias correction."""

    suffix, engine = ".xml", OpenVino

    def __init__(self, model: Saved, images: np.ndarray, scratch: Path):
        self._openvino = load_extra("openvino")
        self._nncf = load_extra("nncf")
        self._nncf.set_log_level(logging.ERROR)
        self._parts, self._images = parts_of(model), images
        # A new name each: OpenVINO maps the weights of a file in use into memory.
        self._names = (scratch / f"trial{i}.xml" for i in itertools.count())
        self.float_file = scratch / "float.xml"
        save_ir(to_ir(model), self.float_file)

    def write(self, kept: Sequence[str]) -> Path:
        """Write the file in which all but ``kept`` is in 8 bits."""
        nncf, path = self._nncf, next(self._names)
        scope = nncf.IgnoredScope(patterns=[self._parts[part] for part in kept], validate=False)
        with contextlib.redirect_stdout(io.StringIO()):  # it draws bars
            model = nncf.quantize(
                self._openvino.Core().read_model(str(self.float_file)),
                nncf.Dataset([image[None] for image in self._images]),
                preset=nncf.QuantizationPreset.MIXED,  # what hard-swish gives is not symmetric
                subset_size=len(self._images),
                ignored_scope=scope if kept else None,
            )
        save_ir(model, path)
        return path

    def place(self, file: Path, final: Path, card: Card) -> None:
        """Copy a file, with the card inside."""
        model = self._openvino.Core().read_model(str(file))
        set_ir_card(model, card.text())
        save_ir(model, final)


_QUANTIZERS = {"onnxruntime": OnnxQuantizer, "openvino": NncfQuantizer}


def quantizer_of(engine: str):
    """Return the class for an engine; InputError for one that has none."""
    if engine == "mxnet":
        raise InputError(
            "MXNet's own 8 bits are slower than its float32 on this network (measured: 25 ms "
            "against 17), and its bfloat16 fails at the joins: use onnxruntime or openvino"
        )
    if engine not in _QUANTIZERS:
        raise InputError(f"engine must be {' or '.join(_QUANTIZERS)}, got {engine!r}")
    return _QUANTIZERS[engine]
