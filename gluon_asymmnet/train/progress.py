"""Progress of a run: time left, the progress file, TensorBoard and curves."""

import contextlib
import json
import time
from pathlib import Path
from typing import NamedTuple

from gluon_asymmnet.utils.atomic import naming, new_file, write_text

PROGRESS_FILE = "progress.json"


class TimeLeft(NamedTuple):
    """Seconds until the end of the epoch and of the run, validations included."""

    epoch: float
    run: float


def time_left(
    step: int, steps_per_epoch: int, epochs: int, step_seconds: float, validation_seconds: float
) -> TimeLeft:
    """Return the time left after ``step`` updates, the last of them within the running epoch.

    Args:
        step_seconds, validation_seconds: time of one update, and of one validation.
    """
    epoch, done = divmod(step - 1, steps_per_epoch)
    here = (steps_per_epoch - done - 1) * step_seconds + validation_seconds
    later = (epochs - epoch - 1) * (steps_per_epoch * step_seconds + validation_seconds)
    return TimeLeft(here, here + later)


def write_progress(folder: Path, left: TimeLeft, **values) -> None:
    """Replace the progress file of a run directory.

    Errors of the disk are ignored: the file is only for information.
    """
    content = {"time": time.time(), **values, "epoch_ends_in": left.epoch, "run_ends_in": left.run}
    with contextlib.suppress(OSError):
        write_text(folder / PROGRESS_FILE, json.dumps(content) + "\n")


def clock(seconds: float) -> str:
    """Write seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


class TensorBoard:
    """Writer of scalars over epochs, as an event file in ``folder``.

    Args:
        purge_step: the first epoch of this process; TensorBoard drops values that an earlier
            process wrote for it and later ones.

    Raises: OSError if the disk is full.
    """

    def __init__(self, folder: Path, purge_step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        self._folder = Path(folder)
        with naming(self._folder):
            self._writer = EventsWriter(str(self._folder / "events"))
        self._write(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def add_scalar(self, name: str, value: float, epoch: int) -> None:
        """Write one number."""
        from tensorboardX.summary import scalar

        self._write(step=epoch, summary=scalar(name, value))

    def close(self) -> None:
        """Flush and close the file."""
        with naming(self._folder):
            self._writer.close()

    def _write(self, **values) -> None:
        from tensorboardX.proto.event_pb2 import Event

        with naming(self._folder):
            self._writer.write_event(Event(wall_time=time.time(), **values))
            self._writer.flush()


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
