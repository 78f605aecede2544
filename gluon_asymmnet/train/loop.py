"""The training loop: the order of events, the same for every task.

The loop restores the newest checkpoint, trains, saves a checkpoint after each epoch, validates, and
stops after a signal.  A ``Task`` does the update and the validation, a ``Reporter`` writes logs and
metrics.

All random numbers depend only on the seed and on the step, so a run that was killed and resumed
gives the same weights, bit for bit, as one without interruption.
"""

import contextlib
import signal
import threading
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import CARD_FILE
from gluon_asymmnet.distributed.workers import digest
from gluon_asymmnet.errors import InputError, RunError
from gluon_asymmnet.train import checkpoint as checkpoints
from gluon_asymmnet.train.checkpoint_files import add_validation, clean_up, latest
from gluon_asymmnet.train.reporter import Reporter
from gluon_asymmnet.train.run_directory import METRICS, RunDirectory, logging_to, open_run
from gluon_asymmnet.train.task import Task
from gluon_asymmnet.utils.atomic import new_file
from gluon_asymmnet.utils.doctor import environment
from gluon_asymmnet.utils.json_objects import read_json_lines
from gluon_asymmnet.weights.load import newest_weights
from gluon_asymmnet.weights.params_file import write_params

_MAX_PENDING = 2  # steps whose sums are not read yet: keep MXNet's queue filled, but bounded


class Result(NamedTuple):
    """The end of a run."""

    run_dir: str
    finished: bool  # False: stopped by a signal, to be continued
    steps: int
    best: Optional[float]  # the best first metric of a validation
    best_epoch: Optional[int]
    weights: str  # file of the best parameters, or of the last ones without a validation
    status: int = 0  # exit status of the process; of a stopped run 128 + signal, as of a shell

    @property
    def history(self) -> list[dict]:
        """The rows of ``metrics.jsonl``: a dict per epoch, as ``pandas.DataFrame`` takes them."""
        return read_json_lines(Path(self.run_dir) / METRICS)


class _NotFiniteError(RunError):
    def __init__(self, step: int, quantity: str):
        super().__init__(f"{quantity} at step {step}")
        self.step = step


class _Sums:
    """Loss and metric over the running epoch; each step's sums are read some steps later."""

    def __init__(self, images_per_step: int):
        self.images_per_step = images_per_step
        self.loss, self.metric, self.steps = 0.0, 0.0, 0
        self.stop = False  # a worker had received a signal at one of the steps read so far
        self._pending: deque = deque()

    def restart(self, loss=0.0, metric=0.0, steps=0) -> None:
        """Start a new epoch, or continue one that a checkpoint interrupted."""
        self.loss, self.metric, self.steps = loss, metric, steps

    def add(self, step: int, sums) -> None:
        self._pending.append((step, sums))
        while len(self._pending) > _MAX_PENDING:
            self._read()

    def drain(self) -> None:
        while self._pending:
            self._read()

    def _read(self) -> None:
        step, sums = self._pending.popleft()
        loss, metric, *stops = (float(value) for value in sums.asnumpy())
        self.stop = self.stop or any(stops)
        if not np.isfinite(loss):
            raise _NotFiniteError(step, f"the loss is {loss}")
        self.loss, self.metric, self.steps = self.loss + loss, self.metric + metric, self.steps + 1

    def means(self) -> tuple[float, float]:
        images = max(self.steps, 1) * self.images_per_step
        return self.loss / images, self.metric / images


def run_in(path, task: Task) -> Result:
    """Open or continue the run directory ``path``, and train."""
    started = {**environment(), "directory": str(Path.cwd())}  # of the relative paths in settings
    directory = open_run(path, task.config, started, task.workers, task.fingerprints)
    try:
        if task.workers.rank == 0:
            task.card.save(directory.path / CARD_FILE)
        task.skipped.log_to(directory.path, directory.add_event, task.workers.rank)
        return run(task, directory)
    finally:
        directory.close()


def run(task: Task, directory: RunDirectory) -> Result:
    """Train until the last epoch, from the newest checkpoint if there is one.

    Raises:
        RunError: if the loss is not finite; the message names the last good checkpoint.
    """
    log_file = directory.path / task.config.logging_file if task.workers.rank == 0 else None
    with logging_to(log_file) as log, _Signals() as signals:
        log.info(task.describe())
        log.info(task.data_line)
        if task.start_line:
            log.info(task.start_line)
        if directory.extended:
            log.info(directory.extended)
        return _Loop(task, directory, Reporter(task, directory, log), signals).run()


class _Loop:
    """The state of a running training, and its order of events."""

    def __init__(self, task: Task, directory, reporter: Reporter, signals: "_Signals"):
        self.task, self.config, self.workers = task, task.config, task.workers
        self.directory, self.reporter, self.signals = directory, reporter, signals
        self.writes = self.workers.rank == 0  # checkpoints and weights
        self.step = task.first_step  # updates done
        self.last_step = self.config.num_epochs * task.steps_per_epoch
        self.sums = _Sums(task.images_per_step)
        self.training: dict = {}  # images and seconds of the epoch, from ``end_training``
        self.best: Optional[float] = None
        self.best_epoch: Optional[int] = None

    def run(self) -> Result:
        per_epoch = self.task.steps_per_epoch
        self._event("data", self.task.data_line.removeprefix("data: "))
        validation_pending = self._restore()
        first = self.step // per_epoch - (1 if validation_pending else 0)
        try:
            self.reporter.open_tensorboard(first)
            for epoch in range(first, self.config.num_epochs):
                if self._out_of_patience(epoch):
                    break
                if self.step < (epoch + 1) * per_epoch:
                    self._train_epoch(epoch)
                if self.step == (epoch + 1) * per_epoch:
                    self._finish_epoch(epoch)
                if self._stop_requested() and self.step < self.last_step:
                    self._event("stopped", f"by {self.signals.cause} after step {self.step}")
                    return self._result(finished=False)
            self._write_weights("last")
            return self._result(finished=True)
        except _NotFiniteError as error:
            self._event("not_finite", str(error))
            raise RunError(self._explain(error)) from None
        except OSError as error:
            with contextlib.suppress(OSError):  # the disk that failed holds the events, too
                self._event("fault", str(error))
            raise
        finally:
            self.reporter.close()

    def _train_epoch(self, epoch: int) -> None:
        """Train to the end of an epoch; after a signal, save a checkpoint and return earlier."""
        task, config, end = self.task, self.config, (epoch + 1) * self.task.steps_per_epoch
        done = task.steps_per_epoch - (end - self.step)
        self.reporter.begin_epoch(epoch, done)
        for batch in task.batches(epoch, done):
            lr = self._train_step(batch, epoch)
            self.reporter.count_step()
            done += 1
            if config.log_interval and done % config.log_interval == 0:
                self.sums.drain()
                self.reporter.log_step(self.step, lr, *self.sums.means())
            due = config.checkpoint_steps and self.step % config.checkpoint_steps == 0
            stop = self._stop_requested()
            if (stop or due) and self.step < end:
                self._save_checkpoint()
                if stop:
                    return
        self._synchronize()
        if self.step < end:
            raise RunError(
                f"the input ended after {done} of {task.steps_per_epoch} steps of epoch {epoch}"
            )
        self.training = self.reporter.end_training()

    def _train_step(self, batch, epoch: int) -> float:
        """Do one update; return its learning rate."""
        self.step += 1
        lr = self.task.schedule(self.step)
        self.task.trainer.set_learning_rate(lr)
        rng = np.random.default_rng([self.config.seed, self.step])
        # for dropout; each worker has masks of its own
        mx.random.seed((int(rng.integers(2**31)) + self.workers.rank) % 2**31)
        sums = self.task.step(batch, epoch, rng)
        if self.workers.world_size > 1:
            stop = mx.nd.full(1, self.signals.stop, ctx=sums.context)
            sums = self.workers.sum("sums", mx.nd.concat(sums, stop, dim=0))
        self.sums.add(self.step, sums)
        if self.task.ema:
            self.task.ema.update(self.step - self.task.first_step)
        return lr

    def _finish_epoch(self, epoch: int) -> None:
        """Save a checkpoint, validate, and add the validation to the checkpoint.

        A run that ends in between validates first when it is resumed.
        """
        self._save_checkpoint(epoch_end=True)
        begun = time.time()
        validation = self.task.validate(epoch) or {}
        seconds = time.time() - begun
        row = self.reporter.end_epoch(
            epoch, self.step, self.sums.means(), validation, self.training, seconds
        )
        # all of them are called
        if any([call(dict(row)) is True for call in self.task.callbacks]):  # noqa: C419
            self.signals.request("a callback")
        self.sums.restart()
        score = next(iter(validation.values()), None)
        if score is not None and (self.best is None or score > self.best):
            self.best, self.best_epoch = score, epoch
            self._write_weights("best", ema=False)
        if self.task.ema and self.task.ema.update_best(validation, epoch):
            self._write_ema("best")
        frequency = self.config.save_frequency
        if frequency and (epoch + 1) % frequency == 0:
            self._write_weights(f"{self.config.dataset}-{self.config.model_name}-{epoch:04d}")
        if self.writes:
            self._add_validation(row)
        self.workers.barrier()

    def _restore(self) -> bool:
        """Load the newest checkpoint if there is one.

        Returns: whether it is the end of an epoch that is not validated yet.
        """
        newest, task = self.directory.latest, self.task
        for damage in self.directory.damaged:
            self.reporter.damage(damage)
        if newest is None:
            self._event("started", f"at step {self.step} of {self.last_step}")
            if task.start_line:
                self._event("weights", task.start_line)
            return False
        state = checkpoints.load(newest, task.net, task.trainer, task.ema)
        images = state.get("images_per_step", task.images_per_step)
        if images != task.images_per_step:
            raise InputError(
                f"{newest.path} counts steps of {images} images, and this run's are of "
                f"{task.images_per_step}: go on with as many workers as before"
            )
        self.step = state["step"]
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.sums.restart(**state["sums"])
        self.training = state.get("training", {})
        arrays = checkpoints.net_arrays(task.net)
        self.workers.check_same("resumed", {"step": self.step, "weights": digest(arrays)})
        self._event("resumed", f"from {newest.path.name}, of {self.last_step} steps")
        self.reporter.log.info("resumed from %s", newest.path)
        return state.get("validation_pending", False)

    def _out_of_patience(self, epoch: int) -> bool:
        """Return whether to end before ``epoch``, after too many epochs without improvement."""
        best = [self.best_epoch, self.task.ema and self.task.ema.best_epoch]
        waited = epoch - 1 - max((e for e in best if e is not None), default=epoch)
        if not self.config.patience or waited < self.config.patience:
            return False
        self.reporter.log.info("no better validation for %d epochs: the run ends", waited)
        self._event("ended", f"no better validation for {waited} epochs")
        return True

    def _stop_requested(self) -> bool:
        """Return whether to stop after this step.

        A signal reaches several workers at different steps; the sum over them of one step decides,
        so that all stop after the same one.
        """
        return self.signals.stop if self.workers.world_size == 1 else self.sums.stop

    def _synchronize(self) -> None:
        """Read all pending sums and wait for the last update to end.

        In MXNet 1.9.1 the backward pass of batch normalisation writes the running statistics
        without the engine's knowledge: read before its end, they may be those of the step before.
        """
        self.sums.drain()
        mx.nd.waitall()

    def _save_checkpoint(self, epoch_end: bool = False) -> None:
        self._synchronize()
        if self.writes:
            self._write_checkpoint(epoch_end)
        self.workers.barrier()  # no worker goes on before it is complete

    def _write_checkpoint(self, epoch_end: bool) -> None:
        folder, task = self.directory.checkpoints, self.task
        newest = latest(folder)
        if newest and newest.step == self.step:
            return
        broken = checkpoints.not_finite(task.net)
        if broken:  # found here: the next loss would show it after a useless checkpoint
            raise _NotFiniteError(self.step, f"{broken} is not finite")
        state = {
            **self._best_state(),
            "epoch": (self.step - 1) // task.steps_per_epoch,
            "sums": {"loss": self.sums.loss, "metric": self.sums.metric, "steps": self.sums.steps},
            "seed": self.config.seed, "lr": task.schedule(max(self.step, 1)),
            "images_per_step": task.images_per_step, "validation_pending": epoch_end,
            "training": self.training if epoch_end else {},
        }  # fmt: skip
        checkpoints.save(
            folder, self.step, task.net, task.trainer, state,
            texts=self.directory.texts(), ema=task.ema,
        )  # fmt: skip
        if not epoch_end:
            self._clean_up()

    def _best_state(self) -> dict:
        end = None if self.best_epoch is None else (self.best_epoch + 1) * self.task.steps_per_epoch
        return {"best": self.best, "best_epoch": self.best_epoch, "best_step": end}

    def _add_validation(self, row: dict) -> None:
        newest, ema = latest(self.directory.checkpoints), self.task.ema
        if newest and newest.step == self.step:
            state = {**self._best_state(), "validation_pending": False, "row": row,
                     "sums": {}, **({"ema": ema.state} if ema else {})}  # fmt: skip
            add_validation(newest, state)
        self._clean_up()

    def _clean_up(self) -> None:
        for damage in clean_up(self.directory.checkpoints, self.config.keep_last):
            self.reporter.damage(damage, self.step)

    def _write_weights(self, name: str, *, ema: bool = True) -> None:
        if not self.writes:
            return
        with new_file(self.directory.path / f"{name}.params") as scratch:
            write_params(scratch, checkpoints.net_arrays(self.task.net))
        if ema and self.task.ema:
            self._write_ema(name)

    def _write_ema(self, name: str) -> None:
        if not self.writes:
            return
        with new_file(self.directory.path / f"{name}-ema.params") as scratch:
            write_params(scratch, self.task.ema.as_numpy())

    def _event(self, kind: str, message: str) -> None:
        self.reporter.event(kind, self.step, message)

    def _explain(self, error: _NotFiniteError) -> str:
        kept, task = latest(self.directory.checkpoints), self.task
        epoch, batch = divmod(error.step - 1, task.steps_per_epoch)
        return (
            f"{error} (epoch {epoch}, batch {batch}, lr {task.schedule(error.step):g}): lower --lr "
            f"or lengthen --warmup-epochs; last good checkpoint: {kept.path if kept else 'none'}"
        )

    def _result(self, finished: bool) -> Result:
        path = self.directory.path
        weights = str(newest_weights(path)) if self.writes else ""
        status = 0 if finished else 128 + self.signals.number
        return Result(str(path), finished, self.step, self.best, self.best_epoch, weights, status)


class _Signals:
    """Turn the first Ctrl-C or SIGTERM into a flag; a second Ctrl-C stops at once."""

    def __init__(self):
        self.stop = False
        self.number = signal.SIGTERM  # the one received; of another worker's signal it is this
        self.cause = self.number.name
        self._before = {}

    def request(self, cause: str) -> None:
        """Stop as a signal does."""
        self.stop, self.cause = True, cause

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number, _frame):
        if self.stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = signal.Signals(number)
        self.request(self.number.name)
