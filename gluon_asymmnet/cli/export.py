"""``asymmnet export``, the same as ``export.py``."""

_REAL_IMAGES = 16  # records of --rec-val on which the forms are compared

# name, help, what is written, whether the flags of ONNX belong to it
_FORMS = (
    (
        "symbol",
        "MXNet's static symbol and parameters",
        "A static symbol and its parameters, read back with SymbolBlock and with mx.mod.Module.",
        False,
    ),
    (
        "onnx",
        "an ONNX file of any batch size",
        "An ONNX file of any batch size, read back with ONNX Runtime. Needs the extra [onnx].",
        True,
    ),
    (
        "openvino",
        "OpenVINO's IR",
        "OpenVINO's IR (.xml and .bin), read back with OpenVINO. Needs the extra [openvino].",
        False,
    ),
    (
        "all",
        "all of them in one folder",
        "Symbol, parameters, ONNX file and IR. Needs the extras [onnx] and [openvino].",
        True,
    ),
)


def add_parser(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("export", help="export a model: symbol, ONNX, OpenVINO, all")
    add_forms(parser)


def add_forms(parser) -> None:
    """Add the forms a model can be exported in; also used by ``export.py``."""
    from gluon_asymmnet.cli.export_int8 import add_int8
    from gluon_asymmnet.cli.model_flags import add_model_flags

    forms = parser.add_subparsers(dest="form", required=True, metavar="FORM")
    for name, text, written, has_onnx in _FORMS:
        form = forms.add_parser(
            name,
            help=f"{text}, with a card",
            description=f"{written} What it gives is compared with the network, and the folder is "
            f"put in place only if they agree; card.json in it says how well. A detector's symbol "
            f"suppresses overlapping boxes, its other forms give the scores and boxes of all.",
            epilog=f"example: export.py {name} checkpoints/imagenet/asymmnet_large_baseline out",
        )
        add_model_flags(form)
        form.add_argument("out", help="folder to write; must not exist")
        form.add_argument(
            "--rec-val", default="", metavar="FILE",
            help=f"compare on the first {_REAL_IMAGES} of these records, not on made-up images",
        )  # fmt: skip
        if name == "symbol":
            form.add_argument(
                "--optimized", action="store_true",
                help="the faster graph for inference: batch normalisation folded",
            )  # fmt: skip
        if has_onnx:
            _add_onnx_flags(form)
        form.set_defaults(run=run)
    add_int8(forms)


def _add_onnx_flags(parser) -> None:
    group = parser.add_argument_group("ONNX")
    group.add_argument("--opset", type=int, default=13, help="13 to 17 (default 13)")
    group.add_argument(
        "--ir-version", type=int, default=8, help="of the file format (default 8, as of 2021)"
    )
    group.add_argument(
        "--hard-swish", choices=("op", "hardsigmoid", "clip"), default=None,
        help="as one operator (from opset 14 on), as x * HardSigmoid(x), or as x * Clip(x + 3) / 6 "
        "for converters that look for that (default: the first that the opset has)",
    )  # fmt: skip


def run(args) -> int:
    """Export and print where the files lie and how well they agree."""
    from gluon_asymmnet.utils.threads import set_threads

    set_threads()
    from gluon_asymmnet.cli.model_flags import open_any_from

    model = open_any_from(args)
    images = _real_images(args.rec_val, model.card) if args.rec_val else None
    out = _export(model, args, images)
    _print_card(out)
    return 0


def _export(model, args, images):
    if args.form == "symbol":
        from gluon_asymmnet.export.symbol import export_symbol

        return export_symbol(model, args.out, images, optimized=args.optimized)
    if args.form == "openvino":
        from gluon_asymmnet.export.openvino import export_openvino

        return export_openvino(model, args.out, images=images)
    from gluon_asymmnet.export.bundle import export_all
    from gluon_asymmnet.export.onnx.export import export_onnx
    from gluon_asymmnet.export.onnx.graph import OnnxForm

    form = OnnxForm(args.opset, args.ir_version, args.hard_swish)
    if args.form == "onnx":
        return export_onnx(model, args.out, images=images, **form._asdict())
    return export_all(model, args.out, form=form, images=images)


def _real_images(rec: str, card):
    """Return the first records as network input."""
    from gluon_asymmnet.card import DETECTOR

    if card.kind == DETECTOR:
        from gluon_asymmnet.data.boxes.loader import validation_batches
        from gluon_asymmnet.data.boxes.records import DetectionRecords

        source = DetectionRecords(rec)
        batches = validation_batches(
            source, _REAL_IMAGES, card.input_size, normalization=card.normalization
        )
        return next(batches).data
    from gluon_asymmnet.data.sources import open_source
    from gluon_asymmnet.evaluation.classification import read_batches

    images, _ = next(read_batches(open_source(rec=rec), card.preprocessing, _REAL_IMAGES))
    return images


def _print_card(out) -> None:
    import json

    from gluon_asymmnet.card import CARD_FILE, card_text

    for form, parity in json.loads(card_text(out / CARD_FILE))["parity"].items():
        print(f"{form}: {_differences(parity)} {parity['images']} images")
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
