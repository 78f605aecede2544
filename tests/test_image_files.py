import cv2
import numpy as np
import pytest
from PIL import Image

from gluon_asymmnet.data.images import encode
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.evaluation.drawing import draw_caption
from gluon_asymmnet.predict.images import find_pictures, read_image


def picture(seed=0, height=40, width=30):
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height))


def test_pictures_of_every_kind(tmp_path):
    rgb = picture(height=48, width=64)
    kinds = {
        "rgb.png": Image.fromarray(rgb),
        "alpha.png": Image.fromarray(np.dstack([rgb, np.full(rgb.shape[:2], 9, np.uint8)])),
        "rgb.jpg": Image.fromarray(rgb),
        "cmyk.jpg": Image.fromarray(rgb).convert("CMYK"),
    }
    for name, image in kinds.items():
        image.save(tmp_path / name, quality=98)
        off = np.abs(read_image(tmp_path / name).astype(int) - rgb)
        assert off.mean() < (0.01 if name.endswith("png") else 2), name
    grey = rgb[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    for same in (grey, grey[:, :, None], tmp_path / "grey.png", np.dstack([grey] * 4)):
        np.testing.assert_array_equal(read_image(same), np.dstack([grey] * 3))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: a.swapaxes(0, 1)[:, ::-1]),
        (7, lambda a: a.swapaxes(0, 1)[::-1, ::-1]),
        (8, lambda a: a.swapaxes(0, 1)[::-1]),
    ],
)
def test_photographs_are_turned_upright(tmp_path, suffix, orientation, upright):
    """Source of the eight: EXIF 2.3 (JEITA CP-3451C), tag 0x0112."""
    stored, exif = picture(height=48, width=64), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / f"a{suffix}", exif=exif, quality=98)
    found = read_image(tmp_path / f"a{suffix}").astype(int)
    expected = upright(stored)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 2


def test_what_is_not_a_picture(tmp_path):
    whole = encode(picture())
    bad = {
        "empty.jpg": (b"", "an empty file: 0 bytes"),
        "text.jpg": (b"hello", "not a picture: it starts with 68656c6c6f"),
        "cut.jpg": (whole[: len(whole) // 2], "truncated or damaged JPEG"),
        "film.gif": (b"GIF89a" + bytes(20), "a GIF, which is not supported"),
    }
    for name, (content, message) in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FormatError, match=rf"{name}: [^\n]*{message}[^\n]*$"):
            read_image(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"none\.jpg: no such file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(InputError, match="is not a file"):
        read_image(tmp_path)
    for array in (np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8),
                  np.zeros((0, 4, 3), np.uint8)):  # fmt: skip
        with pytest.raises(InputError, match=r"an image must be \(H, W\), .* uint8, got"):
            read_image(array)


def test_folders_are_searched(tmp_path):
    for name in ("b/2.PNG", "b/a/1.jpeg", "b/notes.txt", "c.jpg", "e/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"")
    found = find_pictures(tmp_path / "b")
    assert [str(path.relative_to(tmp_path)) for path in found] == ["b/2.PNG", "b/a/1.jpeg"]
    with pytest.raises(InputError, match=r"e holds no \.jpg, \.jpeg, .* file"):
        find_pictures(tmp_path / "e")
    with pytest.raises(FileNotFoundError, match="none: no such folder"):
        find_pictures(tmp_path / "none")


@pytest.mark.parametrize("shape", [(300, 400), (20, 500), (500, 20), (1, 1)])
def test_text_stays_inside_the_image(shape):
    rgb = np.full((*shape, 3), 200, np.uint8)
    drawn = draw_caption(rgb, "Käse 12.3 %")
    assert drawn.shape == rgb.shape
    assert (rgb == 200).all()
    if min(shape) > 100:
        assert (drawn[:40] == 255).any()
        assert (drawn[:, -4:] <= 200).all()
        assert (drawn[-200:] == 200).all()
