"""Reports of a training run: log lines, progress bar and file, metrics, TensorBoard, curves."""

import contextlib
import time
from typing import Optional

from tqdm.auto import tqdm

from gluon_asymmnet.data.bad_records import SKIPPED_FILE
from gluon_asymmnet.train.progress import TensorBoard, clock, draw_curves, time_left, write_progress
from gluon_asymmnet.utils.bars import shows_bars


class Reporter:
    """Reports the events, steps and epochs of a run.

    The log lines have GluonCV's format, which scripts parse.

    Args:
        task: the ``Task`` that is trained.
        directory: its ``RunDirectory``; only worker 0 writes there.
        log: a logger, disabled on all workers but worker 0.
    """

    def __init__(self, task, directory, log):
        self.task, self.config, self.directory, self.log = task, task.config, directory, log
        self.writes = task.workers.rank == 0
        self.validation_seconds = 0.0  # of the last validation
        self._tensorboard: Optional[TensorBoard] = None
        self._bar = None

    def open_tensorboard(self, first_epoch: int) -> None:
        """Open the event file; TensorBoard drops older values from ``first_epoch`` on."""
        if self.writes:
            self._tensorboard = TensorBoard(self.directory.path, purge_step=first_epoch)

    def close(self) -> None:
        """Close the progress bar and TensorBoard's file."""
        if self._bar is not None:
            self._bar.close()
        if self._tensorboard:
            with contextlib.suppress(OSError):  # all is flushed; errors were raised then
                self._tensorboard.close()

    def event(self, kind: str, step: int, message: str) -> None:
        """Add a line to ``events.jsonl``; see ``RunDirectory.add_event``."""
        self.directory.add_event(kind, step, message)

    def damage(self, damage, step: Optional[int] = None) -> None:
        """Report a damaged checkpoint that was set aside; ``step`` adds an event, too."""
        if step is not None:
            self.event("fault", step, f"set aside {damage.checkpoint.path.name}: {damage.reason}")
        self.log.warning("set aside %s: %s", damage.checkpoint.path, damage.reason)

    def begin_epoch(self, epoch: int, done: int) -> None:
        """Start timing; ``done``: steps of the epoch that an earlier process did."""
        self._epoch, self._first, self._last_logged = epoch, done, done
        self._begun = self._last_log = time.time()
        self._bar = tqdm(
            total=self.task.steps_per_epoch, initial=done, desc=f"epoch {epoch}", unit="step",
            leave=False, disable=not shows_bars(),
        )  # fmt: skip

    def count_step(self) -> None:
        """Advance the progress bar."""
        self._bar.update()

    def log_step(self, step: int, lr: float, loss: float, metric: float) -> None:
        """Log a step and replace the progress file.

        Args:
            step: updates done, from the start of the run.
            loss, metric: means over the images of the epoch so far.
        """
        task, epoch, now = self.task, self._epoch, time.time()
        done = step - epoch * task.steps_per_epoch
        speed = task.images_per_step * (done - self._last_logged) / (now - self._last_log)
        left = time_left(
            step, task.steps_per_epoch, self.config.num_epochs,
            (now - self._begun) / (done - self._first), self.validation_seconds,
        )  # fmt: skip
        self.log.info(
            "Epoch[%d] Batch [%d]\tSpeed: %f samples/sec\t%s=%f\tlr=%f\tleft=%s",
            epoch, done - 1, speed, task.metric, metric, lr, clock(left.run),
        )  # fmt: skip
        self._bar.set_postfix(loss=f"{loss:.3f}", **{task.metric: f"{metric:.3f}"},
                              run_left=clock(left.run))  # fmt: skip
        if self.writes:
            write_progress(
                self.directory.path, left, epoch=epoch, step=step,
                steps_per_epoch=task.steps_per_epoch, images_per_s=speed, lr=lr, train_loss=loss,
                **{f"train_{task.metric}": metric},
            )  # fmt: skip
        self._last_log, self._last_logged = now, done

    def end_training(self) -> dict:
        """End the training part of an epoch; return its images and seconds, for ``end_epoch``."""
        self._bar.close()
        images = (self.task.steps_per_epoch - self._first) * self.task.images_per_step
        return {"images": images, "seconds": time.time() - self._begun}

    def end_epoch(
        self, epoch: int, step: int, means: tuple, validation: dict, training: dict,
        validation_seconds: float,
    ) -> dict:  # fmt: skip
        """Report an epoch after its validation.

        Args:
            means: of loss and metric over the epoch's training images.
            validation: metrics by name; empty without validation.
            training: from ``end_training``.

        Returns: the row for ``metrics.jsonl``, which is written.
        """
        task, log, (loss, metric) = self.task, self.log, means
        self.validation_seconds = validation_seconds
        seconds = training["seconds"] + validation_seconds
        speed = training["images"] / training["seconds"]
        log.info("[Epoch %d] training: %s=%f", epoch, task.metric, metric)
        log.info("[Epoch %d] speed: %d samples/sec\ttime cost: %f", epoch, speed, seconds)
        if validation:
            values = " ".join(f"{name}={value:f}" for name, value in validation.items())
            left_out = ""
            if task.left_out:
                images = task.data["validation set"].images
                left_out = f" ({task.left_out} of {images} images left out, see {SKIPPED_FILE})"
            log.info("[Epoch %d] validation: %s%s", epoch, values, left_out)
        scalars = {
            "lr": task.schedule(step),
            "train_loss": loss,
            f"train_{task.metric}": metric,
            **{f"val_{name}": value for name, value in validation.items()},
        }
        row = {
            "step": step, "epoch": epoch, "seconds": round(seconds, 3),
            "images": training["images"], "images_per_s": round(speed, 2), **scalars,
        }  # fmt: skip
        if self.writes:
            self.directory.add_metrics(**row)
            for name, value in scalars.items():
                self._tensorboard.add_scalar(name, value, epoch)
            draw_curves(self.directory.read_metrics(), self.directory.path / "curves.png")
        return row
