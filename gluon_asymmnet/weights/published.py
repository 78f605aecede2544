"""Download and check the authors' published checkpoint.

The checksum is the git blob id, the SHA-1 that ``git hash-object FILE`` prints: the authors'
repository gives no other.
"""

import hashlib
import os
import shlex
from pathlib import Path

from gluon_asymmnet.errors import RunError
from gluon_asymmnet.utils.cache import cache_folder
from gluon_asymmnet.utils.download import Checksum, download
from gluon_asymmnet.weights.params_file import kind_of

URL = (
    "https://raw.githubusercontent.com/Spark001/AsymmNet/main/"
    "checkpoints/0.7542-imagenet-modifiedv3-358-best.params"
)
BLOB_ID = "a2ee7b4f3161cd32595a67c9ec9c64764b914f00"

PUBLISHED = "published"  # names these weights where a path may stand
_NAME = "0.7542-imagenet-modifiedv3-358-best"
_MAX_BYTES = 1 << 30  # 40 times the checkpoint; an endless download must not fill the disk


def git_blob_id(path) -> str:
    """Return the object id that git gives the content of a file: 40 hexadecimal digits.

    Raises: OSError if the file cannot be read; RunError if it changes while it is read.
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
    """Return the path of the published checkpoint, downloaded if it is not in the cache.

    An interrupted download continues where it stopped, in this call or the next.  If several
    processes fetch at once, one downloads and the others wait.

    Args:
        url: an http, https or file address; redirects are followed.
        blob_id: the expected git blob id of the file.
        root: the cache folder; by default ``$XDG_CACHE_HOME/gluon_asymmnet``, or
            ``~/.cache/gluon_asymmnet``.
        source: a local copy of the file, copied instead of downloading.
        timeout_s: seconds without a byte after which an attempt fails.
        retries: further attempts in a row that may bring no new byte.
        lock_timeout_s: seconds to wait for another process.
        progress: called as ``progress(received, total)``, bytes; ``total`` may be None.

    Raises:
        InputError: for an invalid argument.
        FileNotFoundError: if there is no ``source``.
        FormatError: if the file has another blob id; it is never used.
        RunError: if the server refuses or the download stops; the received part is kept, and the
            message has the command that continues.
    """
    return download(
        url,
        cache_folder(root) / f"{_NAME}-{blob_id[:8]}.params",
        Checksum("git blob id", blob_id, git_blob_id, kind_of),
        source=source,
        timeout_s=timeout_s,
        retries=retries,
        lock_timeout_s=lock_timeout_s,
        max_bytes=_MAX_BYTES,
        what="a checkpoint",
        resume=_command(url, blob_id, root),
        progress=progress,
    )


def _command(url: str, blob_id: str, root) -> str:
    """Return the command line that continues this download."""
    options = {"--url": (url, URL), "--blob-id": (blob_id, BLOB_ID), "--root": (root, None)}
    words = ["asymmnet", "fetch", "published"]
    for option, (value, default) in options.items():
        if value != default:
            words += [option, os.fspath(value)]
    return shlex.join(words)
