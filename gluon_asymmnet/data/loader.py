"""Training batches from records or folders, in an order that a resumed run repeats.

An input yields the batches of one epoch; which images are in batch ``k`` of epoch ``e`` depends on
the seed, ``e`` and ``k`` alone.
"""

import contextlib
import functools
import itertools
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Callable, NamedTuple, Optional

import cv2
import numpy as np

from gluon_asymmnet.data.bad_records import LeftOut, SkippedRecords
from gluon_asymmnet.data.images import decode
from gluon_asymmnet.data.records.verify import label_error
from gluon_asymmnet.data.transforms import Augmentation, Normalization, training_image
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.utils.memory import keep_freed_memory
from gluon_asymmnet.utils.parallel import map_in_order

_PREFETCH = 3  # batches decoded ahead of the one in use
_CHUNK = 16  # images per call on a thread: a call costs as much as half of a small image


class Batch(NamedTuple):
    """One step's images, all devices together."""

    data: object  # (N, 3, H, W) float32, normalised; NumPy or MXNet array
    label: object  # (N,) float32


class Shard(NamedTuple):
    """Which part of every batch this worker reads."""

    index: int = 0
    count: int = 1


def epoch_order(
    images: int, steps: int, batch: int, seed: int, epoch: int, shard: Shard = Shard()
) -> np.ndarray:
    """Return ``(steps, batch)`` positions of one worker in one epoch.

    Over all workers each image comes at most once; the ``images - steps * batch * workers`` left
    over change from epoch to epoch.  Together the workers' batches of a step are the batch that one
    worker has for that step if its batch is as large.
    """
    order = np.random.default_rng([seed, epoch]).permutation(images)
    whole = order[: steps * batch * shard.count].reshape(steps, batch * shard.count)
    return whole[:, _columns(batch, shard)]


def _columns(batch: int, shard: Shard) -> np.ndarray:
    """Return which ``batch`` images of the whole batch are a worker's.

    Some from its first half and their mirror images from the second: mixup pairs the first with the
    last, so its pairs stay together.  With an odd ``batch`` one of the middle is left unpaired.
    """
    half, whole = batch // 2, batch * shard.count
    front = np.arange(half) + shard.index * half
    middle = half * shard.count + shard.index
    return np.concatenate([front, [middle] * (batch % 2), whole - 1 - front[::-1]]).astype(int)


def in_order(positions: Sequence[int], batch: int) -> list[Sequence[int]]:
    """Return rows of ``batch`` positions each; the last row may be shorter."""
    return [positions[first : first + batch] for first in range(0, len(positions), batch)]


def read_ahead(
    read: Callable, order, threads: int, new_row: Optional[Callable] = None
) -> Iterator[tuple[list, Optional[np.ndarray]]]:
    """Yield ``[read(position), ...]`` and None for each row of ``order``, read ahead on threads.

    Args:
        new_row: returns an array for so many positions.  Then ``read(position, out)`` gets the
            position's place in it, and the second of what is yielded is the array.
    """

    def read_chunk(chunk) -> list:
        return [read(*arguments) for arguments in zip(*chunk)]

    def chunks() -> Iterator[tuple]:
        for positions in order:
            row = new_row(len(positions)) if new_row else None
            rows.append(row)
            for i in range(0, len(positions), _CHUNK):
                part = slice(i, i + _CHUNK)
                yield (positions[part],) if row is None else (positions[part], row[part])

    # One OpenCV thread per image: the pool already fills the processors.
    cv2.setNumThreads(0)
    keep_freed_memory()
    rows: deque = deque()  # of the rows that are begun and not yet yielded
    rows_ahead = 1 + _PREFETCH
    ahead = rows_ahead * max((-(-len(row) // _CHUNK) for row in order[:1]), default=1)
    alone = len(order) == 1 and len(order[0]) == 1  # a thread would only add its start
    found = (
        (read_chunk(chunk) for chunk in chunks())
        if alone
        else map_in_order(read_chunk, chunks(), threads, ahead=ahead)
    )
    with contextlib.closing(found) as results:
        for positions in order:
            parts = itertools.islice(results, -(-len(positions) // _CHUNK))
            samples = list(itertools.chain.from_iterable(parts))
            yield samples, rows.popleft()


def read_usable(
    read: Callable, order: np.ndarray, first_row: int, threads: int, skipped: SkippedRecords,
    before: int = 0, new_row: Optional[Callable] = None,
) -> Iterator[tuple[list, Optional[np.ndarray]]]:  # fmt: skip
    """Yield the samples of each row of an epoch's order from ``first_row`` on, as ``read_ahead``.

    For a record that cannot be used the next usable one of the epoch's order stands in, on the
    random numbers of the one it replaces: which one is a function of the order and the file alone,
    not of threads or of what ran before.  What is counted is counted here, row by row, for the
    same reason.

    Args:
        read: called with the position to read and the position that gives the random numbers;
            raises FormatError if the record cannot be used.
        before: updates before the epoch.
        new_row: as in ``read_ahead``; ``out`` is the third argument of ``read``.

    Raises: FormatError for one record more than ``skipped`` allows, or if none can be used.
    """
    flat = order.ravel()

    def sample_at(place: int, *out):
        bad = []
        for i in range(flat.size):
            position = flat[(place + i) % flat.size]
            try:
                return read(position, flat[place], *out), bad
            except FormatError as error:
                bad.append((int(position), str(error)))
            if len(bad) > skipped.limit:
                break
        return None, bad

    places = np.arange(flat.size).reshape(order.shape)[first_row:]
    rows = read_ahead(sample_at, places, threads, new_row)
    for row, (found, array) in enumerate(rows, first_row):
        for sample, bad in found:
            for position, reason in bad:
                skipped.add(before + row + 1, position, reason)
            if sample is None:
                raise FormatError(f"none of the {flat.size} records of the epoch can be used")
        yield [sample for sample, _ in found], array


def read_validation(
    read: Callable, order: Sequence[Sequence[int]], threads: int, left_out: Optional[LeftOut] = None
) -> Iterator[list]:
    """Yield ``[read(position), ...]`` for each row of ``order``, without damaged images.

    Rows become shorter; an empty row is not yielded.

    Args:
        read: called with a position; raises FormatError if the image cannot be used.
        left_out: takes the damaged images; without it the first one is an error.

    Raises: FormatError for more damaged images than ``left_out`` takes, or if none can be used.
    """

    def attempt(position: int):
        try:
            return read(position), None
        except FormatError as error:
            return None, error

    empty = True
    for positions, (found, _) in zip(order, read_ahead(attempt, order, threads)):
        for position, (_, error) in zip(positions, found):
            if error is None:
                continue
            if left_out is None:
                raise error
            left_out.add(position, str(error))
        samples = [sample for sample, error in found if error is None]
        if samples:
            empty = False
            yield samples
    if order and empty:
        raise FormatError(f"none of the {sum(map(len, order))} images can be used")


class _Generators(threading.local):
    """A random generator per thread, which is set to each image's part of an epoch's stream.

    Philox is counter-based: setting its counter takes a microsecond, seeding a generator ten.
    """

    def __init__(self):
        self._philox = np.random.Philox()
        self._generator = np.random.Generator(self._philox)
        self._state = self._philox.state

    def at(self, key: np.ndarray, position: int) -> np.random.Generator:
        """Return the generator with this key, ``(2,)`` uint64, at 2**128 times the position."""
        state = self._state
        state["state"] = {"key": key, "counter": np.array([0, 0, position, 0], np.uint64)}
        state["buffer_pos"], state["has_uint32"] = 4, 0  # nothing is left of the last image
        self._philox.state = state
        return self._generator


class ThreadedInput:
    """Read, decode and augment with OpenCV on threads.

    Every image has its own random numbers, a function of ``(seed, epoch, position)``, so batches
    are bit-equal for any number of threads, and an epoch can start at any step.

    Args:
        source: as ``data.sources`` has them.
        classes: labels must be below; None: only whole numbers.
        skipped: counts the records that cannot be used; by default the first one is an error.
    """

    def __init__(
        self,
        source,
        batch_size: int,
        size: int,
        *,
        steps: int,
        augmentation: Augmentation = Augmentation(),
        normalization: Normalization = Normalization(),
        seed: int = 0,
        threads: int = 4,
        shard: Shard = Shard(),
        classes: Optional[int] = None,
        skipped: Optional[SkippedRecords] = None,
    ):
        self.source, self.batch_size, self.size = source, batch_size, size
        self.augmentation, self.normalization = augmentation, normalization
        self.seed, self.threads, self.shard = seed, threads, shard
        self.steps, self.classes = steps, classes
        self._generators = _Generators()
        self.skipped = SkippedRecords() if skipped is None else skipped

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from step ``first_step`` on."""
        order = epoch_order(
            len(self.source), self.steps, self.batch_size, self.seed, epoch, self.shard
        )
        key = np.random.SeedSequence([self.seed, epoch, 1]).generate_state(2, np.uint64)
        rows = read_usable(
            functools.partial(self._image, key), order, first_step, self.threads, self.skipped,
            before=epoch * self.steps, new_row=self._new_row,
        )  # fmt: skip
        for labels, images in rows:
            yield Batch(images, np.asarray(labels, np.float32))

    def _new_row(self, images: int) -> np.ndarray:
        return np.empty((images, 3, self.size, self.size), np.float32)

    def _image(self, key: np.ndarray, position: int, drawn_for: int, out: np.ndarray) -> float:
        """Write an image to its place in the batch; return its label."""
        record = self.source.read(position)
        try:
            rgb = decode(record.image)
            if fault := label_error(record.label, self.classes):
                raise FormatError(fault)
        except FormatError as error:
            raise FormatError(f"{self.source.name(position)}: {error}") from None
        rng = self._generators.at(key, drawn_for)
        training_image(rgb, self.size, self.augmentation, self.normalization, rng, out)
        return record.label


class RecordIterInput:
    """MXNet's ImageRecordIter, the authors' reader, rebuilt for each epoch.

    Rebuilding is what makes its order follow the epoch: ``reset`` goes on where the last pass
    wrapped, and a resumed run would start with the first epoch's order.  Its augmentation draws
    from one generator per decoding thread.  Their seeds are constants: every epoch and every
    ``seed`` has the same draws, place by place, and only one thread repeats exactly.  A start in
    mid-epoch decodes and drops the batches before.

    It cannot leave a record out: at an image that does not decode it stops without saying which,
    one that is cut off it passes on with the rest grey, and a damaged frame ends the process, from
    a thread where nothing can catch it (``check_labels`` looks at every frame before).

    Args:
        idx: the index; "": the .idx beside ``rec``.
        new_labels: see ``data.sources``.
    """

    def __init__(
        self,
        rec: str,
        idx: str,
        batch_size: int,
        size: int,
        *,
        steps: int,
        augmentation: Augmentation = Augmentation(),
        normalization: Normalization = Normalization(),
        seed: int = 0,
        threads: int = 4,
        shard: Shard = Shard(),
        new_labels: Optional[Sequence[int]] = None,
    ):
        if augmentation.operations or augmentation.erasing or augmentation.further:
            raise InputError("ImageRecordIter has neither RandAugment nor random erasing, nor own")
        self.steps, self.seed, self._new_labels = steps, seed, new_labels
        idx = os.fspath(idx) or os.path.splitext(os.fspath(rec))[0] + ".idx"
        if not os.path.exists(idx):
            raise InputError(
                f"{idx}: no such index, which MXNet's reader needs: `asymmnet records repair {rec} "
                f"NEW.rec` writes a copy with one; --data-backend opencv reads without"
            )
        jitter, (low, high) = augmentation.jitter, augmentation.aspect
        self._arguments = dict(
            path_imgrec=os.fspath(rec), path_imgidx=os.fspath(idx), preprocess_threads=threads,
            shuffle=True, batch_size=batch_size, data_shape=(3, size, size), label_width=1,
            num_parts=shard.count, part_index=shard.index,
            **dict(zip(("mean_r", "mean_g", "mean_b"), normalization.mean)),
            **dict(zip(("std_r", "std_g", "std_b"), normalization.std)),
            rand_mirror=augmentation.mirror, random_resized_crop=True,
            min_random_area=augmentation.min_area, max_random_area=1.0,
            min_aspect_ratio=low, max_aspect_ratio=high,
            brightness=jitter, contrast=jitter, saturation=jitter,
            pca_noise=augmentation.pca_noise, verbose=False,
        )  # fmt: skip

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from step ``first_step`` on."""
        from gluon_asymmnet._mxnet import mx

        seed = int(np.random.default_rng([self.seed, epoch]).integers(2**31))
        with self._naming_damage():
            batches = mx.io.ImageRecordIter(**self._arguments, seed=seed)
        for step in range(self.steps):
            with self._naming_damage():
                batch = next(batches, None)
            if batch is None:
                return
            if step >= first_step:
                label = batch.label[0]
                if self._new_labels is not None:
                    label = mx.nd.take(mx.nd.array(self._new_labels), label)
                yield Batch(batch.data[0], label)

    @contextlib.contextmanager
    def _naming_damage(self) -> Iterator[None]:
        """Say in one line what MXNet says in a stack."""
        from gluon_asymmnet._mxnet import mx

        try:
            yield
        except mx.base.MXNetError as error:
            said = " ".join(str(error).split())[-200:]
            raise FormatError(
                f"{self._arguments['path_imgrec']}: MXNet's reader stopped, mostly at a damaged "
                f"record: find it with `asymmnet records verify` (...{said})"
            ) from None
