"""The training loop: what every task shares.

A task brings a network, a trainer, an input and three functions; the loop brings the order of
events: learning rate, seeds, log lines, validation, checkpoints, resume, signals.

Everything random is a function of the seed and the number of the step, so a run that was killed
and resumed repeats what an undisturbed one does.
"""

import contextlib
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Callable, NamedTuple, Optional, Protocol

import numpy as np
from tqdm import tqdm

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.distributed.workers import digest
from gluon_asymmnet.errors import InputError, RunError
from gluon_asymmnet.train import checkpoint as checkpoints
from gluon_asymmnet.train.checkpoint_files import clean_up, latest
from gluon_asymmnet.train.ema import AveragedWeights
from gluon_asymmnet.train.progress import Board, clock, draw_curves, time_left, write_progress
from gluon_asymmnet.train.run_directory import RunDirectory, logging_to
from gluon_asymmnet.utils.atomic import new_file
from gluon_asymmnet.weights.params_file import write_params

_IN_FLIGHT = 2  # steps whose results are not read yet: keeps MXNet's queue filled, and bounded


class Task(Protocol):
    """What the loop trains."""

    net: object
    trainer: object
    ema: Optional[AveragedWeights]  # updated, kept and written here
    metric: str  # name of what ``step`` counts, for the log: accuracy, RMSE, SmoothL1
    workers: object  # distributed.workers.Workers: who does this together
    images_per_step: int  # of all workers
    steps_per_epoch: int
    first_step: int  # steps done before this run, of weights that were trained elsewhere
    schedule: Callable[[int], float]  # learning rate of an update, counted from 1

    def batches(self, epoch: int, first_step: int) -> Iterator:
        """Yield an epoch's batches from a step on."""

    def step(self, batch, epoch: int, rng: np.random.Generator):
        """Do one update; return a (2,) array not waited for: this worker's sums of loss and of
        the metric.
        """

    def validate(self, epoch: int) -> Optional[dict[str, float]]:
        """Return the metrics on the validation set, or None if there is none in this epoch.

        The first, top-1 or mAP, decides which weights are the best; the first of the average's,
        if there is one, which of its are.
        """


class Result(NamedTuple):
    """How a run ended."""

    run_dir: str
    finished: bool  # False: stopped by a signal, to be continued
    steps: int
    best: Optional[float]  # the best first metric of a validation
    best_epoch: Optional[int]
    weights: str  # the best parameters, or the last if nothing was validated


class _Sums:
    """Loss and metric of the running epoch, read some steps late."""

    def __init__(self, images_per_step: int, loss=0.0, metric=0.0, steps=0):
        self.images_per_step = images_per_step
        self.loss, self.metric, self.steps = loss, metric, steps
        self.stop = False  # a worker was told to stop before one of the steps read
        self._waiting: deque = deque()

    def add(self, step: int, sums) -> None:
        self._waiting.append((step, sums))
        while len(self._waiting) > _IN_FLIGHT:
            self._read()

    def drain(self) -> None:
        while self._waiting:
            self._read()

    def _read(self) -> None:
        step, sums = self._waiting.popleft()
        loss, metric, *stops = (float(value) for value in sums.asnumpy())
        self.stop = self.stop or any(stops)
        if not np.isfinite(loss):
            raise _NotFiniteError(step, f"the loss is {loss}")
        self.loss, self.metric, self.steps = self.loss + loss, self.metric + metric, self.steps + 1

    def mean(self) -> tuple:
        images = max(self.steps, 1) * self.images_per_step
        return self.loss / images, self.metric / images


class _NotFiniteError(RunError):
    def __init__(self, step: int, what: str):
        super().__init__(f"{what} at step {step}")
        self.step = step


def run(task: Task, config, directory: RunDirectory, describe: Callable[[], str]) -> Result:
    """Train until the last epoch, from the newest checkpoint if there is one.

    Args:
        describe: returns the line that names the run, for the log.

    Raises:
        RunError: if the loss is not finite; the last good checkpoint is kept and named.
    """
    log_file = directory.path / config.logging_file if task.workers.rank == 0 else None
    with logging_to(log_file) as log, _Signals() as signals:
        log.info(describe())
        return _Run(task, config, directory, log, signals)()


class _Run:
    """One call of ``run``."""

    def __init__(self, task, config, directory, log, signals):
        self.task, self.config, self.directory = task, config, directory
        self.log, self.signals = log, signals
        self.workers = task.workers
        self.writes = self.workers.rank == 0  # the directory, the log and the metrics are one's own
        self.best: Optional[float] = None
        self.best_epoch: Optional[int] = None
        self.step = task.first_step
        self.sums = _Sums(task.images_per_step)
        self.last_step = config.num_epochs * task.steps_per_epoch
        self.board = None
        self.judging = 0.0  # seconds of the last validation
        self.stop = False  # one of several workers was told to

    def __call__(self) -> Result:
        task, per_epoch = self.task, self.task.steps_per_epoch
        self._begin()
        first = self.step // per_epoch
        if self.writes:
            self.board = Board(self.directory.path, purge_step=first)
        try:
            for epoch in range(first, self.config.num_epochs):
                if self._out_of_patience(epoch):
                    break
                self._epoch(epoch)
                if self._told_to_stop() and self.step < self.last_step:
                    self._event("stopped", f"by {self.signals.name} after step {self.step}")
                    return self._result(finished=False)
            self._copy_weights("last")
            return self._result(finished=True)
        except _NotFiniteError as error:
            self._event("not_finite", str(error))
            raise RunError(self._explain(error, task)) from None
        except OSError as error:
            with contextlib.suppress(OSError):  # the disk that failed holds the events, too
                self._event("fault", str(error))
            raise
        finally:
            if self.board:
                with contextlib.suppress(OSError):  # all was flushed; what failed was said
                    self.board.close()

    def _event(self, kind: str, message: str) -> None:
        self.directory.add_event(kind, self.step, message)

    def _explain(self, error, task) -> str:
        kept = latest(self.directory.checkpoints)
        epoch, batch = divmod(error.step - 1, task.steps_per_epoch)
        return (
            f"{error} (epoch {epoch}, batch {batch}, lr {task.schedule(error.step):g}): lower --lr "
            f"or lengthen --warmup-epochs; last good checkpoint: {kept.path if kept else 'none'}"
        )

    def _begin(self) -> None:
        """Go on from the newest checkpoint if there is one."""
        found = self.directory.latest
        for damage in self.directory.damaged:
            self.log.warning("set aside %s: %s", damage.checkpoint.path, damage.reason)
        if found is None:
            self._event("started", f"at step {self.step} of {self.last_step}")
            return
        state = checkpoints.load(found, self.task.net, self.task.trainer, self.task.ema)
        self._check_step(found, state)
        self.step = state["step"]
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.sums = _Sums(self.task.images_per_step, **state["sums"])
        arrays = checkpoints.net_arrays(self.task.net)
        self.workers.check_same("resumed", {"step": self.step, "weights": digest(arrays)})
        self._event("resumed", f"from {found.path.name}, of {self.last_step} steps")
        self.log.info("resumed from %s", found.path)

    def _check_step(self, found, state: dict) -> None:
        now = self.task.images_per_step
        before = state.get("images_per_step", now)
        if before != now:
            raise InputError(
                f"{found.path} counts steps of {before} images, and this run's are of {now}: go on "
                f"with as many workers as before"
            )

    def _out_of_patience(self, epoch: int) -> bool:
        """Say whether to end before ``epoch``: nothing got better for too long."""
        best = [self.best_epoch, self.task.ema and self.task.ema.best_epoch]
        waited = epoch - 1 - max((e for e in best if e is not None), default=epoch)
        if not self.config.patience or waited < self.config.patience:
            return False
        self.log.info("no better validation for %d epochs: the run ends", waited)
        self._event("ended", f"no better validation for {waited} epochs")
        return True

    def _epoch(self, epoch: int) -> None:
        """Train and validate one epoch; after a signal, save in the middle of it."""
        task, config, per_epoch = self.task, self.config, self.task.steps_per_epoch
        done = self.step - epoch * per_epoch
        begun = tick = time.time()
        bar = tqdm(
            total=per_epoch, initial=done, desc=f"epoch {epoch}", unit="step", leave=False,
            disable=not sys.stderr.isatty(),
        )  # fmt: skip
        with bar:
            for number, batch in enumerate(task.batches(epoch, done), start=done):
                lr = self._step(batch, epoch)
                bar.update()
                if config.log_interval and (number + 1) % config.log_interval == 0:
                    self.sums.drain()
                    now = time.time()
                    speed = task.images_per_step * config.log_interval / (now - tick)
                    loss, metric = self.sums.mean()
                    left = time_left(self.step, per_epoch, config.num_epochs,
                                     (now - begun) / (number + 1 - done), self.judging)  # fmt: skip
                    self.log.info(
                        "Epoch[%d] Batch [%d]\tSpeed: %f samples/sec\t%s=%f\tlr=%f\tleft=%s",
                        epoch, number, speed, task.metric, metric, lr, clock(left.run),
                    )  # fmt: skip
                    bar.set_postfix(loss=f"{loss:.3f}", **{task.metric: f"{metric:.3f}"},
                                    run_left=clock(left.run))  # fmt: skip
                    if self.writes:
                        write_progress(
                            self.directory.path, left, epoch=epoch, step=self.step,
                            steps_per_epoch=per_epoch, images_per_s=speed, lr=lr, train_loss=loss,
                            **{f"train_{task.metric}": metric},
                        )  # fmt: skip
                    tick = now
                due = config.checkpoint_steps and self.step % config.checkpoint_steps == 0
                # The checkpoint of the last step comes with its validation.
                stop = self._told_to_stop()
                if (stop or due) and number + 1 < per_epoch:
                    self._save()
                    if stop:
                        return
        self._settle()
        self._told_to_stop()
        if self.step < (epoch + 1) * per_epoch:
            raise RunError(
                f"the input ended after {self.step - epoch * per_epoch} of {per_epoch} steps of "
                f"epoch {epoch}"
            )
        self._finish_epoch(epoch, (per_epoch - done) * task.images_per_step, begun)

    def _step(self, batch, epoch: int) -> float:
        self.step += 1
        lr = self.task.schedule(self.step)
        self.task.trainer.set_learning_rate(lr)
        rng = np.random.default_rng([self.config.seed, self.step])
        # dropout; a worker's masks are its own
        mx.random.seed((int(rng.integers(2**31)) + self.workers.rank) % 2**31)
        sums = self.task.step(batch, epoch, rng)
        if self.workers.world_size > 1:
            told = mx.nd.full(1, self.signals.stop, ctx=sums.context)
            sums = self.workers.sum("sums", mx.nd.concat(sums, told, dim=0))
        self.sums.add(self.step, sums)
        if self.task.ema:
            self.task.ema.update(self.step - self.task.first_step)
        return lr

    def _told_to_stop(self) -> bool:
        """Say whether to stop after this step: all workers after the same one.

        A signal reaches them at different steps; they all read that of the same step.
        """
        if self.workers.world_size == 1:
            return self.signals.stop
        self.stop = self.stop or self.sums.stop
        return self.stop

    def _finish_epoch(self, epoch: int, images: int, begun: float) -> None:
        task, log = self.task, self.log
        loss, metric = self.sums.mean()
        trained = time.time()
        validation = task.validate(epoch) or {}
        seconds, speed = time.time() - begun, images / (trained - begun)
        self.judging = seconds - (trained - begun)
        log.info("[Epoch %d] training: %s=%f", epoch, task.metric, metric)
        log.info("[Epoch %d] speed: %d samples/sec\ttime cost: %f",
                 epoch, speed, seconds)  # fmt: skip
        improved = False
        if validation:
            log.info("[Epoch %d] validation: %s",
                     epoch, " ".join(f"{k}={v:f}" for k, v in validation.items()))  # fmt: skip
            score = next(iter(validation.values()))
            improved = self.best is None or score > self.best
            if improved:
                self.best, self.best_epoch = score, epoch
        row = {
            "lr": task.schedule(self.step),
            "train_loss": loss,
            f"train_{task.metric}": metric,
            **{f"val_{name}": value for name, value in validation.items()},
        }
        if self.writes:
            self.directory.add_metrics(
                step=self.step, epoch=epoch, seconds=round(seconds, 3), images=images,
                images_per_s=round(speed, 2), **row,
            )  # fmt: skip
            for name, value in row.items():
                self.board.add_scalar(name, value, epoch)
            draw_curves(self.directory.read_metrics(), self.directory.path / "curves.png")
        self.sums = _Sums(task.images_per_step)
        if improved:
            self._copy_weights("best", ema=False)
        if task.ema and task.ema.judge(validation, epoch):
            self._copy_average("best")
        frequency = self.config.save_frequency
        if frequency and (epoch + 1) % frequency == 0:
            self._copy_weights(f"{self.config.dataset}-{self.config.model_name}-{epoch:04d}")
        self._save()

    def _settle(self) -> None:
        """Read all sums and wait for the last update to end.

        In MXNet 1.9.1 the backward pass of batch normalisation writes the running statistics
        without the engine's knowledge: read before its end, they may be those of the step before.
        """
        self.sums.drain()
        mx.nd.waitall()

    def _save(self) -> None:
        self._settle()
        if self.writes:
            self._write_checkpoint()
        self.workers.barrier()  # nobody goes on before it is whole

    def _write_checkpoint(self) -> None:
        sums = {"loss": self.sums.loss, "metric": self.sums.metric, "steps": self.sums.steps}
        per_epoch = self.task.steps_per_epoch
        best_step = None if self.best_epoch is None else (self.best_epoch + 1) * per_epoch
        state = {"best": self.best, "best_epoch": self.best_epoch, "best_step": best_step,
                 "epoch": (self.step - 1) // per_epoch, "sums": sums, "seed": self.config.seed,
                 "lr": self.task.schedule(max(self.step, 1)),
                 "images_per_step": self.task.images_per_step}  # fmt: skip
        newest = latest(self.directory.checkpoints)
        if newest and newest.step == self.step:
            return
        broken = checkpoints.not_finite(self.task.net)
        if broken:  # the loss says so a step later, when the newest checkpoint is of no use
            raise _NotFiniteError(self.step, f"{broken} is not finite")
        folder = self.directory.checkpoints
        checkpoints.save(
            folder, self.step, self.task.net, self.task.trainer, state,
            texts=self.directory.texts(), ema=self.task.ema,
        )  # fmt: skip
        for damage in clean_up(folder, self.config.keep_last):
            self._event("fault", f"set aside {damage.checkpoint.path.name}: {damage.reason}")
            self.log.warning("set aside %s: %s", damage.checkpoint.path, damage.reason)

    def _copy_weights(self, name: str, *, ema: bool = True) -> None:
        if not self.writes:
            return
        with new_file(self.directory.path / f"{name}.params") as scratch:
            write_params(scratch, checkpoints.net_arrays(self.task.net))
        if ema and self.task.ema:
            self._copy_average(name)

    def _copy_average(self, name: str) -> None:
        if not self.writes:
            return
        with new_file(self.directory.path / f"{name}-ema.params") as scratch:
            write_params(scratch, self.task.ema.as_numpy())

    def _result(self, finished: bool) -> Result:
        name = "best.params" if self.best is not None else "last.params"
        if not finished and self.writes and not (self.directory.path / name).exists():
            name = str(latest(self.directory.checkpoints).params)
        return Result(
            str(self.directory.path), finished, self.step, self.best, self.best_epoch,
            str(self.directory.path / name),
        )  # fmt: skip


class _Signals:
    """Turn the first Ctrl-C or SIGTERM into a flag; a second Ctrl-C stops at once."""

    def __init__(self):
        self.stop = False
        self.name = ""
        self._before = {}

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
        self.stop, self.name = True, signal.Signals(number).name
