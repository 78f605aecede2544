"""The steps that the demos of classifiers share: train, evaluate, export, show."""

from pathlib import Path

from gluon_asymmnet.cli import report
from gluon_asymmnet.data.sources import open_source
from gluon_asymmnet.errors import InputError, RunError
from gluon_asymmnet.evaluation.classification import evaluate
from gluon_asymmnet.evaluation.classification_report import summary_line


def train_records(recipe: str, train: Path, val: Path, runs: Path):
    """Train by a recipe on records, or resume; return the ``Result`` of the run in ``runs``."""
    from gluon_asymmnet.train.classifier import train as train_classifier
    from gluon_asymmnet.train.classifier_config import ClassifierConfig
    from gluon_asymmnet.train.config import resolve

    paths = {
        "rec_train": train, "rec_train_idx": train.with_suffix(".idx"),
        "rec_val": val, "rec_val_idx": val.with_suffix(".idx"), "save_dir": runs,
    }  # fmt: skip
    given = {"recipe": recipe, **{name: str(path) for name, path in paths.items()}}
    return train_classifier(resolve(ClassifierConfig, given))


def demonstrate(folder: Path, recipe: str, train: Path, val: Path, test: Path) -> int:
    """Train, score the last weights on ``test``, export, reload and score again.

    Returns: 0 if both scores are equal, or if the training was stopped.
    """
    print(f"2. AsymmNet trained on them (asymmnet train --recipe {recipe} ...)", flush=True)
    result = train_records(recipe, train, val, folder / "runs")
    if not result.finished:
        print("stopped; the same command resumes here")
        return 0

    print(f"3. the last weights on {test.name} (asymmnet eval imagenet ...)", flush=True)
    from gluon_asymmnet.export.symbol import export_symbol
    from gluon_asymmnet.saved import open_saved

    def score(model):
        return evaluate(
            model.predict, open_source(rec=test), classes=model.card.classes,
            preprocessing=model.card.preprocessing,
        )  # fmt: skip

    # The last weights, not the best: the best were chosen on the validation images.
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

    print("5. the report of the run (asymmnet report ...)", flush=True)
    page = folder / "report.html"
    report.run(report.build_parser("report").parse_args([result.run_dir, "-o", str(page)]))
    print(
        f"\nrun:      {result.run_dir} (log.txt, metrics.jsonl, curves.png, last.params)\n"
        f"report:   {page}\n"
        f"exported: {out}\n"
        f"data:     {train.parent}"
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
