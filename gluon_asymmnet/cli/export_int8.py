"""``asymmnet export int8``."""

_DESCRIPTION = """\
Quantise a model to 8 bits after training.

Ranges are measured on real pictures. Each block is left in float alone to see what that wins in
accuracy and in speed; then what stays in float is chosen so that less than --max-loss points of
top-1 are lost and the rest is as fast as it can be. The report says what was found, also where a
target is not met. Speed is measured against the engine's own float32, so the machine should be
idle. Needs the extra [int8].
"""
_EXAMPLE = """\
example: export.py int8 checkpoints/imagenet/asymmnet_large_baseline out --engine openvino
    --rec-calib train.rec --rec-val val.rec
"""


def add_int8(forms) -> None:
    """Add the form ``int8`` to ``export``."""
    import argparse

    from gluon_asymmnet.cli.model_flags import add_model_flags

    form = forms.add_parser(
        "int8", help="an 8-bit ONNX file or IR, with a report by block", description=_DESCRIPTION,
        epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_model_flags(form)
    form.add_argument("out", help="folder to write; must not exist")
    form.add_argument(
        "--engine", default="onnxruntime", choices=("onnxruntime", "openvino", "mxnet"),
        help="whose files to write (default onnxruntime); mxnet is refused, with the reason",
    )  # fmt: skip
    data = form.add_argument_group("data")
    data.add_argument("--rec-calib", default="", metavar="FILE", help="records to calibrate on")
    data.add_argument("--calib-dir", default="", metavar="DIR", help="or a folder of pictures")
    data.add_argument("--images", type=int, default=128, help="to calibrate on (default 128)")
    data.add_argument(
        "--rec-val", default="", metavar="FILE",
        help="records on which top-1 is compared (default: agreement on the calibration pictures)",
    )  # fmt: skip
    form.add_argument(
        "--max-loss", type=float, default=0.5, help="points of top-1 (default 0.5: less than that)"
    )
    form.add_argument(
        "--batch", type=int, default=1, help="images at once while speed is measured (default 1)"
    )
    form.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    form.set_defaults(run=run)


def run(args) -> int:
    """Quantise and print the report."""
    import sys

    from gluon_asymmnet.utils.threads import set_threads

    set_threads(args.threads)
    from gluon_asymmnet.cli.model_flags import open_from
    from gluon_asymmnet.data.sources import open_source
    from gluon_asymmnet.export.int8.quantize import export_int8
    from gluon_asymmnet.export.int8.quantizers import quantizer_of

    quantizer_of(args.engine)  # refused before the work
    model = open_from(args)
    report = export_int8(
        model, args.out, _calibration(args, model.card), engine=args.engine,
        validation=open_source(rec=args.rec_val) if args.rec_val else None,
        max_loss=args.max_loss, batch=args.batch, threads=args.threads,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )  # fmt: skip
    print(report.text())
    print(f"written: {args.out}")
    return 0


def _calibration(args, card):
    """Return the calibration pictures as network input, spread over all there are."""
    import numpy as np

    from gluon_asymmnet.data.images import decode
    from gluon_asymmnet.data.sources import open_source
    from gluon_asymmnet.errors import InputError
    from gluon_asymmnet.predict.images import find_image_files, read_image

    if bool(args.rec_calib) == bool(args.calib_dir):
        raise InputError("give --rec-calib or --calib-dir, one of them")
    if args.images < 1:
        raise InputError(f"--images must be at least 1, got {args.images}")
    if args.rec_calib:
        source = open_source(rec=args.rec_calib)
        count, read = len(source), lambda i: decode(source.read(i).image)
    else:
        paths = [path for path, _ in find_image_files([args.calib_dir])]
        count, read = len(paths), lambda i: read_image(paths[i])
    chosen = np.unique(np.linspace(0, count - 1, min(args.images, count)).round().astype(int))
    return np.stack([card.preprocessing(read(i)) for i in chosen])
