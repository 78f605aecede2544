"""``asymmnet reproduce``: compare the published weights with the published accuracy."""

import argparse
import json
import sys

from tqdm import tqdm

from gluon_asymmnet.card import ClassifierCard
from gluon_asymmnet.cli.options import add_threads_flag, require_positive
from gluon_asymmnet.data.sources import check_labels, open_source
from gluon_asymmnet.evaluation import classification_report, published
from gluon_asymmnet.evaluation.classification import evaluate
from gluon_asymmnet.utils.atomic import write_text
from gluon_asymmnet.utils.doctor import environment
from gluon_asymmnet.utils.threads import set_threads
from gluon_asymmnet.weights.published import BLOB_ID, fetch, git_blob_id


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``reproduce``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Evaluate the authors' weights on every validation record once. Compute from "
        "that the accuracy their validation would have measured after epoch 358, and compare it "
        "with their log: top-1 0.754232, top-5 0.925090.  Exit status 1 if it differs.",
        epilog="example: asymmnet reproduce --rec-val val.rec --rec-val-idx val.idx "
        "--json reproduction.json",
    )
    parser.add_argument("--rec-val", required=True, help="validation records")
    parser.add_argument("--rec-val-idx", default="", help="their index (default: the .idx beside)")
    parser.add_argument(
        "--params", default="", metavar="FILE",
        help="weights of asymmnet_large, any layout (default: the published ones, fetched)",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=64, help="speed only (default 64)")
    parser.add_argument(
        "--walk-batch-size", type=int, default=published.BATCH_SIZE, metavar="N",
        help="images per step of the authors' validation (default %(default)s, theirs)",
    )  # fmt: skip
    parser.add_argument(
        "-j", "--num-data-workers", "--num-workers", dest="num_workers", type=int, default=2,
        help="decoding threads (default 2)",
    )  # fmt: skip
    add_threads_flag(parser)
    parser.add_argument("--json", default="", metavar="FILE", help="write the result; -: print it")
    parser.set_defaults(run=run)
    return parser


def run(args) -> int:
    """Measure, compare and print."""
    require_positive(args, "batch_size", "num_workers")
    set_threads(args.threads)
    from gluon_asymmnet.saved import open_weights

    source, card = open_source(rec=args.rec_val, idx=args.rec_val_idx), ClassifierCard()
    passes = published.PUBLISHED.number + 1
    # Fails now, not after hours.
    published.validation_passes(len(source), args.walk_batch_size, passes)
    check_labels(source, card.classes)
    model = open_weights(args.params or fetch(), card)
    with tqdm(total=len(source), unit="image", disable=not sys.stderr.isatty()) as bar:
        result = evaluate(
            model.predict, source, classes=card.classes, preprocessing=card.preprocessing,
            batch_size=args.batch_size, threads=args.num_workers,
            progress=lambda done, _: bar.update(done - bar.n),
        )  # fmt: skip
    ours = published.pass_results(result, args.walk_batch_size, passes)[-1]
    print(classification_report.summary_line(result))
    print(published.comparison_text(result, ours))
    if args.json:
        _write_json(args, model.weights, result, ours)
    return 1 if published.compare_with_published(ours).verdict == "not reproduced" else 0


def _write_json(args, weights, result, ours) -> None:
    compared, blob_id = published.compare_with_published(ours), git_blob_id(weights)
    content = {
        "verdict": compared.verdict,
        "band": published.BAND,
        "top1_difference": compared.top1_difference,
        "top5_difference": compared.top5_difference,
        "weights": str(weights),
        "git_blob_id": blob_id,
        "published_weights": blob_id == BLOB_ID,
        "records": args.rec_val,
        "exact": {
            "images": result.images,
            "top1": result.top1,
            "top1_95": result.interval,
            "top5": result.top5,
            "loss": result.loss,
        },
        "walk": {"batch_size": args.walk_batch_size, **ours.as_dict()},
        "published": {"batch_size": published.BATCH_SIZE, **published.PUBLISHED.as_dict()},
        "environment": environment(),
    }
    write_text(args.json, json.dumps(content, indent=1) + "\n")
