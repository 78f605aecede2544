"""JPEGs decoded at a fraction of their size, by either decoder, on threads ahead of the net."""

import io
import itertools
import platform

import numpy as np
import pytest
from PIL import Image, ImageOps

from gluon_asymmnet.data import images
from gluon_asymmnet.data.images import decode
from gluon_asymmnet.errors import FormatError
from gluon_asymmnet.predict.images import prepared_batches, read_image
from tests.conftest import run_python
from tests.odd_pictures import odd_pictures, photograph

WIDTH, HEIGHT = 203, 149


def jpeg(mode="RGB", turn=1, size=(WIDTH, HEIGHT)):
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = turn
    Image.fromarray(photograph(*size)).convert(mode).save(out, "JPEG", quality=95, exif=exif)
    return out.getvalue()


def pillows(data, divisor):
    """Return what libjpeg's scaled decoding through Pillow gives, turned."""
    image = Image.open(io.BytesIO(data))
    image.draft(None, (image.width // divisor, image.height // divisor))
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_scaled_pictures_are_pillows_and_turned(mode, turn):
    data = jpeg(mode, turn)
    for shorter, divisor in ((75, 2), (38, 4), (19, 8), (1, 8), (76, 1), (39, 2), (20, 4), (0, 1)):
        found, expected = decode(data, shorter), pillows(data, divisor)
        assert found.shape == expected.shape
        assert np.abs(found.astype(int) - expected).max() <= 1
        assert found.shape[:2] == tuple(-(-side // divisor) for side in decode(data).shape[:2])


def test_scaled_cmyk_has_the_colours_of_the_whole_picture():
    data = jpeg("CMYK", 6)
    small, whole = decode(data, 38), decode(data)
    assert (small.shape, whole.shape) == ((51, 38, 3), (WIDTH, HEIGHT, 3))
    assert np.abs(small.mean((0, 1)) - whole.mean((0, 1))).max() < 2


@pytest.mark.parametrize("size", [(9, 300), (64, 63), (130, 40), (257, 255)])
def test_no_side_becomes_shorter_than_what_is_needed(size):
    data = jpeg(size=size)
    for shorter in range(1, 140):
        side = min(decode(data, shorter).shape[:2])
        assert side >= min(shorter, *size)
        assert side < 2 * shorter or side == -(-min(size) // 8)  # the next fraction is too small


def test_other_formats_and_arrays_keep_their_size():
    rgb = photograph(64, 48)
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "PNG")
    np.testing.assert_array_equal(decode(out.getvalue(), 8), rgb)
    assert read_image(rgb, 8).shape == rgb.shape


def test_simplejpeg_gives_opencvs_pixels(monkeypatch):
    pytest.importorskip("simplejpeg")
    pictures = {name: data for name, data in odd_pictures().items() if name.endswith(".jpg")}
    sizes = (0, 8, 40)
    found = {key: decode(pictures[key[0]], key[1]) for key in itertools.product(pictures, sizes)}
    monkeypatch.setattr(images, "simplejpeg", None)
    for (name, shorter), pixels in found.items():
        np.testing.assert_array_equal(decode(pictures[name], shorter), pixels, err_msg=name)


def test_batches_are_prepared_ahead_in_order_and_few():
    taken = []

    def each():
        for number in range(40):
            taken.append(number)
            yield np.full((2, 2, 3), number, np.uint8)

    batches = prepared_batches(each(), lambda image: image[0, 0], 8, threads=3)
    for number, batch in enumerate(batches):
        assert batch[:, 0].tolist() == list(range(8 * number, 8 * number + 8))
        assert len(taken) <= 8 * (number + 2)
    assert number == 4


def test_a_damaged_picture_among_others_is_the_error(tmp_path):
    for number in range(20):
        (tmp_path / f"{number:02}.jpg").write_bytes(jpeg(size=(16, 16)))
    (tmp_path / "09.jpg").write_bytes(jpeg(size=(16, 16))[:-200])
    batches = prepared_batches(sorted(tmp_path.iterdir()), read_image, 4, threads=2)
    assert [len(next(batches)) for _ in range(2)] == [4, 4]
    with pytest.raises(FormatError, match=r"09\.jpg: truncated JPEG"):
        next(batches)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
@pytest.mark.parametrize("variable", ["", "MALLOC_TRIM_THRESHOLD_"])
def test_images_take_the_memory_of_the_ones_before(variable):
    """Page faults of 150 arrays of 500,000 bytes, of 4,096 bytes each; not where the user chose."""
    code = (
        "import resource\n"
        "import numpy as np\n"
        "from gluon_asymmnet.utils.memory import keep_freed_memory\n"
        "keep_freed_memory()\n"
        "for _ in range(51):\n"
        "    images = [np.ones(500_000, np.uint8) for _ in range(3)]\n"
        "    del images\n"
        "    before = before if _ else resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    done = run_python("-c", code, **({variable: "0"} if variable else {}))
    assert done.returncode == 0, done.stderr
    assert (int(done.stdout) > 10_000) == bool(variable)
