"""Decoding of whole and of damaged images, against OpenCV."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gluon_asymmnet.data.image_headers import PNG_START, image_info
from gluon_asymmnet.data.images import decode, encode
from gluon_asymmnet.errors import FormatError
from tests.record_files import QUARTER_TURN, bomb, jpeg, noise, png, with_exif


def test_decode_is_rgb():
    red = np.zeros((16, 24, 3), np.uint8)
    red[..., 0] = 255
    for image in (encode(red, ".jpg"), encode(red, ".png")):
        found = decode(image)
        assert found.shape == (16, 24, 3)
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - red).max() <= 2
    assert image_info(encode(red)) == ("jpeg", 24, 16, 3, 1)
    assert image_info(encode(red, ".png")) == ("png", 24, 16, 3, 1)


def test_decode_other_kinds_of_png():
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    np.testing.assert_array_equal(decode(png(grey)), np.stack([grey] * 3, -1))
    assert image_info(png(grey)).channels == 1
    deep = grey.astype(np.uint16) * 256 + 255  # upper byte as in grey
    np.testing.assert_array_equal(decode(png(deep)), np.stack([grey] * 3, -1))
    bgra = np.dstack([grey, grey + 1, grey + 2, grey * 5])
    np.testing.assert_array_equal(decode(png(bgra)), np.dstack([grey + 2, grey + 1, grey]))
    assert image_info(png(bgra)).channels == 4


def test_grey_jpeg():
    image = cv2.imencode(".jpg", np.full((8, 8), 77, np.uint8))[1].tobytes()
    assert image_info(image) == ("jpeg", 8, 8, 1, 1)
    assert (decode(image) == 77).all()


def test_exif_orientation_is_applied_as_opencv_does():
    image = with_exif(jpeg(), QUARTER_TURN)
    turned = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    assert turned.shape == (32, 24, 3)  # so the tag is one that OpenCV understands
    np.testing.assert_array_equal(decode(image), cv2.cvtColor(turned, cv2.COLOR_BGR2RGB))
    assert image_info(image) == ("jpeg", 24, 32, 3, 6)
    assert image_info(image).stored_size == (32, 24)


def test_truncated_jpeg_that_opencv_would_half_decode():
    image = jpeg()
    for cut in (2, 60, 200):
        with pytest.raises(FormatError, match="truncated"):
            decode(image[:-cut])
    preview = with_exif(image, b"Exif\0\0" + jpeg(1, height=8, width=8))  # it has an end marker
    decode(preview)
    with pytest.raises(FormatError, match="truncated JPEG: its end marker is missing"):
        decode(preview[:-20])
    decode(image + bytes(100))  # cameras and download tools pad


def test_damaged_png():
    image = bytearray(encode(noise(), ".png"))
    with pytest.raises(FormatError, match="truncated PNG"):
        decode(bytes(image[:-5]))
    image[len(image) // 2] ^= 1
    with pytest.raises(FormatError, match="damaged PNG: the checksum of chunk b'IDAT'"):
        decode(bytes(image))


def test_dimension_bombs():
    image = bytearray(jpeg())
    at = image.index(b"\xff\xc0") + 5
    image[at : at + 4] = b"\xff\xff\xff\xff"
    for bytes_, message in (
        (bytes(image), f"65535 x 65535 pixels; expected 1 to {512 * len(image)} from"),
        (bytes(image) + bytes(10**6), "65535 x 65535 pixels; expected 1 to 178956970 from"),
        (bomb(2**31, 2**31), "2147483648 x 2147483648 pixels; expected 1 to 371520 from 45 bytes"),
        (bomb(0, 5), "0 x 5 pixels"),
    ):
        with pytest.raises(FormatError, match=f"the header claims {message}"):
            decode(bytes_)


def test_the_flattest_images_are_not_bombs():
    """As few bytes per pixel as the encoders can make them."""
    flat = np.zeros((2000, 3000), np.uint8)
    options = [cv2.IMWRITE_JPEG_OPTIMIZE, 1, cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    options += [cv2.IMWRITE_JPEG_QUALITY, 1]
    assert decode(cv2.imencode(".jpg", flat, options)[1].tobytes()).max() <= 1
    options = [cv2.IMWRITE_PNG_BILEVEL, 1, cv2.IMWRITE_PNG_COMPRESSION, 9]
    assert decode(cv2.imencode(".png", flat, options)[1].tobytes()).max() == 0


@pytest.mark.parametrize(
    "image, message",
    [
        (b"", "an empty file: 0 bytes"),
        (b"GIF89a..", "a GIF, which is not supported; convert it"),
        (b"\xff\xd8\xff\xd9", "no segment gives its size|truncated"),
        (b"\xff\xd8\xff\xe0\x00\x01", "truncated or damaged JPEG: segment e0"),
        (PNG_START, "truncated PNG"),
        (bomb(5, 5), "does not decode"),
    ],
)
def test_what_is_not_an_image(image, message):
    with pytest.raises(FormatError, match=message):
        decode(image)


@settings(max_examples=60, deadline=None)
@given(
    at=st.integers(0, 1000), value=st.binary(max_size=6), encoding=st.sampled_from([".jpg", ".png"])
)
def test_damaged_images_never_raise_anything_else(at, value, encoding):
    image = bytearray(encode(noise(8, 8), encoding))
    at %= len(image)
    image[at : at + len(value)] = value
    try:
        assert decode(bytes(image)).dtype == np.uint8
    except FormatError as error:
        assert "\n" not in str(error)
