import numpy as np
import pytest

from gluon_asymmnet.data.constants import IMAGENET_MEAN, IMAGENET_STD
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.data.loader import (
    RecordIterInput,
    Shard,
    ThreadedInput,
    epoch_order,
    read_ahead,
)
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.data.sources import FolderTree, check_labels, open_source
from gluon_asymmnet.data.transforms import Augmentation
from gluon_asymmnet.errors import FormatError, InputError

PLAIN = Augmentation(min_area=1, aspect=(1, 1), mirror=False, jitter=0, pca_noise=0)


def batches(source, epoch=0, first=0, *, steps=5, threads=2, seed=0, how=Augmentation(), **kwargs):
    made = ThreadedInput(
        source, 8, 32, steps=steps, seed=seed, threads=threads, augmentation=how, **kwargs
    )
    return list(made.epoch(epoch, first))


def equal(a, b):
    return len(a) == len(b) and all(
        np.array_equal(x.data, y.data) and np.array_equal(x.label, y.label) for x, y in zip(a, b)
    )


@pytest.fixture(scope="module")
def source(digits):
    return open_source(rec=digits.train)


def test_batches_do_not_depend_on_the_number_of_threads(source):
    assert equal(batches(source, threads=1), batches(source, threads=5))


def test_an_epoch_can_start_at_any_step(source):
    assert equal(batches(source)[3:], batches(source, first=3))


def test_random_numbers_are_numpys_philox(source):
    """The generator of a thread, whatever it gave before, at the counter of an image."""
    made = ThreadedInput(source, 8, 32, steps=1)
    key = np.array([3, 2**63 + 1], np.uint64)
    for position in (0, 7, 2**40, 7):
        found = made._generators.at(key, position)
        philox = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, position, 0]))
        assert found.random(5).tolist() == philox.random(5).tolist()
        assert found.integers(9, size=3).tolist() == philox.integers(9, size=3).tolist()


def test_a_batch_is_one_array_of_its_own(source):
    first, second = batches(source, steps=2)
    assert first.data.shape == (8, 3, 32, 32) and first.data.flags.c_contiguous
    assert not np.shares_memory(first.data, second.data)


def test_a_resumed_run_with_other_threads_repeats_every_augmentation(source):
    how = Augmentation(operations=2, erasing=0.5, further=("3-augment",))
    whole = batches(source, epoch=2, how=how, threads=1)
    assert equal(whole[2:], batches(source, epoch=2, first=2, how=how, threads=3))


def test_epochs_and_seeds_differ(source):
    first = batches(source)
    assert not equal(first, batches(source, epoch=1))
    assert not equal(first, batches(source, seed=1))
    assert equal(first, batches(source))


def test_order_by_hand():
    """103 images, 3 workers, batches of 8: 4 steps each, 96 different images, 7 left over."""
    parts = [epoch_order(103, 4, 8, 0, 5, Shard(i, 3)) for i in range(3)]
    assert all(p.shape == (4, 8) for p in parts)
    assert len(set(np.concatenate(parts).ravel())) == 96
    over = [set(range(103)) - set(epoch_order(103, 12, 8, 0, e).ravel()) for e in range(4)]
    assert all(len(o) == 7 for o in over)
    assert len(set.union(*over)) > 7  # not the same ones left out in every epoch
    odd = [epoch_order(103, 4, 7, 0, 5, Shard(i, 3)) for i in range(3)]
    assert len(set(np.concatenate(odd).ravel())) == 84


def test_three_batches_are_read_ahead_of_the_one_in_use():
    begun = []

    def new_row(images):
        begun.append(images)
        return np.empty(images)

    order = [range(16 * i, 16 * i + 16) for i in range(9)]
    rows = read_ahead(lambda position, out: position, order, 2, new_row)
    assert next(rows)[0] == list(order[0])
    assert len(begun) == 4
    assert next(rows)[0] == list(order[1])
    assert len(begun) == 5
    rows.close()


def test_without_augmentation_the_record_itself_arrives(source):
    batch = batches(source, how=PLAIN, steps=1)[0]
    i = int(epoch_order(len(source), 1, 8, 0, 0)[0, 0])
    from gluon_asymmnet.data.images import decode
    from gluon_asymmnet.data.transforms import Normalization

    record = source.read(i)
    np.testing.assert_array_equal(batch.data[0], Normalization()(decode(record.image)))
    assert batch.label[0] == record.label


def test_folders_give_what_their_records_give(digits, source):
    tree = FolderTree(digits.root / "images/train")
    assert tree.class_names == source.class_names
    assert len(tree) == len(source)
    assert sorted(tree.read(i).image for i in range(len(tree))) == sorted(
        source.read(i).image for i in range(len(source))
    )


def test_a_damaged_image_is_named(tmp_path):
    with RecordWriter(tmp_path / "a.rec", tmp_path / "a.idx") as writer:
        for i in range(8):
            writer.write(i, 0.0, b"\xff\xd8 no jpeg")
    with pytest.raises(FormatError, match=r"a\.rec, record \d.*asymmnet records verify"):
        batches(open_source(rec=tmp_path / "a.rec"), steps=1)


def record_iter(digits, seed=0, threads=1, steps=6, **kwargs):
    return RecordIterInput(
        digits.train, digits.train.with_suffix(".idx"), 16, 32, steps=steps, seed=seed,
        threads=threads, **kwargs,
    )  # fmt: skip


def arrays(iterator):
    return [(b.data.asnumpy(), b.label.asnumpy()) for b in iterator]


def same(a, b):
    return len(a) == len(b) and all(
        np.array_equal(x, y) for p, q in zip(a, b) for x, y in zip(p, q)
    )


def test_record_iter_repeats_and_resumes_with_one_thread(digits):
    made = record_iter(digits)
    first = arrays(made.epoch(3))
    assert len(first) == 6
    assert same(first, arrays(record_iter(digits).epoch(3)))
    assert same(first[4:], arrays(record_iter(digits).epoch(3, 4)))


def test_record_iter_has_a_new_order_in_every_epoch(digits):
    labels = [
        np.concatenate([y for _, y in arrays(record_iter(digits).epoch(e))]) for e in range(3)
    ]
    assert not np.array_equal(labels[0], labels[1])
    assert not np.array_equal(labels[1], labels[2])
    other = np.concatenate([y for _, y in arrays(record_iter(digits, seed=1).epoch(0))])
    assert not np.array_equal(labels[0], other)


def equal_images(folder, rgb=None):
    """Return a record file of 32 copies of one picture: batches differ by the draws alone."""
    if rgb is None:
        rgb = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    with RecordWriter(folder / "a.rec", folder / "a.idx") as writer:
        for i in range(32):
            writer.write(i, 0.0, encode(rgb, ".png"))
    return folder / "a.rec"


def test_only_our_draws_follow_seed_and_epoch(tmp_path):
    rec = equal_images(tmp_path)
    idx = rec.with_suffix(".idx")

    def ours(seed, epoch):
        made = ThreadedInput(open_source(rec=rec), 16, 16, steps=2, seed=seed)
        return np.concatenate([batch.data for batch in made.epoch(epoch)])

    def theirs(seed, epoch):
        made = RecordIterInput(rec, idx, 16, 16, steps=2, seed=seed, threads=1)
        return np.concatenate([batch.data.asnumpy() for batch in made.epoch(epoch)])

    assert np.array_equal(theirs(0, 0), theirs(5, 3))
    draws = np.concatenate([ours(0, 0), ours(0, 1), ours(5, 0)])
    assert len(np.unique(draws, axis=0)) == len(draws)
    assert np.array_equal(ours(5, 3), ours(5, 3))


def test_both_readers_crop_parts_of_random_size_and_shape(tmp_path):
    """From a ramp, the smallest and largest pixel tell each crop's place and width."""
    ramp = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[None, :, None], 24, 0).repeat(3, 2)
    rec = equal_images(tmp_path, ramp)
    how = PLAIN._replace(min_area=0.1, aspect=(0.5, 2))
    ours = ThreadedInput(open_source(rec=rec), 16, 16, steps=2, augmentation=how)
    theirs = RecordIterInput(rec, rec.with_suffix(".idx"), 16, 16, steps=2, augmentation=how)
    for made in (ours, theirs):
        images = np.concatenate([_numpy(batch.data) for batch in made.epoch(0)])[:, 0]
        widths = images.max((1, 2)) - images.min((1, 2))
        assert len({round(float(width), 2) for width in widths}) > 5
        assert widths.max() > 2 * widths.min()


def test_record_iter_and_ours_agree_without_augmentation(digits, source):
    """Same images, another order: the sets of pictures of one whole epoch are equal."""
    steps = len(source) // 16
    theirs = record_iter(digits, steps=steps, augmentation=PLAIN)
    ours = ThreadedInput(source, 16, 32, steps=steps, augmentation=PLAIN)

    def labels(made):
        found = {}
        for batch in made.epoch(0):
            for image, label in zip(_numpy(batch.data), _numpy(batch.label)):
                rgb = image.transpose(1, 2, 0) * IMAGENET_STD + IMAGENET_MEAN
                found[np.round(rgb).astype(np.uint8).tobytes()] = float(label)
        return found

    a, b = labels(theirs), labels(ours)
    shared = set(a) & set(b)
    assert len(shared) > 0.98 * len(a)  # each leaves out 4 of 1,348
    assert all(a[k] == b[k] for k in shared)


def _numpy(array):
    return array if isinstance(array, np.ndarray) else array.asnumpy()


def test_labels_are_checked(tmp_path, source):
    assert check_labels(source).classes == 10
    with pytest.raises(
        InputError, match=r"label (\d) \('\1'\) is not one of the 5 classes \(0 to 4\); \d+ of"
    ):
        check_labels(source, 5)
    with RecordWriter(tmp_path / "m.rec", tmp_path / "m.idx") as writer:
        writer.write(0, [1.0, 2.0], b"x")
    with pytest.raises(InputError, match="has 2 labels; a classifier takes one"):
        check_labels(open_source(rec=tmp_path / "m.rec"))
