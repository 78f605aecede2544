"""The curves of a run as a picture."""

from gluon_asymmnet.atomic import new_file


def draw_curves(metrics: list[dict], path) -> None:
    """Draw loss, accuracy and learning rate over the epochs; ``metrics`` as in metrics.jsonl."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, no global state
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for row in metrics for name in row))
    panels = {
        "loss": [n for n in names if n.endswith("_loss")],
        "metrics": [n for n in names if n.startswith(("train_", "val_")) and "loss" not in n],
        "learning rate": ["lr"],
    }
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, shown) in zip(figure.subplots(1, len(panels)), panels.items()):
        for name in shown:
            rows = [row for row in metrics if name in row]
            axes.plot([row["epoch"] for row in rows], [row[name] for row in rows],
                      label=name, marker="." if len(rows) < 40 else "")  # fmt: skip
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    with new_file(path) as scratch:
        figure.savefig(scratch, format="png", dpi=100)
