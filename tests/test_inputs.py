"""What ``predict`` and ``detect`` read: files, folders, patterns, videos, URLs, cameras, stdin."""

import io
import itertools
import signal
import struct
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest

from gluon_asymmnet.cli.images import batches
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.errors import FormatError, InputError, RunError
from gluon_asymmnet.predict import inputs, web
from gluon_asymmnet.predict.images import read_image
from gluon_asymmnet.predict.inputs import (
    Frame,
    Input,
    Reading,
    count_frames,
    find_inputs,
    read_frames,
)
from gluon_asymmnet.predict.video import Video
from gluon_asymmnet.predict.web import fetch_picture
from tests.conftest import ROOT
from tests.videos import photo, place_of, serve, shade, write_video


def read(*arguments, **options):
    return list(read_frames(find_inputs(arguments), Reading(**options)))


def problem(*arguments):
    (frame,) = read(*arguments)
    assert frame.rgb is None
    assert "\n" not in frame.problem
    return frame.problem


# --- Files, folders, patterns --------------------------------------------------------------------


def test_files_folders_and_patterns(tmp_path, monkeypatch):
    for name in ("b/2.PNG", "b/a/1.jpeg", "b/v.MP4", "b/.hidden.jpg", "b/notes.txt", "c[1].jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    found = find_inputs(["c[1].jpg", "b", "b/*", "**/*.jpeg"])
    assert [one.shown for one in found] == [
        "c[1].jpg", "b/2.PNG", "b/a/1.jpeg", "b/v.MP4", "b/2.PNG", "b/v.MP4", "b/a/1.jpeg",
    ]  # fmt: skip
    assert [str(one.target) for one in found] == [
        "c[1].jpg", "b/2.PNG", "b/a/1.jpeg", "b/v.MP4", "2.PNG", "v.MP4", "1.jpeg",
    ]  # fmt: skip
    assert [one.kind for one in found].count("video") == 2
    assert [one.kind for one in find_inputs(["0", "-", "http://h/a"])] == ["camera", "stdin", "url"]
    (tmp_path / "0").write_bytes(b"")
    assert find_inputs(["0"])[0].kind == "picture"
    for given, message in (("none.jpg", "none.jpg: no such file"), ("*.tif", "no picture or vid")):
        with pytest.raises(FileNotFoundError, match=message):
            find_inputs([given])
    with pytest.raises(InputError, match="given twice"):
        find_inputs(["-", "-"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no"):
        find_inputs(["empty"])


def test_pictures_come_in_order_and_turned(tmp_path):
    for number in range(9):
        data = encode(shade(number))
        (tmp_path / f"{number}.jpg").write_bytes(photo(shade(4), 6) if number == 4 else data)
    (tmp_path / "5.jpg").write_bytes(b"\xff\xd8\xff")
    frames = read(tmp_path)
    assert [frame.input.source.name for frame in frames] == [f"{n}.jpg" for n in range(9)]
    assert [n for n, frame in enumerate(frames) if frame.rgb is None] == [5]
    assert frames[5].problem.startswith(f"{tmp_path}/5.jpg: truncated JPEG")
    assert frames[4].rgb.shape == (64, 48, 3)
    np.testing.assert_array_equal(frames[4].rgb, read_image(tmp_path / "4.jpg"))
    assert place_of(frames[7].rgb) == 7


def test_few_pictures_are_decoded_ahead(tmp_path, monkeypatch):
    paths = []
    for number in range(30):
        paths.append(tmp_path / f"{number:02}.png")
        paths[-1].write_bytes(b"")
    started = itertools.count()
    monkeypatch.setattr(inputs, "read_image", lambda path, shorter: next(started))
    frames = read_frames(find_inputs(paths))
    for taken in range(1, 20):
        next(frames)
        assert int(repr(started)[6:-1]) <= taken + 4
    frames.close()


# --- Videos --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_frames_of_a_video(tmp_path, suffix):
    path = write_video(tmp_path / f"clip{suffix}")
    frames = read(path)
    assert [frame.number for frame in frames] == list(range(10))
    assert [frame.seconds for frame in frames] == pytest.approx([n / 5 for n in range(10)])
    assert [place_of(frame.rgb) for frame in frames] == list(range(10))
    assert np.abs(frames[0].rgb.astype(int) - shade(0)).mean() < 6  # red is red
    assert frames[0].rate == pytest.approx(5)
    thirds = read(path, every=3)
    assert [(f.number, place_of(f.rgb), f.seconds) for f in thirds] == [
        (0, 0, 0.0), (3, 3, 0.6), (6, 6, 1.2), (9, 9, 1.8)
    ]  # fmt: skip
    assert thirds[0].rate == pytest.approx(5 / 3)
    assert count_frames(find_inputs([path]), 3) == 4


def test_odd_sides_keep_all_pixels(tmp_path):
    path = write_video(tmp_path / "odd.mp4", 2, size=(63, 47))
    assert [frame.rgb.shape for frame in read(path)] == [(48, 64, 3)] * 2


def test_a_video_is_turned(tmp_path):
    """The matrix of an MP4's track: a quarter turn clockwise, as telephones write it."""
    path = write_video(tmp_path / "a.mp4", 3)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8  # version 0, ISO/IEC 14496-12, 8.3.2
    assert struct.unpack_from(">9i", data, at)[::4] == (0x10000, 0x10000, 0x40000000)
    struct.pack_into(">9i", data, at, 0, 0x10000, 0, -0x10000, 0, 0, 48 << 16, 0, 0x40000000)
    path.write_bytes(data)
    rgb = read(path)[1].rgb
    assert rgb.shape == (64, 48, 3)
    assert place_of(np.rot90(rgb)) == 1


def test_damaged_videos(tmp_path):
    whole = write_video(tmp_path / "a.mkv", 40).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    frames = read(tmp_path / "cut.mkv")
    assert 5 < len(frames) < 35
    assert f"ends after {len(frames) - 1} of 40 frames" in frames[-1].problem
    whole = write_video(tmp_path / "a.mp4", 40).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # its index is at the end
    assert "cannot be opened as a video" in problem(tmp_path / "cut.mp4")
    (tmp_path / "none.mp4").write_bytes(b"no video")
    assert "cannot be opened as a video" in problem(tmp_path / "none.mp4")
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert "empty.mp4: it cannot be opened" in problem(tmp_path / "empty.mp4")


def test_threads_end_with_the_reader(tmp_path):
    path = write_video(tmp_path / "clip.mp4", 30)
    before = threading.active_count()
    frames = read_frames(find_inputs([path]))
    next(frames)
    frames.close()
    assert threading.active_count() == before


# --- Camera, standard input ----------------------------------------------------------------------


def test_a_camera(tmp_path, monkeypatch, capfd):
    """A file stands in for the camera: only its opening differs."""
    assert "camera 9: no such camera, or it is in use" in problem("9")
    assert capfd.readouterr() == ("", "")
    path, opened = write_video(tmp_path / "clip.mp4"), cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: opened(str(path)))
    frames = read("0")
    assert [place_of(frame.rgb) for frame in frames] == list(range(10))
    assert all(frame.live and frame.input.shown == "camera 0" for frame in frames)
    assert count_frames(find_inputs(["0"]), 1) is None


def test_a_live_frame_does_not_wait(tmp_path):
    one = Input("camera", 0, "camera 0", tmp_path)
    still, live = Frame(one, None), Frame(one, None, live=True)
    assert [len(batch) for batch in batches([still] * 5, 2)] == [2, 2, 1]
    assert [len(batch) for batch in batches([live] * 3, 8)] == [1, 1, 1]


def test_standard_input(tmp_path, monkeypatch):
    def give(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    give(photo(shade(3), 6))
    (frame,) = read("-")
    assert (frame.rgb.shape, frame.number) == ((64, 48, 3), None)
    give(write_video(tmp_path / "clip.mp4").read_bytes())
    assert [place_of(frame.rgb) for frame in read("-")] == list(range(10))
    give(b"")
    assert problem("-") == "-: nothing came; expected a picture or a video"
    give(b"some text that is not a picture")
    assert "cannot be opened as a video" in problem("-")
    give(encode(shade(3))[:400])
    assert "-: truncated or damaged JPEG" in problem("-")
    monkeypatch.setattr(inputs, "MAX_BYTES", 100)
    give(encode(shade(3)))
    assert "the picture has more than 100 bytes" in problem("-")
    monkeypatch.setattr(inputs, "_MAX_STDIN", 100)
    give((tmp_path / "clip.mp4").read_bytes())
    assert "too large for standard input" in problem("-")


# --- URLs ----------------------------------------------------------------------------------------


def test_pictures_and_videos_of_a_server(tmp_path, monkeypatch):
    turned = photo(shade(3), 6)
    clip = write_video(tmp_path / "clip.mp4").read_bytes()
    stream = [encode(shade(number)) for number in range(6)]
    files = {"/a.jpg": turned, "/clip": clip, "/live": stream, "/page": b"<html>" * 9, "/": b""}
    with serve(files) as address:
        (frame,) = read(f"{address}/a.jpg?size=9")
        assert (frame.rgb.shape, str(frame.input.target)) == ((64, 48, 3), "a.jpg")
        frames = read(f"{address}/clip")
        assert [place_of(frame.rgb) for frame in frames] == list(range(10))
        assert not frames[0].live
        frames = read(f"{address}/live")
        assert [place_of(frame.rgb) for frame in frames] == list(range(6))
        assert all(frame.live for frame in frames)
        assert [frame.seconds for frame in frames] == [n / 25 for n in range(6)]
        assert "cannot be opened as a video" in problem(f"{address}/page")
        assert f"{address}/none: the server answers 404 Not Found" in problem(f"{address}/none")
        with pytest.raises(FormatError, match=r"a\.jpg: the picture has more than 99 bytes"):
            fetch_picture(f"{address}/a.jpg", max_bytes=99)
        with pytest.raises(RunError, match="silent: nothing came in time"):
            fetch_picture(f"{address}/silent", timeout_s=0.1)
        with pytest.raises(RunError, match=r"slow: the picture is not complete after 0\.2 s"):
            fetch_picture(f"{address}/slow", most_s=0.2)
        with pytest.raises(RunError, match=r"short: .*(closed before the end|IncompleteRead)"):
            fetch_picture(f"{address}/short")
    assert "refused" in problem(f"{address}/a.jpg")
    assert "http://user:***@" in problem(address.replace("//", "//user:secret@"))


def test_names_of_urls():
    assert str(web.file_name("https://host/a/b%20c.jpg?x=1")) == "b_c.jpg"
    assert str(web.file_name("http://host:8080/")) == "host"
    assert str(web.file_name("http://host/%2e%2e%2f%2e%2e%2fetc")) == "etc"
    assert web.without_password("rtsp://me:pw@cam/1") == "rtsp://me:***@cam/1"
    assert web.is_url("RTSP://cam")
    assert not web.is_url("file:///etc/passwd")


def test_a_stream_that_stops_answering(monkeypatch):
    monkeypatch.setattr("gluon_asymmnet.predict.video.TIMEOUT_S", 0.3)
    with serve({}) as address, pytest.raises(FormatError, match="cannot be opened"):
        Video(f"{address}/silent", "the stream")


SERVER = """
from gluon_asymmnet.data.images import encode
from tests.videos import serve, shade
with serve({"/live": [encode(shade(number % 9)) for number in range(2000)]}, pause=0.02) as address:
    print(address, flush=True)
    input()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_dies_or_hangs_within_a_stream(monkeypatch, end):
    monkeypatch.setattr("gluon_asymmnet.predict.video.TIMEOUT_S", 2)
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as server:
        try:
            url, said = f"{server.stdout.readline().decode().strip()}/live", []
            frames = read_frames(find_inputs([url]), Reading(say=said.append))
            found = list(itertools.islice(frames, 5))
            server.send_signal(end)
            found += frames
        finally:
            server.kill()
    assert all(frame.live for frame in found[:5])
    if end == signal.SIGKILL:
        assert said == [f"{url}: the stream ended after {len(found)} frames"]
    else:
        assert found[-1].problem == f"{url}: no frame came in 2 s, after {len(found) - 1} frames"
        assert said == []


def test_a_stream_that_is_left_has_not_ended():
    said = []
    with serve({"/live": [encode(shade(number)) for number in range(9)]}) as address:
        frames = read_frames(find_inputs([f"{address}/live"]), Reading(say=said.append))
        next(frames)
        frames.close()
    assert said == []
