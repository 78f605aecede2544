"""``asymmnet export``, also ``export.py``."""

import argparse
import sys

import numpy as np

from gluon_asymmnet.card import CARD_FILE, DETECTOR, read_card
from gluon_asymmnet.cli.options import (
    add_bad_records_flag,
    add_model_flags,
    add_threads_flag,
    open_model,
    print_left_out,
    require_positive,
)
from gluon_asymmnet.data.bad_records import LeftOut, SkippedRecords
from gluon_asymmnet.data.boxes.loader import validation_batches
from gluon_asymmnet.data.boxes.records import DetectionRecords
from gluon_asymmnet.data.records.recordio import Record
from gluon_asymmnet.data.sources import match_source, open_source
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.evaluation.classification import read_batches
from gluon_asymmnet.predict.images import find_pictures
from gluon_asymmnet.utils.threads import available, set_threads

_AT_ONCE = 32  # images to calibrate on that are read together
_REAL_IMAGES = 16  # records of --rec-val on which the exported files are checked

# name: help, description
_FORMS = {
    "symbol": (
        "MXNet's static symbol and parameters",
        "Export a static symbol and its parameters, and check them with SymbolBlock and "
        "mx.mod.Module.",
    ),
    "onnx": (
        "an ONNX file of any batch size",
        "Export an ONNX file of any batch size, and check it with ONNX Runtime. Needs the extra "
        "[onnx].",
    ),
    "openvino": (
        "OpenVINO's IR",
        "Export OpenVINO's IR (.xml and .bin), and check it with OpenVINO. Needs the extra "
        "[openvino].",
    ),
    "ncnn": (
        "ncnn's files in single and half precision, for phones",
        "Export ncnn's .param and .bin in single precision, and with weights of half precision, "
        "through pnnx, and check them with ncnn. Needs the extra [ncnn].",
    ),
    "web": (
        "a web page that runs in the browser",
        "Export a folder that any static web server serves: a page that classifies pictures or "
        "finds objects in the browser, and the module asymmnet.js for pages of your own. Needs the "
        "extra [onnx], and npm, once, to fetch onnxruntime-web.",
    ),
    "all": (
        "symbol, ONNX and IR in one folder",
        "Export symbol, parameters, ONNX file and IR, and check each. Needs the extras [onnx] and "
        "[openvino].",
    ),
}
_INT8 = """\
Quantise a model to 8 bits after training.

Ranges are measured on real images. Each block in turn is left in float, to measure what that gains
in accuracy and costs in speed. Then blocks are left in float until less than --max-loss points of
top-1 are lost, with the least cost in speed. The report shows the results, also where a target is
missed. Speed is compared with the engine's own float32, so the machine should be idle. Needs the
extra [int8].

Written to the folder int8 in that of `export onnx` or `export all`, it is what --allow int8 takes.
"""
_INT8_EXAMPLE = """\
example: export.py int8 checkpoints/imagenet/asymmnet_large_baseline out --engine openvino
    --rec-calib train.rec --rec-val val.rec
"""


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``export`` and its forms."""
    parser = argparse.ArgumentParser(
        prog=prog, description=f"Export a model; {prog} FORM --help describes a form."
    )
    forms = parser.add_subparsers(dest="form", required=True, metavar="FORM")
    for name, (text, description) in _FORMS.items():
        form = forms.add_parser(
            name,
            help=f"{text}, with a card",
            description=f"{description} The folder is written only if the outputs agree with those "
            "of the network; its card.json holds the differences. A detector's symbol includes "
            "non-maximum suppression; its other forms return the scores and boxes of all anchors.",
            epilog=f"example: export.py {name} checkpoints/imagenet/asymmnet_large_baseline out",
        )
        add_model_flags(form)
        form.add_argument("out", help="folder to write; must not exist")
        form.add_argument(
            "--rec-val", default="", metavar="FILE",
            help=f"check on the first {_REAL_IMAGES} of these records, not on random images",
        )  # fmt: skip
        if name == "symbol":
            form.add_argument(
                "--optimized", action="store_true",
                help="the faster graph for inference: batch normalisation folded",
            )  # fmt: skip
        if name == "web":
            form.add_argument(
                "--ort-from", default=None, metavar="PATH",
                help="folder or .tgz of onnxruntime-web (default: the cache, filled by npm)",
            )  # fmt: skip
        if name in ("onnx", "all"):
            _add_onnx_flags(form)
        if name in ("openvino", "all"):
            _add_bf16_flags(form)
        if name in ("onnx", "openvino", "all"):
            form.add_argument(
                "--joins", choices=("before", "behind", "apart"), default="behind",
                help="where the copies of a block's input join its expansion: before the depthwise "
                "convolution, as in the network, behind it, or nowhere, the fastest for large "
                "batches (default behind)",
            )  # fmt: skip
        form.set_defaults(run=run)
    _add_int8(forms)
    return parser


def _add_onnx_flags(parser) -> None:
    group = parser.add_argument_group("ONNX")
    group.add_argument("--opset", type=int, default=13, help="13 to 17 (default 13)")
    group.add_argument(
        "--ir-version", type=int, default=8, help="of the file format (default 8, as of 2021)"
    )
    group.add_argument(
        "--hard-swish", choices=("op", "hardsigmoid", "clip"), default=None,
        help="as one operator (from opset 14 on), as x * HardSigmoid(x), or as x * Clip(x + 3) / 6 "
        "for converters that need that (default: the first that the opset has)",
    )  # fmt: skip


def _add_bf16_flags(parser) -> None:
    group = parser.add_argument_group("bfloat16")
    group.add_argument(
        "--bf16", action="store_true", help="measure what bfloat16 does to the top-1 (a detector's "
        "mAP) of all images of --rec-val, for --allow bf16; needs a processor that computes in it",
    )  # fmt: skip
    group.add_argument(
        "--calib-dir", default="", metavar="DIR", help="or how often the best class stays the same "
        "in a folder of images without labels",
    )  # fmt: skip
    group.add_argument("--images", type=int, default=128, help="of that folder (default 128)")
    add_bad_records_flag(group)


def _add_int8(forms) -> None:
    form = forms.add_parser(
        "int8", help="an 8-bit ONNX file or IR, with a report by block", description=_INT8,
        epilog=_INT8_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_model_flags(form)
    form.add_argument("out", help="folder to write; must not exist")
    form.add_argument(
        "--engine", default="onnxruntime", choices=("onnxruntime", "openvino", "mxnet"),
        help="whose files to write (default onnxruntime); mxnet is refused, with the reason",
    )  # fmt: skip
    data = form.add_argument_group("data")
    data.add_argument("--rec-calib", default="", metavar="FILE", help="records to calibrate on")
    data.add_argument("--calib-dir", default="", metavar="DIR", help="or a folder of images")
    data.add_argument("--images", type=int, default=128, help="to calibrate on (default 128)")
    data.add_argument(
        "--rec-val", default="", metavar="FILE",
        help="records to measure top-1 on (default: agreement on the calibration images)",
    )  # fmt: skip
    add_bad_records_flag(data)
    form.add_argument(
        "--max-loss", type=float, default=0.5, help="points of top-1 (default 0.5: less than that)"
    )
    form.add_argument(
        "--batch", type=int, default=1, help="batch size when speed is measured (default 1)"
    )
    add_threads_flag(form)
    form.set_defaults(run=_run_int8)


def run(args) -> int:
    """Export, and print the files and the differences of their outputs."""
    set_threads()
    model = open_model(args, kind=None)
    images = _real_images(args, model.card) if args.rec_val else None
    left_out = _left_out(args)
    data = _bf16_data(args, model.card) if args.form in ("openvino", "all") else None
    out = _export(model, args, images, bf16=data, left_out=left_out)
    print_left_out(left_out, 0 if data is None else len(data))
    _print_card(out)
    if args.form == "web":
        from gluon_asymmnet.export.web.export import how_to_open

        print(how_to_open(out))
    return 0


def _bf16_data(args, card):
    """Return the images to measure bfloat16 on, as ``measure_bf16`` takes them, or None."""
    if not args.bf16:
        if args.calib_dir:
            raise InputError("--calib-dir goes with --bf16")
        return None
    if bool(args.rec_val) == bool(args.calib_dir):
        raise InputError("--bf16 takes --rec-val or --calib-dir, one of them")
    if args.rec_val:
        if card.kind == DETECTOR:
            return DetectionRecords(args.rec_val, classes=card.class_names)
        return _labelled(args, card)
    if card.kind == DETECTOR:
        raise InputError("--calib-dir is for classifiers: give --rec-val, records with boxes")
    return _calibration(args, card)


def _labelled(args, card):
    """Return the records of --rec-val with the labels of the model."""
    source = open_source(rec=args.rec_val)
    return match_source(source, card.class_names, card.classes, "the model")


def _export(model, args, images, **bf16):
    if args.form == "symbol":
        from gluon_asymmnet.export.symbol import export_symbol

        return export_symbol(model, args.out, images, optimized=args.optimized)
    if args.form == "openvino":
        from gluon_asymmnet.export.openvino import export_openvino

        return export_openvino(model, args.out, joins=args.joins, images=images, **bf16)
    if args.form == "ncnn":
        from gluon_asymmnet.export.ncnn import export_ncnn

        return export_ncnn(model, args.out, images=images)
    if args.form == "web":
        from gluon_asymmnet.export.web.export import export_web

        return export_web(model, args.out, ort_from=args.ort_from, images=images)
    from gluon_asymmnet.export.formats import export_all
    from gluon_asymmnet.export.onnx.export import OnnxForm, export_onnx

    form = OnnxForm(args.opset, args.ir_version, args.hard_swish, args.joins)
    if args.form == "onnx":
        return export_onnx(model, args.out, images=images, **form._asdict())
    return export_all(model, args.out, form=form, images=images, **bf16)


def _left_out(args) -> LeftOut:
    return LeftOut(SkippedRecords(getattr(args, "max_bad_records", 0)))


def _real_images(args, card):
    """Return the first records of --rec-val as network input."""
    left_out = _left_out(args)
    if card.kind == DETECTOR:
        batches = validation_batches(
            DetectionRecords(args.rec_val), _REAL_IMAGES, card.input_size,
            normalization=card.normalization, left_out=left_out,
        )  # fmt: skip
        return next(batches).data
    source = open_source(rec=args.rec_val)
    images, _ = next(read_batches(source, card.preprocessing, _REAL_IMAGES, left_out=left_out))
    return images


def _print_card(out) -> None:
    card = read_card(out / CARD_FILE)
    differences = card.parity
    for form, parity in differences.items():
        print(f"{form}: {_differences(parity)} {parity['images']} images")
    for precision in card.accuracy or ():
        print(f"{precision}: {card.accuracy_in(precision)}")
    if "onnxruntime" in differences and "opencv" not in differences:
        print("opencv: cannot run the ONNX file of this network; the other engines can")
    print(f"written: {', '.join(sorted(str(p) for p in out.iterdir()))}")


def _differences(parity: dict) -> str:
    if "boxes" in parity:
        return (
            f"largest difference {parity['scores']:.2e} in a score, {parity['boxes']:.2e} pixels "
            f"in a box, on"
        )
    return (
        f"largest difference {parity['absolute']:.2e} ({parity['relative']:.2e} of the largest "
        f"logit), same best class on {100 * parity['top1_agreement']:.0f} % of"
    )


def _run_int8(args) -> int:
    set_threads(args.threads)
    from gluon_asymmnet.export.int8.export import export_int8
    from gluon_asymmnet.export.int8.quantizers import quantizer_of

    quantizer_of(args.engine)  # fails before the work
    if bool(args.rec_calib) == bool(args.calib_dir):
        raise InputError("give --rec-calib or --calib-dir, one of them")
    model = open_model(args)
    validation = _labelled(args, model.card) if args.rec_val else None
    report = export_int8(
        model, args.out, _calibration(args, model.card), engine=args.engine,
        validation=validation, max_loss=args.max_loss, batch=args.batch, threads=args.threads,
        max_bad_records=args.max_bad_records,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )  # fmt: skip
    print(report.text())
    print(f"written: {args.out}")
    return 0


def _calibration(args, card) -> np.ndarray:
    """Return the calibration images as network input, spread evenly over the source."""
    require_positive(args, "images")
    rec = getattr(args, "rec_calib", "")
    source = open_source(rec=rec) if rec else _Pictures(args.calib_dir)
    wanted = min(args.images, len(source))
    chosen = np.unique(np.linspace(0, len(source) - 1, wanted).round().astype(int))
    left_out = _left_out(args)
    batches = read_batches(
        source, card.preprocessing, _AT_ONCE, available(), positions=chosen, left_out=left_out
    )
    images = np.concatenate([batch for batch, _ in batches])
    print_left_out(left_out, len(chosen))
    return images


class _Pictures:
    """The pictures in a folder as a source without labels."""

    def __init__(self, folder: str):
        self._paths = find_pictures(folder)

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, i: int) -> str:
        return str(self._paths[i])

    def read(self, i: int) -> Record:
        return Record(i, -1, self._paths[i].read_bytes())
