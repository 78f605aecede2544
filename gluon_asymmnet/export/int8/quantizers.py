"""The quantisers of a network: one class per engine, all with the same interface.

- ``parts``: the parts that may stay in float, by name;
- ``write(in_float)``: write a file with all other parts in 8 bits to the scratch folder;
- ``place(file, final, card)``: copy such a file, with a card inside;
- ``float_file``: the network in float32;
- ``suffix`` of the files, and ``engine``, the class of ``predict/engines`` that runs them.
"""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gluon_asymmnet.card import Card
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.export.int8.nncf import quantize_ir
from gluon_asymmnet.export.int8.qdq import measure_ranges, quantize
from gluon_asymmnet.export.onnx.export import OnnxForm, set_card, to_onnx
from gluon_asymmnet.export.onnx.joins import BEFORE
from gluon_asymmnet.export.openvino import save_ir, set_ir_card, to_ir
from gluon_asymmnet.predict.engines import OnnxRuntime, OpenVino
from gluon_asymmnet.saved import Saved
from gluon_asymmnet.utils.extras import load_extra

SQUEEZE_EXCITE = "squeeze-excites"
_RUNS = 12
_FORM = OnnxForm(joins=BEFORE)  # in 8 bits the other forms have not been measured


def find_parts(model, card: Card) -> dict[str, str]:
    """Return the parts of a network that may stay in float: name -> regex of its nodes' names.

    One part per block of AsymmNet, the layers around the blocks, and all squeeze-and-excites
    together.  For a related net, up to a dozen runs of nodes with equally many convolutions.

    Args:
        model: the network's ``onnx.ModelProto``.
    """
    prefix = f"{card.id}_"
    nodes = [(node.name.removeprefix(prefix), node.op_type) for node in model.graph.node]
    if card.model_spec.family_model is not None:
        parts = _runs(nodes)
    else:
        blocks = [re.match(r"features_blocks_(\d+)_", name) for name, _ in nodes]
        parts = {"stem": "features_stem_.*"}
        parts.update({f"block {b[1]}": f"{b[0]}.*" for b in blocks if b})
        if any("_se_" in name for name, _ in nodes):
            parts[SQUEEZE_EXCITE] = ".*_se_.*"
        parts["squeeze"] = "features_squeeze_.*"
        parts["hidden"] = "features_(?!stem_|blocks_|squeeze_).*"
        parts["output"] = "output_.*|logits.*"
    # OpenVINO splits a convolution in two and calls the one without the bias X/WithoutBiases
    return {part: f"({re.escape(prefix)})?({pattern})(/.*)?" for part, pattern in parts.items()}


def _runs(nodes: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Cut nodes into runs, each named after its first convolution."""
    convolutions = [i for i, (_, op) in enumerate(nodes) if op == "Conv"]
    first = convolutions[:: -(-len(convolutions) // _RUNS)]
    runs = zip(first, [0, *first[1:]], [*first[1:], len(nodes)])
    return {
        f"from {nodes[conv][0].removesuffix('_fwd')} on": "|".join(
            re.escape(name) for name, _ in nodes[start:end]
        )
        for conv, start, end in runs
    }


class OnnxQuantizer:
    """ONNX files with QuantizeLinear and DequantizeLinear, for ONNX Runtime."""

    suffix, engine = ".onnx", OnnxRuntime

    def __init__(self, model: Saved, images: np.ndarray, scratch: Path):
        self._onnx = load_extra("onnx")
        load_extra("onnxruntime")
        self._model = to_onnx(model, _FORM)
        self.parts = find_parts(self._model, model.card)
        self._ranges = measure_ranges(self._model, images)
        self._names = (scratch / f"trial{i}.onnx" for i in itertools.count())
        self.float_file = scratch / "float.onnx"
        self._onnx.save(self._model, self.float_file)

    def write(self, in_float: Sequence[str]) -> Path:
        """Write a file with all parts but those ``in_float`` in 8 bits."""
        pattern = re.compile("|".join(self.parts[part] for part in in_float) or "(?!)")
        names = [n.name for n in self._model.graph.node if pattern.fullmatch(n.name)]
        path = next(self._names)
        self._onnx.save(quantize(self._model, self._ranges, names), path)
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
        load_extra("nncf")
        self.parts, self._images = find_parts(to_onnx(model, _FORM), model.card), images
        # A new name for each: OpenVINO maps the weights of an open file into memory.
        self._names = (scratch / f"trial{i}.xml" for i in itertools.count())
        self.float_file = scratch / "float.xml"
        save_ir(to_ir(model, BEFORE), self.float_file)

    def write(self, in_float: Sequence[str]) -> Path:
        """Write a file with all parts but those ``in_float`` in 8 bits."""
        path, kept = next(self._names), tuple(self.parts[part] for part in in_float)
        save_ir(quantize_ir(self.float_file, self._images, kept), path)
        return path

    def place(self, file: Path, final: Path, card: Card) -> None:
        """Copy a file, with the card inside."""
        model = self._openvino.Core().read_model(str(file))
        set_ir_card(model, card.text())
        save_ir(model, final)


_QUANTIZERS = {"onnxruntime": OnnxQuantizer, "openvino": NncfQuantizer}


def quantizer_of(engine: str):
    """Return the quantiser class of an engine; InputError if it has none."""
    if engine == "mxnet":
        raise InputError(
            "MXNet's own 8 bits are slower than its float32 on this network (measured: 25 ms "
            "against 17), and its bfloat16 fails at concatenations: use onnxruntime or openvino"
        )
    if engine not in _QUANTIZERS:
        raise InputError(f"engine must be {' or '.join(_QUANTIZERS)}, got {engine!r}")
    return _QUANTIZERS[engine]
