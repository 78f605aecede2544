"""Small videos and a server of pictures and streams for tests."""

import contextlib
import http.server
import io
import threading
import time

import numpy as np
from PIL import Image

from gluon_asymmnet.data.images import encode
from gluon_asymmnet.predict.video import VideoWriter

BOUNDARY = b"frame"


def shade(number, size=(64, 48)):
    """A frame that shows its number: (H, W, 3), a bright square at its place on grey."""
    rgb = np.full((size[1], size[0], 3), 90, np.uint8)
    left = 2 + 4 * (number % 12)
    rgb[8:24, left : left + 12] = (250, 40, 20)  # red, so that exchanged channels show
    return rgb


def photo(rgb, orientation):
    """A JPEG that stores ``rgb`` and asks for an EXIF rotation."""
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(rgb).save(out, "JPEG", quality=95, exif=exif)
    return out.getvalue()


def place_of(rgb):
    """The number of a frame of ``shade``, from its pixels."""
    redder = rgb[..., 0].astype(int) - rgb[..., 2] > 100
    return round((np.nonzero(redder)[1].mean() - 7.5) / 4)


def write_video(path, frames=10, rate=5.0, size=(64, 48)):
    """Write a video of ``shade``."""
    writer = VideoWriter(path, rate)
    for number in range(frames):
        writer.write(shade(number, size))
    writer.close()
    return path


@contextlib.contextmanager
def serve(files, pause=0.0):
    """Serve ``{path: bytes, or a list of JPEGs that become a stream}``; yield the address.

    ``/slow`` sends one byte in a while, ``/silent`` nothing, ``/short`` less than it says.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            with contextlib.suppress(ConnectionError):
                self._answer(self.path.partition("?")[0])

        def _answer(self, path):
            if path == "/silent":
                stop.wait(20)
            elif path in ("/slow", "/short"):
                self._head("image/jpeg", 100_000)
                self.wfile.write(encode(shade(0))[:100])
                while path == "/slow" and not stop.wait(0.05):
                    self.wfile.write(b"\0")
            elif path not in files:
                self.send_error(404)
            elif isinstance(files[path], list):
                self._head(f"multipart/x-mixed-replace; boundary={BOUNDARY.decode()}")
                for data in files[path]:
                    head = b"--%s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
                    self.wfile.write(head % (BOUNDARY, len(data)) + data + b"\r\n")
                    time.sleep(pause)
                self.wfile.write(b"--%s--\r\n" % BOUNDARY)
            else:
                self._head("application/octet-stream", len(files[path]))
                self.wfile.write(files[path])

        def _head(self, kind, length=None):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()

    stop = threading.Event()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
        thread.join()
