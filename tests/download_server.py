"""A server on this machine that sends a file, and misbehaves in the ways that servers do."""

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

CONTENT = np.random.default_rng(0).bytes(300_000)


def serve(request, content=CONTENT):
    """What a good server does: 200, or 206 from the byte asked for, or 416 beyond the end."""
    start = request.start()
    if start and start >= len(content):
        request.answer(416)
    elif start:
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        request.answer(206, content[start:], content_range=span)
    else:
        request.answer(200, content)


def ignore_range(request):
    request.answer(200, CONTENT)


def cut(count):
    """Promise all that was asked for, send ``count`` bytes of it, and hang up."""

    def behaviour(request):
        start = request.start()
        rest = CONTENT[start:]
        span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}" if start else None
        request.answer(206 if start else 200, rest[:count], length=len(rest), content_range=span)

    return behaviour


def stall(count):
    """As ``cut``, but keep the connection open and silent."""

    def behaviour(request):
        cut(count)(request)
        request.wfile.flush()
        request.server.released.wait(20)

    return behaviour


def slowly(request):
    time.sleep(0.5)
    serve(request)


def corrupt(request):
    serve(request, CONTENT[:1000] + bytes([CONTENT[1000] ^ 1]) + CONTENT[1001:])


def html(request):
    request.answer(200, b"<!DOCTYPE html><title>Sign in to this network</title>")


def other_range(request):
    request.answer(206, CONTENT[:10], content_range=f"bytes 0-9/{len(CONTENT)}")


def without_length(request):
    request.answer(200, CONTENT, length=None)


def endless(request):
    request.answer(200, b"x" * 1000, length=2**31)


def status(code):
    return lambda request: request.answer(code, b"oops")


def redirect(location):
    return lambda request: request.answer(302, location=location)


class Request(BaseHTTPRequestHandler):
    """Answers with the next behaviour of its server; the last one stays."""

    def do_GET(self):
        script = self.server.script
        self.server.ranges.append(self.headers.get("Range"))
        behaviour = script.pop(0) if len(script) > 1 else script[0]
        with contextlib.suppress(ConnectionError):  # the client gave up: as it should
            behaviour(self)

    def start(self) -> int:
        return int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])

    def answer(self, code, body=b"", *, length=-1, content_range=None, location=None):
        self.send_response(code)
        headers = {"Content-Range": content_range, "Location": location}
        headers["Content-Length"] = len(body) if length == -1 else length
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        pass


@contextlib.contextmanager
def running_server():
    """``server.script`` says how to answer; ``server.ranges`` has what was asked."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Request) as server:
        server.script, server.ranges, server.released = [serve], [], threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}/net.params"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()
