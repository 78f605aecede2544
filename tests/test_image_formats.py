"""Every picture format that OpenCV decodes, and the EXIF rotation; Pillow is the reference."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from gluon_asymmnet.data.image_headers import image_info
from gluon_asymmnet.data.images import decode, encode, fit_image, resize_shorter_side
from gluon_asymmnet.data.transforms import validation_crop
from gluon_asymmnet.errors import FormatError

LOSSLESS = {  # format of Pillow -> its options
    "BMP": {}, "PNG": {}, "TIFF": {}, "PPM": {}, "WEBP": {"lossless": True},
    "JPEG2000": {"irreversible": False},
}  # fmt: skip
ROTATED = {"JPEG": {"quality": 95}, "PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}


def picture(height=24, width=40):
    coarse = np.random.default_rng(1).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def saved(rgb, form, **options):
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, form, **options)
    return out.getvalue()


@pytest.mark.parametrize("form", LOSSLESS)
@pytest.mark.parametrize("grey", [False, True])
def test_formats(form, grey):
    rgb = picture()[:, :, 0] if grey else picture()
    data = saved(rgb, form, **LOSSLESS[form])
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode(data), expected)
    assert image_info(data)[1:3] == (40, 24)
    for cut in (20, len(data) // 2, len(data) - 8):
        with pytest.raises(FormatError):
            decode(data[:cut])


def test_sun_raster_and_lossy_webp():
    rgb = picture()
    data = cv2.imencode(".ras", rgb[:, :, ::-1])[1].tobytes()
    np.testing.assert_array_equal(decode(data), rgb)
    assert image_info(data)[:3] == ("ras", 40, 24)
    data = saved(rgb, "WEBP", quality=80)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.abs(decode(data).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("form", ROTATED)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotation_of_every_format_is_pillows(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(picture(), form, exif=exif, **ROTATED[form])
    seen = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    expected = np.asarray(seen.convert("RGB")).astype(int)
    found = decode(data)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= (3 if form == "JPEG" else 0)
    info = image_info(data)
    assert (info.width, info.height) == seen.size
    assert (info.stored_size, info.orientation) == ((40, 24), orientation)


@pytest.mark.parametrize("resize", [0, 12, 24])
def test_stored_pictures_are_turned_and_have_no_tag(resize):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(picture(), "JPEG", exif=exif, quality=95)
    stored = fit_image(data, resize, ".jpg", 95)
    assert image_info(stored).orientation == 1
    assert image_info(stored)[1:3] == ((12, 20) if resize == 12 else (24, 40))
    expected = resize_shorter_side(decode(data), resize or 24)
    np.testing.assert_array_equal(decode(stored), decode(encode(expected)))
    upright = saved(picture(), "JPEG", quality=95)
    assert fit_image(upright, 0, ".jpg", 95) is upright


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"GIF89a", "a GIF"),
        (b"\0\0\0\x20ftypheic", "an HEIC"),
        (b"\0\0\0\x20ftypavif", "an AVIF"),
        (b"P7\nWIDTH 4", "a PAM"),
    ],
)
def test_formats_refused_by_name(start, name):
    with pytest.raises(FormatError, match=f"^{name}.* is not supported; convert it to JPEG or PNG"):
        decode(start + bytes(40))


def test_pixels_that_are_not_colours_are_refused():
    with pytest.raises(FormatError, match="TIFF of floating or 32-bit numbers"):
        decode(saved(picture()[:, :, 0].astype(np.float32), "TIFF"))
    frames = [Image.fromarray(picture()), Image.fromarray(picture()[::-1])]
    out = io.BytesIO()
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:])
    with pytest.raises(FormatError, match="animated WebP"):
        decode(out.getvalue())


def test_a_strip_that_cannot_be_resized():
    strip = np.zeros((4, 20_000, 3), np.uint8)
    message = "too narrow: 20000 x 4 pixels become 1280000 x 256; expected at most 32767 a side"
    with pytest.raises(FormatError, match=message):
        validation_crop(strip, 224, 0.875)
    with pytest.raises(FormatError, match=message):
        fit_image(encode(strip, ".png"), 256, ".jpg", 95)
    assert validation_crop(strip[:, :500], 224, 0.875).shape == (224, 224, 3)
