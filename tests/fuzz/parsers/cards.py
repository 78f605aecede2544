"""What describes a network: model cards, also in an ONNX file, specifications and settings."""

import functools
import json

import onnx

from gluon_asymmnet.card import (
    CLASSIFIER,
    DETECTOR,
    ClassifierCard,
    DetectorCard,
    parse_card,
    read_card,
)
from gluon_asymmnet.data.bad_records import SKIPPED_FILE, SkippedRecords
from gluon_asymmnet.errors import FormatError
from gluon_asymmnet.models.registry import FAMILIES, ModelSpec
from gluon_asymmnet.models.ssd_spec import parse_detector
from gluon_asymmnet.predict.onnx_header import read_onnx_header
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.detector_config import DetectorConfig
from gluon_asymmnet.utils.settings import from_json, to_json
from tests.fuzz import mutations as damage
from tests.fuzz.parsers.base import Target


def card_seeds():
    named = ClassifierCard(classes=2, class_names=["a", "b"], width=0.5, parity={"onnx": 1e-6})
    return [ClassifierCard().text().encode(), named.text().encode()]


def read_classifier_card(folder, data):
    """Planning its network is part of reading it: the next thing done with a card."""
    (folder / "card.json").write_bytes(data)
    card = read_card(folder / "card.json", CLASSIFIER)
    parse_card(card.text(), "again")
    assert card.preprocessing.input_size == card.input_size
    card.model_spec.plan()


def onnx_seeds():
    """A graph of one node, as PyTorch writes it, and one with a free batch and a card."""
    port = functools.partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    node, models = onnx.helper.make_node("Relu", ["x"], ["y"]), []
    for batch in (1, "batch"):
        ports = ([port(name, shape=[batch, 3, 8, 8])] for name in "xy")
        models.append(onnx.helper.make_model(onnx.helper.make_graph([node], "net", *ports)))
    onnx.helper.set_model_props(models[1], {"card": card_seeds()[0].decode(), "other": ""})
    return [model.SerializeToString() for model in models]


def read_header_of_onnx(folder, data):
    try:
        header = read_onnx_header(data)
    except ValueError as error:  # the engine names the file, too
        raise FormatError(str(error)) from None
    for shape in (*header.inputs, *header.outputs.values()):
        assert all(side is None or isinstance(side, int) for side in shape)


def spec_seeds():
    specs = [
        {"family": "antnet", "settings": {"groups": 2}},
        {"family": "mobilenetv2", "settings": {"rate": 2, "attention": "eca"}},
    ]
    return [json.dumps(spec).encode() for spec in specs]


def read_model_spec(folder, data):
    (folder / "net.json").write_bytes(data)
    assert ModelSpec.parse(str(folder / "net.json")).family_model.family in FAMILIES


def detector_card_seeds():
    return [DetectorCard("ssd_300_asymmnet_small_custom", 300, ["a", "b"]).text().encode()]


def read_card_of_a_detector(folder, data):
    (folder / "card.json").write_bytes(data)
    card = read_card(folder / "card.json", DETECTOR)
    assert card.normalization.mean == card.rgb_mean
    parse_detector(card.model)


def read_config(folder, data, kind):
    (folder / "config.json").write_bytes(data)
    to_json(from_json(kind, folder / "config.json"))


def read_skipped(folder, data):
    (folder / SKIPPED_FILE).write_bytes(data)
    SkippedRecords(1).log_to(folder, lambda *_: None)


def skipped_seeds():
    rows = ({"step": i, "position": 7 * i, "reason": f"record {i} is bad"} for i in range(3))
    return ["\n".join(map(json.dumps, rows)).encode()]


def config_seeds(kind):
    return lambda: [to_json(kind()).encode()]


TARGETS = {
    "onnx header": Target(
        "`read_onnx_header`", onnx_seeds, damage.damaged_bytes, read_header_of_onnx, 2000
    ),
    "card": Target("`read_card`", card_seeds, damage.damaged_json, read_classifier_card),
    "spec": Target("`ModelSpec.parse`", spec_seeds, damage.damaged_json, read_model_spec),
    "detector card": Target(
        "`read_card`", detector_card_seeds, damage.damaged_json, read_card_of_a_detector
    ),
    "classifier config": Target(
        "`config.from_json`", config_seeds(ClassifierConfig), damage.damaged_json,
        functools.partial(read_config, kind=ClassifierConfig),
    ),
    "detector config": Target(
        "`config.from_json`", config_seeds(DetectorConfig), damage.damaged_json,
        functools.partial(read_config, kind=DetectorConfig),
    ),
    "skipped records": Target(
        "`SkippedRecords.log_to`", skipped_seeds, damage.damaged_json_lines, read_skipped
    ),
}  # fmt: skip
