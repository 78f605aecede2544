"""``make demo``: train, evaluate and export AsymmNet on scikit-learn's digits."""

import sys
from pathlib import Path

from gluon_asymmnet.cli import guarded
from gluon_asymmnet.data.digits import write_digits
from gluon_asymmnet.data.sources import open_source
from gluon_asymmnet.errors import InputError, RunError
from gluon_asymmnet.evaluation.classification import evaluate
from gluon_asymmnet.evaluation.classification_report import summary_line
from gluon_asymmnet.utils.threads import set_threads


def demo(folder) -> int:
    """Build the digits records, train, evaluate, export, reload and evaluate again."""
    set_threads()  # before MXNet is imported: imports inside functions load it
    folder = Path(folder)
    print("1. scikit-learn's handwritten digits as JPEGs and records", flush=True)
    digits = write_digits(folder / "digits", exist_ok=True)
    print(f"   {digits.root}", flush=True)

    print("2. AsymmNet-Small trained on them (asymmnet train --recipe demo ...)", flush=True)
    result = train_digits(digits, folder / "runs")
    if not result.finished:
        print("stopped; `make demo` resumes here")
        return 0

    print("3. the last weights on the held-out digits (asymmnet eval imagenet ...)", flush=True)
    from gluon_asymmnet.export.symbol import export_symbol
    from gluon_asymmnet.saved import open_saved

    def score(model):
        return evaluate(
            model.predict, open_source(rec=digits.val), classes=model.card.classes,
            preprocessing=model.card.preprocessing,
        )  # fmt: skip

    # The last weights, not the best: the best were chosen on these very images.
    trained = open_saved(Path(result.run_dir) / "last.params")
    accuracy = score(trained)
    print(f"   {summary_line(accuracy)}")

    print("4. exported as symbol, loaded and evaluated again (asymmnet export symbol ...)")
    out = folder / "exported"
    if not out.exists():
        export_symbol(trained, out)
    reloaded = score(open_saved(out))
    equal = "equal" if reloaded.top1 == accuracy.top1 else "DIFFERENT"
    print(f"   {summary_line(reloaded)}: {equal}")
    print(
        f"\nrun:      {result.run_dir} (log.txt, metrics.jsonl, curves.png, last.params)\n"
        f"exported: {out}\n"
        f"data:     {digits.root}"
    )
    print(web_page(trained, folder / "web"))
    return 0 if reloaded.top1 == accuracy.top1 else 1


def web_page(model, out) -> str:
    """Export the model as a web page; return the line that tells how to open it, or why not."""
    from gluon_asymmnet.export.web.export import export_web, how_to_open

    try:
        if not out.exists():
            export_web(model, out)
    except (InputError, RunError) as error:  # the rest of the demo needs neither npm nor ONNX
        return f"no web page: {error}"
    return how_to_open(out)


def train_digits(digits, runs):
    """Train the demo's classifier on the records of ``write_digits``, or resume it.

    Returns: the ``Result`` of the run, in the folder ``runs``.
    """
    from gluon_asymmnet.train.classifier import train
    from gluon_asymmnet.train.classifier_config import ClassifierConfig
    from gluon_asymmnet.train.config import resolve

    paths = {
        "rec_train": digits.train, "rec_train_idx": digits.train.with_suffix(".idx"),
        "rec_val": digits.val, "rec_val_idx": digits.val.with_suffix(".idx"),
        "save_dir": runs,
    }  # fmt: skip
    given = {"recipe": "demo", **{name: str(path) for name, path in paths.items()}}
    return train(resolve(ClassifierConfig, given))


if __name__ == "__main__":
    sys.exit(guarded(lambda: demo(sys.argv[1] if len(sys.argv) > 1 else "demo"), "demo"))
