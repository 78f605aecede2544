"""Training, evaluation and export from Python."""

import importlib.util

import numpy as np
import pytest

import gluon_asymmnet
from gluon_asymmnet import Predictor, evaluate, export, train
from gluon_asymmnet.data.datasets import DATASETS, register_dataset
from gluon_asymmnet.errors import InputError
from tests.conftest import ROOT


@pytest.fixture
def settings(tmp_path):
    """A run of two epochs on dark and bright squares."""

    def squares(split):
        labels = np.arange(16) % 2
        images = [np.full((8, 8, 3), 40 + 150 * label, np.uint8) for label in labels]
        return images, labels, ["dark", "bright"]

    register_dataset("squares", squares)
    yield dict(
        model="asymmnet_small", width=0.35, dataset="squares", input_size=32, batch_size=8,
        num_epochs=2, warmup_epochs=0, lr=0.01, num_workers=1, save_dir=str(tmp_path / "runs"),
        save_frequency=0, log_interval=0,
    )  # fmt: skip
    del DATASETS["squares"]


@pytest.mark.thorough
def test_a_run_with_callbacks_stopped_resumed_evaluated_and_exported(settings, tmp_path):
    rows = []

    def first_epoch_only(row):
        rows.append(row)
        return row["epoch"] == 0

    stopped = train(**settings, callbacks=[first_epoch_only])
    assert (stopped.finished, stopped.steps, len(rows)) == (False, 2, 1)
    assert stopped.history == rows
    result = train(**settings, callbacks=[rows.append])
    assert (result.finished, result.steps) == (True, 4)
    assert result.history == rows
    assert [row["epoch"] for row in rows] == [0, 1]
    found = evaluate(result.run_dir, dataset="squares")
    assert (found.images, found.top1) == (16, result.best)
    folder = export(result.run_dir, tmp_path / "symbol", "symbol")
    best = Predictor(folder).classify(np.full((8, 8, 3), 190, np.uint8), top=1)[0][0]
    assert best.name in ("dark", "bright")


def test_packages_stay_packages():
    assert gluon_asymmnet.train is train
    import gluon_asymmnet.train.config as config

    assert train.config is config


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: train(modell="a"), "train has no setting 'modell'; did you mean 'model'"),
        (lambda: train(model="asymmnet_small", lr=-1), "--lr must be at least 0, got -1"),
        (lambda: export("a", "b", "coreml"), "form must be one of symbol, onnx, openvino, all"),
        (lambda: evaluate("a"), "give rec_val, data_dir or dataset, one of them"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.thorough
@pytest.mark.skipif(not importlib.util.find_spec("nbclient"), reason="needs nbclient")
def test_the_notebook_runs(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "examples/training.ipynb", as_version=4)
    stored = [cell.get("outputs") for cell in notebook.cells if cell.cell_type == "code"]
    assert all(stored[1:])  # it is kept executed
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = [out["text"] for out in notebook.cells[-1].outputs if out.get("name") == "stdout"]
    assert "top-1" in "".join(printed)
