"""The flags that choose an engine, and what is printed of the choice."""

import sys

from gluon_asymmnet.predict.choice import Choice, choose


def add_engine_flags(parser) -> None:
    """Add the engine that runs an exported model."""
    parser.add_argument(
        "--engine", default="auto",
        choices=("auto", "mxnet", "onnxruntime", "openvino", "opencv", "ncnn"),
        help="engine that runs the model (default: the faster of onnxruntime and openvino, "
        "measured once and remembered; without them or their files another, MXNet for runs and "
        ".params)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", default="f32", choices=("f32", "bf16", "auto"),
        help="bf16 is for openvino; auto: the fastest of f32 and --allow (default f32)",
    )  # fmt: skip
    parser.add_argument(
        "--allow", default="", metavar="bf16,int8",
        help="what --precision auto may take, too: bf16, or the int8 export in the folder int8 in "
        "the model's; their accuracy must have been measured at export (docs/python.md)",
    )  # fmt: skip


def choose_model(path: str, args) -> Choice:
    """Return the engine, precision and file that flags of ``add_engine_flags`` choose."""
    return choose(
        path, args.engine, threads=args.threads, precision=args.precision, allow=args.allow
    )


def print_engine(predictor, args) -> None:
    """Print the engine and the file on stderr, and the reason if they were not asked for."""
    chosen = "auto" in (args.engine, args.precision)
    precision = "" if predictor.precision == "f32" else f" {predictor.precision}"
    print(
        f"engine: {predictor.engine}{precision}, {predictor.weights}"
        f"{f' ({predictor.reason})' if chosen else ''}",
        file=sys.stderr,
    )
