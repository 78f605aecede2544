"""Candidates from a picture file to boxes: our detectors, torchvision's SSDLite and GluonCV's SSD.

``case.model`` is our detector's name; ``case.folder`` is its exported folder; ``picture.jpg`` is
beside it.  All weights are random, with ``spread`` heads.  A call returns the number of boxes.
"""

from pathlib import Path

import numpy as np

from benchmarks.candidates import Call, Case

CLASSES = 20  # VOC's, without the background
THRESHOLD = 0.01  # of scores
ABOVE = 400  # pairs of box and class: as many as ours and GluonCV's let take part in suppression


def spread(logits: np.ndarray) -> tuple[float, float]:
    """Return what makes the class heads of a random net behave like those of a trained one.

    Random weights give all boxes nearly the same scores.  With the heads' weights multiplied by the
    first number, their biases zero and the second one in place of the background's, logits have a
    standard deviation of 1, and ``ABOVE`` pairs of box and class score above ``THRESHOLD``.

    Args:
        logits: ``(A, classes + 1)`` of one picture, without biases, background first.
    """
    scale = 1 / logits.std()
    powers = np.exp(scale * logits.astype(np.float64))
    of_classes, others = powers[:, 1:], powers[:, 1:].sum(1, keepdims=True)
    low, high = 0.0, 50.0
    for _ in range(60):
        bias = (low + high) / 2
        scores = of_classes / (others + np.exp(bias) * powers[:, :1])
        low, high = (bias, high) if (scores > THRESHOLD).sum() > ABOVE else (low, bias)
    return float(scale), high


def picture(case: Case) -> Path:
    """Return the JPEG file that every candidate reads."""
    return Path(case.folder).parent / "picture.jpg"


def spread_gluon(heads, logits) -> None:
    """Change the convolutions ``heads`` of a Gluon detector by ``spread``."""
    from gluon_asymmnet._mxnet import mx

    scale, background = spread(logits)
    for conv in heads:
        bias = np.zeros((conv.bias.shape[0] // (CLASSES + 1), CLASSES + 1), np.float32)
        bias[:, 0] = background
        conv.weight.set_data(conv.weight.data() * scale)
        conv.bias.set_data(mx.nd.array(bias.ravel()))


def export_detector(case: Case, out: Path) -> None:
    """Export our detector ``case.model`` with random weights to the folder ``out``."""
    from gluon_asymmnet import get_model
    from gluon_asymmnet._mxnet import mx
    from gluon_asymmnet.card import DetectorCard
    from gluon_asymmnet.data.boxes.voc import VOC_CLASSES
    from gluon_asymmnet.export.formats import export_all
    from gluon_asymmnet.saved import Saved

    name = f"{case.model}_{case.width}_voc"
    net = get_model(name, pretrained_base=False)
    mx.random.seed(0)
    net.initialize(mx.init.MSRAPrelu())
    card = DetectorCard(name, input_size=case.size, class_names=list(VOC_CLASSES))
    image = _prepared(case, card.normalization)[None]
    logits, _ = net.heads(mx.nd, mx.nd.array(image))
    spread_gluon([head.conv for head in net.class_predictors], logits[0].asnumpy())
    net.hybridize()
    export_all(Saved(card, net, Path("net.params")), out)


def _detector(case: Case, engine: str):
    from gluon_asymmnet import DetectorPredictor

    return DetectorPredictor(case.folder, engine, threads=case.threads)


def _detect(case: Case, engine: str) -> Call:
    detector, path = _detector(case, engine), picture(case)
    return lambda: len(detector.detect(path, THRESHOLD)[0].labels)


def detect_mxnet(case: Case) -> Call:
    """Ours in MXNet, with MXNet's suppression."""
    return _detect(case, "mxnet")


def detect_onnxruntime(case: Case) -> Call:
    """Ours in ONNX Runtime."""
    return _detect(case, "onnxruntime")


def detect_openvino(case: Case) -> Call:
    """Ours in OpenVINO."""
    return _detect(case, "openvino")


def _prepared(case: Case, normalization) -> np.ndarray:
    from gluon_asymmnet.data.boxes.transforms import validation_image
    from gluon_asymmnet.predict.images import read_image

    return validation_image(read_image(picture(case)), case.size, normalization)


def stage_decode(case: Case) -> Call:
    """Decoding the file."""
    from gluon_asymmnet.predict.images import read_image

    _detector(case, "onnxruntime")  # it sets how memory is freed
    path = picture(case)
    return lambda: read_image(path)


def stage_prepare(case: Case) -> Call:
    """Resizing and normalising."""
    import cv2

    from gluon_asymmnet.data.boxes.transforms import validation_image
    from gluon_asymmnet.predict.images import read_image

    cv2.setNumThreads(0)  # as ``detect`` does
    how, rgb = _detector(case, "onnxruntime").card.normalization, read_image(picture(case))
    return lambda: validation_image(rgb, case.size, how)


def _net(case: Case, engine: str) -> Call:
    detector = _detector(case, engine)
    images = _prepared(case, detector.card.normalization)[None]
    return lambda: detector._run(images)


def stage_net_onnxruntime(case: Case) -> Call:
    """The net in ONNX Runtime: scores and corners of all boxes."""
    return _net(case, "onnxruntime")


def stage_net_openvino(case: Case) -> Call:
    """The net in OpenVINO."""
    return _net(case, "openvino")


def stage_suppress(case: Case) -> Call:
    """Suppression of overlapping boxes, for the engines other than MXNet."""
    detector = _detector(case, "onnxruntime")
    outputs = detector._run(_prepared(case, detector.card.normalization)[None])
    return lambda: detector._suppress(outputs)


def gluoncv_ssd(case: Case) -> Call:
    """GluonCV's ssd_512_mobilenet1.0_voc in MXNet, at the case's size."""
    from gluon_asymmnet._mxnet import gluoncv, mx

    net = gluoncv.model_zoo.get_model("ssd_512_mobilenet1.0_voc", pretrained_base=False)
    # GluonCV asks for Xavier's initialisation, which has no values for vectors.
    for names, start in ((".*(beta|bias|mean)", "zeros"), (".*(gamma|var)", "ones")):
        net.collect_params(names).setattr("init", start)
    mx.random.seed(0)
    net.initialize(mx.init.MSRAPrelu())
    transform = gluoncv.data.transforms.presets.ssd.SSDDefaultValTransform(case.size, case.size)
    path = str(picture(case))

    def read():
        rgb = mx.image.imread(path)
        return rgb.shape, transform(rgb, np.zeros((1, 4)))[0].expand_dims(0)

    maps = net.features(read()[1])
    logits = [
        head(one).transpose((0, 2, 3, 1)).asnumpy().reshape(-1, CLASSES + 1)
        for one, head in zip(maps, net.class_predictors)
    ]
    spread_gluon([head.predictor for head in net.class_predictors], np.concatenate(logits))
    net.hybridize(static_alloc=True, static_shape=True)

    def call() -> int:
        (height, width, _), image = read()
        ids, scores, boxes = (array[0].asnumpy() for array in net(image))
        kept = (ids >= 0).ravel() & (scores > THRESHOLD).ravel()
        return len(boxes[kept] * np.float32([width, height] * 2) / case.size)

    return call


def _torchvision(case: Case):
    """Return torchvision's net of 320 pixels, and what reads the picture."""
    import torch
    import torchvision

    if case.size != 320:
        raise ValueError(f"ssdlite320_mobilenet_v3_large takes 320 pixels, not {case.size}")
    torch.set_num_threads(case.threads)
    torch.manual_seed(0)
    net = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=CLASSES + 1, score_thresh=THRESHOLD
    ).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out")
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)

    def read():
        return torchvision.io.decode_image(str(picture(case))).float() / 255

    with torch.inference_mode():
        images, _ = net.transform([read()])
        maps = list(net.backbone(images.tensors).values())
        scale, background = spread(net.head(maps)["cls_logits"][0].numpy())
        for module in net.head.classification_head.module_list:
            module[1].weight *= scale
            module[1].bias.view(-1, CLASSES + 1)[:, 0] = background
    return torch, net, read


def torchvision_ssdlite(case: Case) -> Call:
    """torchvision's ssdlite320_mobilenet_v3_large in PyTorch."""
    torch, net, read = _torchvision(case)

    def call() -> int:
        with torch.inference_mode():
            return len(net([read()])[0]["boxes"])

    return call


def torchvision_onnx(case: Case) -> Call:
    """The same in ONNX Runtime, by torch.onnx: resizing and suppression are in the file."""
    import onnxruntime as library

    torch, net, read = _torchvision(case)
    path = Path(case.folder).parent / f"torchvision-{case.threads}.onnx"
    torch.onnx.export(net, ([read()],), str(path), dynamo=False, opset_version=17)
    options = library.SessionOptions()
    options.intra_op_num_threads = case.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as ours
    session = library.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: len(session.run(None, {name: read().numpy()})[0])


OURS = (detect_onnxruntime, detect_openvino, detect_mxnet)
OTHERS = (torchvision_onnx, torchvision_ssdlite, gluoncv_ssd)
STAGES = (
    stage_decode, stage_prepare, stage_net_onnxruntime, stage_net_openvino, stage_suppress
)  # fmt: skip
CANDIDATES = {function.__name__: function for function in (*OTHERS, *OURS, *STAGES)}
# candidate -> the environment that has its libraries, where MXNet's cannot
ENVIRONMENTS = dict.fromkeys(("torchvision_onnx", "torchvision_ssdlite"), "torchvision")
