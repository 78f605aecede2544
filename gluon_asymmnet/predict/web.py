"""Fetch a picture from a URL, with bounds on size and time."""

import http.client
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Optional

from gluon_asymmnet import __version__
from gluon_asymmnet.data.image_headers import starts_like_a_picture
from gluon_asymmnet.errors import FormatError, RunError
from gluon_asymmnet.utils.download import web_opener

SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp")
MAX_BYTES = 1 << 26  # of a picture: 64 MiB
TIMEOUT_S = 10  # for an answer, and for each part of it
MOST_S = 60  # for the whole picture
_CHUNK = 1 << 16


def is_url(text: str) -> bool:
    """Whether ``text`` names a scheme of ``SCHEMES``."""
    return text.lower().startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def without_password(url: str) -> str:
    """Return a URL for messages and results."""
    return re.sub(r"//([^/@:]*):[^/@]*@", r"//\1:***@", url)


def file_name(url: str) -> Path:
    """Return a file name made of the last part of a URL's path, or of its host."""
    parts = urllib.parse.urlsplit(url)
    last = urllib.parse.unquote(parts.path.rstrip("/")).rpartition("/")[2] or parts.hostname or ""
    return Path(re.sub(r"[^\w.-]", "_", last).lstrip(".")[-100:] or "url")


def fetch_picture(
    url: str, *, timeout_s: float = TIMEOUT_S, most_s: float = MOST_S, max_bytes: int = MAX_BYTES
) -> Optional[bytes]:
    """Return the bytes of a picture; None if the URL gives something else, e.g. a video.

    Raises:
        FormatError: the picture is larger than ``max_bytes``.
        RunError: the server does not answer, refuses, or is too slow.
    """
    if not url.lower().startswith(("http://", "https://")):
        return None
    shown, end = without_password(url), time.monotonic() + most_s
    request = urllib.request.Request(url, headers={"User-Agent": f"gluon_asymmnet/{__version__}"})
    try:
        with web_opener().open(request, timeout=timeout_s) as answer:
            data = answer.read(16)
            if not starts_like_a_picture(data):
                return None
            while part := answer.read1(_CHUNK):
                data += part
                if len(data) > max_bytes:
                    raise FormatError(f"{shown}: the picture has more than {max_bytes} bytes")
                if time.monotonic() > end:
                    raise RunError(f"{shown}: the picture is not complete after {most_s:g} s")
            if answer.length:
                raise RunError(f"{shown}: the connection closed before the end of the picture")
            return data
    except FormatError:  # a ValueError, too
        raise
    except urllib.error.HTTPError as error:
        raise RunError(f"{shown}: the server answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        text = "nothing came in time" if "timed out" in str(reason) else str(reason)
        raise RunError(f"{shown}: {' '.join(text.split()) or type(error).__name__}") from None
