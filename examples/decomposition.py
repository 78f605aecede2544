"""Train a net with regular convolutions on digits and decompose it by every method.

``python -m examples.decomposition [FOLDER]`` trains ShuffleNet V2 0.5 with regular 3 x 3
convolutions on the demo's digits, measures the error of its layers against the multiplier and the
accuracy of whole nets, before and after two more epochs, and writes FOLDER/decomposition.json and
.svg.  Half of the time is training.  ``--out docs`` renews the data and the picture of the
project's own page; `make tables` then renews its tables.
"""

import argparse
import json
import sys
from pathlib import Path

from examples.decomposition_report import draw
from gluon_asymmnet.cli import guarded
from gluon_asymmnet.data.digits import write_digits
from gluon_asymmnet.data.sources import open_source
from gluon_asymmnet.evaluation.classification import evaluate
from gluon_asymmnet.utils.atomic import write_text
from gluon_asymmnet.utils.doctor import environment
from gluon_asymmnet.utils.threads import set_threads

EPOCHS, TUNING = 10, 2
SIZE = 48  # pixels: at the demo's 32 the last maps are 1 x 1, and their kernels see one tap
WIDTH = 0.5
IMAGES = 256  # sampled from the training set
_REFINED = {"sweeps": 2, "joint": True}
# name -> method and settings.  Of the layers alone: those of ``LAYERS``.
METHODS = {
    "weight-svd": ("weight-svd", {}),
    "data-svd": ("data-svd", {}),
    "sequential": ("sequential", {}),
    "asymmetric": ("asymmetric", {}),
    "asymmetric, refined": ("asymmetric", _REFINED),
    "channel": ("channel", {}),
    "channel-asymmetric": ("channel-asymmetric", {}),
}
LAYERS = {
    "weight-svd": {}, "data-svd": {}, "sequential": {}, "sequential, refined": _REFINED,
    "channel": {},
}  # fmt: skip
MULTIPLIERS = (1, 2, 3, 5, 9)  # of whole nets; of layers every one


def demo(folder, out=None) -> int:
    """Train, measure, write ``decomposition.json`` and ``.svg``; existing files are used.

    Args:
        folder: for records, runs and decomposed nets.
        out: folder for the results instead of ``folder``; the JSON goes to ``out/data``.
    """
    set_threads()  # before MXNet is imported: imports inside functions load it
    folder = Path(folder)
    print("1. scikit-learn's handwritten digits as JPEGs and records", flush=True)
    digits = write_digits(folder / "digits", exist_ok=True)
    print("2. ShuffleNet V2 with regular 3 x 3 convolutions trained on them", flush=True)
    result = _train(digits, folder, "regular", model="shufflenetv2_regular", num_epochs=EPOCHS)
    if not result.finished:
        print("stopped; the same command resumes here")
        return 0
    found = _measure(Path(result.run_dir) / "last.params", digits, folder)
    data = folder / "decomposition.json" if out is None else Path(out) / "data/decomposition.json"
    write_text(data, json.dumps(found, indent=1) + "\n")
    draw(found, Path(folder if out is None else out) / "decomposition.svg")
    print(f"written: {data} and decomposition.svg")
    return 0


def _measure(weights: Path, digits, folder: Path) -> dict:
    from gluon_asymmnet.saved import open_saved

    model = open_saved(weights)
    print("3. the error of each layer alone", flush=True)
    found = {
        "machine": environment(),
        "net": {
            "model": model.card.model, "width": WIDTH, "input_size": SIZE, "epochs": EPOCHS,
            "tuning_epochs": TUNING, "images": IMAGES, **_cost(model), "top1": _top1(model, digits),
        },
        "layers": _layer_errors(model, digits),
        "nets": [],
    }  # fmt: skip
    print("4. whole nets, decomposed and trained on", flush=True)
    for name, (method, settings) in METHODS.items():
        for multiplier in MULTIPLIERS:
            row = _decomposed(model, digits, folder, name, method, multiplier, settings)
            found["nets"].append(row)
    row = _decomposed(model, digits, folder, "asymmetric, merged", "asymmetric", 1, {"merge": True})
    found["nets"].append(row)
    print(
        "5. for comparison: the net itself trained on, and ShuffleNet V2 from scratch", flush=True
    )
    tuned = _tune(digits, folder, "regular_more", "shufflenetv2_regular", weights)
    found["net"]["tuned"] = tuned
    plain = _train(digits, folder, "plain", model="shufflenetv2", num_epochs=EPOCHS + TUNING)
    plain = open_saved(Path(plain.run_dir) / "last.params")
    found["plain"] = {**_cost(plain), "epochs": EPOCHS + TUNING, "top1": _top1(plain, digits)}
    return found


def _train(digits, folder: Path, tag: str, **settings):
    from gluon_asymmnet.train.classifier import train
    from gluon_asymmnet.train.classifier_config import ClassifierConfig
    from gluon_asymmnet.train.config import resolve

    paths = {
        "rec_train": digits.train, "rec_train_idx": digits.train.with_suffix(".idx"),
        "rec_val": digits.val, "rec_val_idx": digits.val.with_suffix(".idx"),
        "save_dir": folder / "runs-decomposition",
    }  # fmt: skip
    given = {
        "recipe": "demo", "width": WIDTH, "input_size": SIZE, "dropout": 0.0, "tag_name": tag,
        **{name: str(path) for name, path in paths.items()}, **settings,
    }  # fmt: skip
    return train(resolve(ClassifierConfig, given))


def _tune(digits, folder: Path, tag: str, model: str, weights: Path, width: float = WIDTH) -> float:
    """Train weights for ``TUNING`` epochs more; return top-1 of the last ones."""
    from gluon_asymmnet.saved import open_saved

    result = _train(
        digits, folder, tag, model=str(model), width=width, resume_params=str(weights),
        num_epochs=TUNING, warmup_epochs=0, lr=0.02,
    )  # fmt: skip
    return _top1(open_saved(Path(result.run_dir) / "last.params"), digits)


def _decomposed(model, digits, folder, name, method, multiplier, settings) -> dict:
    from gluon_asymmnet.compress.model import (
        SPEC_FILE,
        decompose_model,
        sampled_batches,
        write_decomposed,
    )
    from gluon_asymmnet.compress.options import Options
    from gluon_asymmnet.saved import open_saved

    tag = f"{name.replace(', ', '-')}_{multiplier}"
    out = folder / "decomposed" / tag
    if not out.exists():
        batches = sampled_batches(
            open_source(rec=digits.train), model.card.preprocessing, IMAGES, batch_size=64
        )
        options = Options(method, multiplier, **settings)
        write_decomposed(*decompose_model(model, batches, options), out)
    smaller = open_saved(out)
    row = {"name": name, "multiplier": multiplier, **_cost(smaller), "top1": _top1(smaller, digits)}
    if multiplier == 1:
        row["tuned"] = _tune(digits, folder, tag, out / SPEC_FILE, out / "last.params", width=1.0)
    print(f"   {row}", flush=True)
    return row


def _layer_errors(model, digits) -> dict:
    """Mean relative error of the responses over the layers, by method and multiplier."""
    from gluon_asymmnet.compress import decomposition as d
    from gluon_asymmnet.compress.model import sampled_batches
    from gluon_asymmnet.compress.network import arrays_of, layer_moments, select_layers
    from gluon_asymmnet.compress.options import Options
    from gluon_asymmnet.models.factored import block_at

    model.net.hybridize(False)
    sets = {
        "fitted": sampled_batches(
            open_source(rec=digits.train), model.card.preprocessing, IMAGES, batch_size=64
        ),
        "held_out": sampled_batches(
            open_source(rec=digits.val), model.card.preprocessing, IMAGES, batch_size=64
        ),
    }
    multipliers = range(1, 10)
    sums = {name: {kind: [0.0] * len(multipliers) for kind in sets} for name in LAYERS}
    layers = select_layers(model.net)
    for layer in layers:
        weight, bias = arrays_of(block_at(model.net, layer.path))
        moments = {
            kind: layer_moments(model.net, layer, batches, Options())
            for kind, batches in sets.items()
        }
        for i, m in enumerate(multipliers):
            fitted = moments["fitted"]
            factors = {
                "weight-svd": d.weight_svd(weight, bias, m),
                "data-svd": d.data_svd(weight, fitted, m),
                "sequential": d.sequential(weight, fitted, m),
                "sequential, refined": d.sequential(weight, fitted, m, **_REFINED),
                "channel": d.channel(weight, fitted, d.equal_cost_rank(weight.shape, m)),
            }
            for name, found in factors.items():
                for kind in sets:
                    error = d.relative_error(found, moments[kind])
                    sums[name][kind][i] += error / len(layers)
    return {"multipliers": list(multipliers), "methods": sums}


def _cost(model) -> dict:
    return {"parameters": model.card.parameters, "macs": model.card.macs}


def _top1(model, digits) -> float:
    found = evaluate(
        model.predict, open_source(rec=digits.val), classes=model.card.classes,
        preprocessing=model.card.preprocessing,
    )  # fmt: skip
    return found.top1


def main(argv=None) -> int:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default="demo", help="(default demo)")
    parser.add_argument("--out", help="write the picture here and the JSON to OUT/data")
    args = parser.parse_args(argv)
    return guarded(lambda: demo(args.folder, args.out), "demo_decomposition")


if __name__ == "__main__":
    sys.exit(main())
