"""Download a file with a known checksum; resume interrupted downloads.

A file gets its final name only after its checksum was verified, so an existing file does not depend
on the server, the connection or an earlier run.  Only the standard library is used.
POSIX only (``fcntl``), as is MXNet 1.9.1.
"""

import contextlib
import fcntl
import functools
import hashlib
import http.client
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from pathlib import Path
from typing import Callable, NamedTuple, Optional

from gluon_asymmnet.errors import FormatError, InputError, RunError

_CHUNK = 1 << 16  # bytes


class Checksum(NamedTuple):
    """The expected checksum of a file."""

    name: str  # for messages: "SHA-1"
    value: str  # 40 hexadecimal digits, lower case
    of: Callable[[Path], str]  # computes it
    kind_of: Callable[[bytes], Optional[str]] = lambda head: None  # names what a wrong file is
    digits: int = 40

    def fits(self, path: Path) -> bool:
        """Return whether a file exists and has this checksum."""
        return path.is_file() and self.of(path) == self.value

    def mismatch(self, path: Path) -> str:
        """Describe a file with another checksum; the text follows its name."""
        with path.open("rb") as file:
            kind = self.kind_of(file.read(512))
        looks = f" (it is {kind})" if kind else ""
        return f"has {self.name} {self.of(path)}, expected {self.value}{looks}"


def sha1(value: str) -> Checksum:
    """A SHA-1 that was published with the file."""
    return Checksum("SHA-1", value, functools.partial(_digest_of, "sha1"))


def md5(value: str) -> Checksum:
    """An MD5 that was published with the file."""
    return Checksum("MD5", value, functools.partial(_digest_of, "md5"), digits=32)


def _digest_of(algorithm: str, path: Path) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def download(
    url: str,
    path,
    checksum: Checksum,
    *,
    source=None,
    timeout_s: float = 30,
    retries: int = 5,
    lock_timeout_s: float = 600,
    max_bytes: int = 1 << 30,
    what: str = "the file",
    resume: str = "the same call",
    progress=None,
) -> Path:
    """Download a file to ``path`` unless it is there with the right checksum; return ``path``.

    An interrupted download resumes, in this call and in the next.  Of several processes that
    download at once, one does and the others wait.

    Args:
        url: an http, https or file address; redirects are followed.
        checksum: of the right file.
        source: a local copy of the file, copied instead of downloading.
        timeout_s: seconds without data after which an attempt ends.
        retries: consecutive further attempts without progress.
        lock_timeout_s: seconds to wait for another process.
        max_bytes: a longer response is refused, so that it cannot fill the disk.
        what, resume: what the file is and how to continue, for messages.
        progress: called as ``progress(received, total)``, bytes; ``total`` may be None.

    Raises:
        InputError: an argument is wrong.
        FileNotFoundError: there is no ``source``.
        FormatError: the file has another checksum; it is never used.
        RunError: the server refused, or the transfer failed; the received part is kept, and
            the message says how to continue.
    """
    target = Path(path)
    _check_arguments(url, checksum, timeout_s, retries)
    if source is None and urllib.parse.urlsplit(url).scheme == "file":
        source = urllib.request.url2pathname(urllib.parse.urlsplit(url).path)
    if checksum.fits(target):  # before anything is written: the folder may be read-only
        return target
    if source is not None:
        _check_source(Path(source), checksum)
    _make_folder(target.parent)
    with _lock(target.with_suffix(".lock"), lock_timeout_s):
        if checksum.fits(target):  # another process was faster
            return target
        _set_aside(target, checksum)
        part = target.with_suffix(".part")
        if source is None:
            limit = _Limit(max_bytes, what)
            _Download(url, part, timeout_s, retries, limit, progress, resume).run(checksum)
        else:
            shutil.copyfile(source, part)
        _accept(part, target, checksum, origin=url if source is None else source)
    return target


def _check_arguments(url: str, checksum: Checksum, timeout_s: float, retries: int) -> None:
    if not re.fullmatch(f"[0-9a-f]{{{checksum.digits}}}", checksum.value):
        raise InputError(
            f"{checksum.name} {checksum.value!r} is not {checksum.digits} hexadecimal digits in "
            f"lower case"
        )
    if not 0 < timeout_s <= 86_400:
        raise InputError(f"timeout_s must be above 0 and at most a day, got {timeout_s}")
    if retries < 0:
        raise InputError(f"retries must be 0 or more, got {retries}")
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port  # the port is parsed, and refused, only when read
    except ValueError as error:
        raise InputError(f"{url!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https", "file"):
        raise InputError(f"{url!r} must start with http://, https:// or file://")
    if parts.scheme != "file" and not host:
        raise InputError(f"{url!r} names no server")
    if not re.fullmatch("[!-~]+", url):
        raise InputError(f"{url!r} has characters that a URL spells with %")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{folder} cannot be a cache folder: a file is in the way") from None


def _check_source(source: Path, checksum: Checksum) -> None:
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file")
    if not source.is_file():
        raise InputError(f"{source} is not a regular file")
    if not checksum.fits(source):
        raise FormatError(f"{source} {checksum.mismatch(source)}")


def _set_aside(target: Path, checksum: Checksum) -> None:
    """Rename an existing file with the wrong checksum to ``*.wrong``."""
    if target.is_dir():
        raise InputError(f"{target} is a directory, in the way of the file of that name")
    if target.exists():
        wrong = target.with_suffix(".wrong")
        problem = checksum.mismatch(target)
        os.replace(target, wrong)
        warnings.warn(f"{target} {problem}; moved to {wrong}", stacklevel=4)


def _accept(part: Path, target: Path, checksum: Checksum, origin) -> None:
    """Rename a complete file to its final name; a wrong one to ``*.wrong``, and raise."""
    if not checksum.fits(part):
        wrong = target.with_suffix(".wrong")
        problem = checksum.mismatch(part)
        os.replace(part, wrong)
        raise FormatError(f"the file from {origin} {problem}; it was moved to {wrong}")
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, target)


@contextlib.contextmanager
def _lock(path: Path, timeout_s: float):
    """Hold an exclusive lock between processes; the system releases it if the holder dies."""
    deadline = time.monotonic() + timeout_s
    with path.open("a+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    file.seek(0)
                    raise RunError(
                        f"another process ({file.read(100).strip() or 'unknown'}) has held "
                        f"{path} for {timeout_s:g} s; wait for it or end it, then try again"
                    ) from None
                time.sleep(0.05)
        file.truncate(0)
        file.write(f"pid {os.getpid()}\n")
        file.flush()
        yield


# ------------------------------------------------------------------------------ the transfer


class _Interrupted(Exception):  # noqa: N818 - not an error: the transfer is tried again
    """The transfer stopped; another attempt may resume it."""


class _Limit(NamedTuple):
    bytes: int
    what: str  # that is never larger


class _Download:
    """The transfer of one file from ``url`` to ``part``."""

    def __init__(self, url, part: Path, timeout_s, retries, limit: _Limit, progress, resume: str):
        self.url = url
        self.part = part
        self.timeout_s = timeout_s
        self.retries = retries
        self.limit = limit
        self.progress = progress or (lambda received, total: None)
        self.resume = resume
        self.total = None  # bytes, once the server said so

    def run(self, checksum: Checksum) -> None:
        """Receive the file; restart once if the parts have the wrong checksum together.

        That happens if the server's file changed between two attempts.
        """
        in_one_piece = self._receive()
        if not in_one_piece and not checksum.fits(self.part):
            self.part.unlink(missing_ok=True)
            self._receive()

    def _received(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _receive(self) -> bool:
        """Attempt until complete; return whether the last response was the whole file."""
        most, failures = self._received(), 0
        while True:
            try:
                return self._attempt()
            except _Interrupted as interruption:
                reason = interruption
            failures = 0 if self._received() > most else failures + 1
            most = max(most, self._received())
            if failures > self.retries:
                raise RunError(
                    f"{self.url}: {reason}; {self._received()} bytes received of "
                    f"{self.total or 'an unknown number'}, tries without progress: {failures}; "
                    f"continue with: {self.resume}"
                )
            time.sleep(min(2**failures / 2, self.timeout_s))

    def _attempt(self) -> bool:
        offset = self._received()
        response = self._request(offset)
        if response is None:  # 416: the server has no further bytes
            return False
        with response:
            in_one_piece = response.status == 200  # also when the server ignores Range
            if in_one_piece:
                offset, self.total = 0, _integer(response.headers.get("Content-Length"))
            else:
                self.total = self._continued(response, offset)
            with self.part.open("wb" if in_one_piece else "ab") as file:
                self._copy(response, file, offset)
        return in_one_piece

    def _request(self, offset: int):
        request = urllib.request.Request(
            self.url, headers={"User-Agent": "gluon_asymmnet", "Accept-Encoding": "identity"}
        )
        if offset:
            request.add_header("Range", f"bytes={offset}-")
        try:
            return web_opener().open(request, timeout=self.timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416 and offset:
                    return None
                answer = f"the server answered {error.code} {_one_line(error.reason)}"
            if error.code in (408, 429) or error.code >= 500:
                raise _Interrupted(answer) from None
            raise RunError(f"{self.url}: {answer}") from None
        except (OSError, http.client.HTTPException) as error:
            if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
                raise RunError(f"{self.url}: {_one_line(error.reason)}") from None
            raise self._stopped(error) from None

    def _continued(self, response, offset: int):
        """Check that a partial response starts at ``offset``; return the total size, if given."""
        content = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content)
        if response.status != 206 or not match or int(match[1]) != offset:
            if response.status == 206:  # wrong ranges: the next attempt asks for the whole file
                self.part.unlink(missing_ok=True)
            raise _Interrupted(
                f"the server answered {response.status} with {content or 'no range'!r} "
                f"to a request for byte {offset} on"
            )
        return _integer(match[2])

    def _copy(self, response, file, offset: int) -> None:
        while self.total is None or offset < self.total:
            data = self._read(response)
            if not data:
                break
            offset += len(data)
            if max(offset, self.total or 0) > self.limit.bytes:
                self.part.unlink()
                raise RunError(
                    f"{self.url}: more than {self.limit.bytes} bytes, not {self.limit.what}"
                )
            file.write(data)
            self.progress(offset, self.total)
        if self.total is not None and offset < self.total:
            raise _Interrupted("the connection was closed early")

    def _read(self, response) -> bytes:
        """Return the received bytes: ``read`` would lose them at a timeout, ``read1`` does not."""
        try:
            return response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise self._stopped(error) from None

    def _stopped(self, error: Exception) -> _Interrupted:
        reason = getattr(error, "reason", error)
        if isinstance(reason, socket.timeout):  # TimeoutError itself only since Python 3.10
            return _Interrupted(f"nothing came for {self.timeout_s:g} s")
        return _Interrupted(_one_line(reason) or type(reason).__name__)


def web_opener() -> urllib.request.OpenerDirector:
    """Only http and https, through the usual proxies; the default one also opens ftp and data."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _integer(text):
    return int(text) if text is not None and text.isdecimal() else None


def _one_line(text) -> str:
    return " ".join(str(text)[:500].split())
