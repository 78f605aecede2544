"""The demo set of handwritten digits."""

import sys

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

from gluon_asymmnet.data import digits as demo
from gluon_asymmnet.data.images import decode
from gluon_asymmnet.data.records import stats, verify
from gluon_asymmnet.data.records.recordio import RecordFile
from gluon_asymmnet.errors import InputError


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return demo.write_digits(tmp_path_factory.mktemp("demo") / "digits")


def test_numbers(digits):
    """Per digit a quarter of scikit-learn's counts, rounded up or down."""
    counts = {part: stats.stats(digits.root / f"{part}.rec") for part in ("train", "val")}
    assert counts["train"].records == 1348
    assert counts["val"].records == 449
    everything = np.array([178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    assert everything.sum() == 1797
    val = np.array([c.records for c in counts["val"].classes])
    assert (np.abs(val - everything / 4) < 1).all()
    np.testing.assert_array_equal(val + [c.records for c in counts["train"].classes], everything)
    for found in counts.values():
        assert found.width == found.height == (32, 32, 32)
        assert found.channels == {3: found.records}
        assert [c.name for c in found.classes] == list("0123456789")


def test_files_are_jpegs_of_the_digits(digits):
    """Shrunk back to 8 x 8, each picture is nearest to the digit it was made from."""
    source = load_digits()
    paths = sorted((digits.root / "images").glob("*/*/*.jpg"), key=lambda path: path.stem)
    assert [int(path.stem) for path in paths] == list(range(1797))
    assert [int(path.parent.name) for path in paths] == source.target.tolist()
    small = np.stack([
        cv2.resize(decode(path.read_bytes())[:, :, 0], (8, 8), interpolation=cv2.INTER_AREA)
        for path in paths[::20]
    ])  # fmt: skip
    pixels = source.images.reshape(1797, 64) * 255 / 16
    distance = ((small.reshape(-1, 1, 64) - pixels) ** 2).sum(-1)
    assert distance.argmin(1).tolist() == list(range(0, 1797, 20))


def test_records_are_the_files(digits):
    assert verify.verify(digits.train) == (1348, [], 0)
    lines = (digits.root / "val.lst").read_text().splitlines()
    with RecordFile(digits.val) as file:
        for i in (0, 200, 448):
            path = digits.root / "images" / "val" / lines[i].split("\t")[2]
            assert file.read(i) == (i, int(path.parent.name), path.read_bytes())


def test_train_is_shuffled(digits):
    with RecordFile(digits.train) as file:
        assert len({file.label(i) for i in range(40)}) == 10


@pytest.mark.thorough
def test_same_seed_same_bytes(digits, tmp_path):
    again = demo.write_digits(tmp_path / "again")
    assert again.train.read_bytes() == digits.train.read_bytes()
    other = demo.write_digits(tmp_path / "other", seed=1, size=8)
    assert (other.root / "val.lst").read_bytes() != (digits.root / "val.lst").read_bytes()


def test_existing_folder(digits, tmp_path):
    assert demo.write_digits(digits.root, exist_ok=True) == digits
    with pytest.raises(InputError, match="digits exists; remove it, name another folder, or"):
        demo.write_digits(digits.root)
    with pytest.raises(InputError, match="made with size 32 and seed 0, not 64 and 0; remove it"):
        demo.write_digits(digits.root, size=64, exist_ok=True)
    (tmp_path / "precious.txt").touch()
    with pytest.raises(InputError, match="exists and is not a complete demo set"):
        demo.write_digits(tmp_path, exist_ok=True)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_damaged_set_is_not_reused(tmp_path):
    made = demo.write_digits(tmp_path / "a", size=8)
    made.val.write_bytes(made.val.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"is not a complete demo set .*val\.rec"):
        demo.write_digits(tmp_path / "a", size=8, exist_ok=True)


def test_nothing_is_left_after_an_exception(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo.build, "build", full)
    with pytest.raises(OSError, match="No space left"):
        demo.write_digits(tmp_path / "a" / "digits")
    assert list((tmp_path / "a").iterdir()) == []


def test_size_out_of_range(tmp_path):
    with pytest.raises(InputError, match="size must be 8 to 4096 pixels, got 7"):
        demo.write_digits(tmp_path / "a", size=7)


def test_without_scikit_learn(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"pip install gluon_asymmnet\[demo\]"):
        demo.write_digits(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
