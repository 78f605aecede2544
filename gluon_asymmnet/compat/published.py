"""The authors' published checkpoint: fetch it once, check it, keep it.

A file is known by its git blob id, the SHA-1 that ``git hash-object FILE`` prints: it is the
only thing the authors' repository says about the content.  Nothing takes its final name
before its id was found right, so a cached file needs no trust in the server, in the
connection or in an earlier run.

Only the standard library is used for the transfer.  POSIX only (``fcntl``), as is MXNet 1.9.1.
"""

import contextlib
import fcntl
import hashlib
import http.client
import os
import re
import shlex
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from pathlib import Path

from gluon_asymmnet.compat.params_file import kind_of
from gluon_asymmnet.errors import FormatError, InputError, RunError

URL = (
    "https://raw.githubusercontent.com/Spark001/AsymmNet/main/"
    "checkpoints/0.7542-imagenet-modifiedv3-358-best.params"
)
BLOB_ID = "a2ee7b4f3161cd32595a67c9ec9c64764b914f00"
STATES_BLOB_ID = "365f92971e9886f9d190c977e9ee1ea407568dfe"  # the trainer states beside it

_NAME = "0.7542-imagenet-modifiedv3-358-best"
_CHUNK = 1 << 16  # bytes
_MAX_BYTES = 1 << 30  # 40 times the checkpoint: an endless answer must not fill the disk


def git_blob_id(path) -> str:
    """The object id that git gives the content of a file: 40 hexadecimal digits.

    Raises: OSError if the file cannot be read; RunError if it changes meanwhile.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        left = size
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            left -= len(chunk)
    if left:
        raise RunError(f"{path} changed while it was read")
    return digest.hexdigest()


def fetch(
    *,
    url: str = URL,
    blob_id: str = BLOB_ID,
    root=None,
    source=None,
    timeout_s: float = 30,
    retries: int = 5,
    lock_timeout_s: float = 600,
    progress=None,
) -> Path:
    """Return the path of the published checkpoint, from the cache if it is there.

    An interrupted download continues where it stopped, in this call and in the next.  Of
    several processes that fetch at once, one downloads and the others wait for it.

    Args:
        url: an http, https or file address; redirects are followed.
        blob_id: the git blob id that the file must have.
        root: the folder to keep it in; otherwise ``$XDG_CACHE_HOME/gluon_asymmnet``, or
            ``~/.cache/gluon_asymmnet``.
        source: a local copy of the file, used instead of ``url`` and left as it is.
        timeout_s: seconds without a byte after which an attempt is given up.
        retries: further attempts in a row that may bring nothing new.
        lock_timeout_s: seconds to wait for another process.
        progress: called as ``progress(received, total)``, bytes; ``total`` may be None.

    Raises:
        InputError: an argument is wrong.
        FileNotFoundError: there is no ``source``.
        FormatError: the file has another blob id; it is never used.
        RunError: the server refused, or the transfer could not be finished; what came is
            kept, and the message says how to continue.
    """
    _check_arguments(url, blob_id, timeout_s, retries)
    if source is None and urllib.parse.urlsplit(url).scheme == "file":
        source = urllib.request.url2pathname(urllib.parse.urlsplit(url).path)
    folder = _cache_folder(root)
    target = folder / f"{_NAME}-{blob_id[:8]}.params"
    if _has_id(target, blob_id):  # before anything is written: the cache may be read-only
        return target
    if source is not None:
        _check_source(Path(source), blob_id)
    _make_folder(folder)
    with _lock(target.with_suffix(".lock"), lock_timeout_s):
        if _has_id(target, blob_id):  # another process was faster
            return target
        _set_aside(target, blob_id)
        part = target.with_suffix(".part")
        if source is None:
            resume = _command(url, blob_id, root)
            _Download(url, part, timeout_s, retries, progress, resume).run(blob_id)
        else:
            shutil.copyfile(source, part)
        _accept(part, target, blob_id, origin=url if source is None else source)
    return target


# ------------------------------------------------------------------------------ the cache


def _check_arguments(url: str, blob_id: str, timeout_s: float, retries: int) -> None:
    if not re.fullmatch("[0-9a-f]{40}", blob_id):
        raise InputError(f"blob id {blob_id!r} is not 40 hexadecimal digits in lower case")
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


def _cache_folder(root) -> Path:
    if root is not None:
        return Path(root).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification says to ignore a relative one
        base = Path.home() / ".cache"
    return Path(base) / "gluon_asymmnet"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{folder} cannot be a cache folder: a file is in the way") from None


def _check_source(source: Path, blob_id: str) -> None:
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file")
    if not source.is_file():
        raise InputError(f"{source} is not a regular file")
    if not _has_id(source, blob_id):
        raise FormatError(f"{source} {_mismatch(source, blob_id)}")


def _has_id(path: Path, blob_id: str) -> bool:
    return path.is_file() and git_blob_id(path) == blob_id


def _mismatch(path: Path, blob_id: str) -> str:
    with path.open("rb") as file:
        kind = kind_of(file.read(512))
    looks = f" (it is {kind})" if kind else ""
    return f"has git blob id {git_blob_id(path)}, expected {blob_id}{looks}"


def _set_aside(target: Path, blob_id: str) -> None:
    """Move a file that has the right name and the wrong content out of the way."""
    if target.is_dir():
        raise InputError(f"{target} is a directory, in the way of the file of that name")
    if target.exists():
        wrong = target.with_suffix(".wrong")
        problem = _mismatch(target, blob_id)
        os.replace(target, wrong)
        warnings.warn(f"{target} {problem}; moved to {wrong}", stacklevel=3)


def _accept(part: Path, target: Path, blob_id: str, origin) -> None:
    """Give a complete file its final name, or move it aside and raise."""
    if not _has_id(part, blob_id):
        wrong = target.with_suffix(".wrong")
        problem = _mismatch(part, blob_id)
        os.replace(part, wrong)
        raise FormatError(f"the file from {origin} {problem}; it was moved to {wrong}")
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, target)


@contextlib.contextmanager
def _lock(path: Path, timeout_s: float):
    """Hold an exclusive lock between processes; the system drops it if the holder dies."""
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


def _command(url: str, blob_id: str, root) -> str:
    """The command line that continues this fetch."""
    options = {"--url": (url, URL), "--blob-id": (blob_id, BLOB_ID), "--root": (root, None)}
    words = ["asymmnet", "fetch", "published"]
    for option, (value, default) in options.items():
        if value != default:
            words += [option, os.fspath(value)]
    return shlex.join(words)


# ------------------------------------------------------------------------------ the transfer


class _Interrupted(Exception):  # noqa: N818 - not an error: the transfer is tried again
    """The transfer stopped; another attempt may go on."""


class _Download:
    """One file on its way from ``url`` into ``part``."""

    def __init__(self, url, part: Path, timeout_s, retries, progress, resume: str):
        self.url = url
        self.part = part
        self.timeout_s = timeout_s
        self.retries = retries
        self.progress = progress or (lambda received, total: None)
        self.resume = resume
        self.total = None  # bytes, once the server said so

    def run(self, blob_id: str) -> None:
        """Receive the file; begin anew, once, if its pieces do not fit together.

        They do not if the server's file changed between two of them.
        """
        in_one_piece = self._receive()
        if not in_one_piece and not _has_id(self.part, blob_id):
            self.part.unlink(missing_ok=True)
            self._receive()

    def _received(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _receive(self) -> bool:
        """Attempt until all is there; True if the last answer was the whole file."""
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
        if response is None:  # 416: the server has nothing after what we have
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
            return _opener().open(request, timeout=self.timeout_s)
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
        """Check that a partial answer starts where we are; return the whole size, if given."""
        content = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content)
        if response.status != 206 or not match or int(match[1]) != offset:
            if response.status == 206:  # it does not do ranges right: next time without
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
            if max(offset, self.total or 0) > _MAX_BYTES:
                self.part.unlink()
                raise RunError(f"{self.url}: more than {_MAX_BYTES} bytes, not a checkpoint")
            file.write(data)
            self.progress(offset, self.total)
        if self.total is not None and offset < self.total:
            raise _Interrupted("the connection was closed early")

    def _read(self, response) -> bytes:
        """What has arrived: ``read1`` does not lose it to a timeout, as ``read`` would."""
        try:
            return response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise self._stopped(error) from None

    def _stopped(self, error: Exception) -> _Interrupted:
        reason = getattr(error, "reason", error)
        if isinstance(reason, socket.timeout):  # TimeoutError itself only since Python 3.10
            return _Interrupted(f"nothing came for {self.timeout_s:g} s")
        return _Interrupted(_one_line(reason) or type(reason).__name__)


def _opener() -> urllib.request.OpenerDirector:
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
