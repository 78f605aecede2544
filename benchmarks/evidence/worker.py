"""One run in a process of its own: train, score once, print the row as JSON.

Arguments: the run as JSON, see ``harness``; the folder of the records; the folder of the run.
"""

import hashlib
import json
import sys
import time
from pathlib import Path

from benchmarks.evidence.plan import CLASSES, PIXELS, RECIPE
from gluon_asymmnet.data.sources import open_source
from gluon_asymmnet.evaluation.classification import evaluate
from gluon_asymmnet.utils.threads import set_threads


def main() -> int:
    """Train or continue the run; 0 if it is finished and its row printed."""
    request, records, folder = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    set_threads(RECIPE["threads"])
    from benchmarks.evidence import nets  # noqa: F401  registers its models
    from gluon_asymmnet.errors import RunError
    from gluon_asymmnet.saved import open_saved
    from gluon_asymmnet.train.classifier import train

    begun = time.process_time()
    try:
        result = train(_config(request, records, folder))
    except RunError as error:  # the loss is not finite
        print(json.dumps({"failure": str(error).partition(";")[0]}))  # then follows a path
        return 0
    if not result.finished:
        return result.status
    last = Path(result.run_dir) / "last.params"
    model = open_saved(last)
    score = evaluate(
        model.predict, open_source(rec=records / f"{request['scored']}.rec"), classes=CLASSES,
        preprocessing=model.card.preprocessing, batch_size=100, threads=1,
    )  # fmt: skip
    row = {
        "correct": int((score.ranked[:, 0] == score.labels).sum()), "images": score.images,
        "loss": score.loss, "steps": result.steps,
        "cpu_seconds": round(time.process_time() - begun, 1), "weights": _digest(last),
    }  # fmt: skip
    print(json.dumps(row))
    return 0


def _config(request: dict, records: Path, folder: Path):
    from gluon_asymmnet.train.classifier_config import ClassifierConfig
    from gluon_asymmnet.train.config import resolve

    model = {key: request[key] for key in ("model", "width", "rate")}
    if request["spec"]:
        file = folder / f"{request['model']}.json"
        file.write_text(json.dumps(request["spec"]))
        model = {"model": str(file)}
    return resolve(ClassifierConfig, {
        **RECIPE, **request["settings"], **model, "seed": request["seed"], "lr": request["lr"],
        "input_size": PIXELS, "save_dir": str(folder), "tag_name": "evidence", "rec_val": "",
        "rec_train": str(records / "train.rec"), "rec_train_idx": str(records / "train.idx"),
    })  # fmt: skip


def _digest(weights: Path) -> str:
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
