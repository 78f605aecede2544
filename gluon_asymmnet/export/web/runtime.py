"""ONNX Runtime for browsers: the package onnxruntime-web, from npm, a folder or an archive."""

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Optional

from gluon_asymmnet.errors import FormatError, InputError, RunError
from gluon_asymmnet.utils.cache import cache_folder
from gluon_asymmnet.utils.download import download, sha1

VERSION = "1.30.0"
_SHA1 = "b88b09117992e6f486321e931a826fd2f7775377"  # npm publishes it: npm view ... dist.shasum
_PACKAGE = f"onnxruntime-web@{VERSION}"
ARCHIVE = f"onnxruntime-web-{VERSION}.tgz"
# Only those that the page may load: WebAssembly, and the variant with WebGPU.
FILES = (
    "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)  # fmt: skip
_TIMEOUT = 600  # seconds for npm


def copy_runtime(folder: Path, source=None) -> None:
    """Copy the files of onnxruntime-web into ``folder``, which exists.

    Args:
        source: a folder that holds them (the package, its ``dist``, or ``ort`` of an earlier
            export), or the package as npm packs it (.tgz).  None: the cache, which ``npm pack``
            fills once.

    Raises: FileNotFoundError, InputError or FormatError for a source without them; InputError if
        npm is needed and missing; RunError if npm fails.
    """
    source = cached_archive() if source is None else Path(source)
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such folder or file; expected onnxruntime-web")
    if source.is_file():
        _unpack(source, folder)
        return
    for place in (source, source / "dist", source / "ort"):
        if all((place / name).is_file() for name in FILES):
            for name in FILES:
                shutil.copyfile(place / name, folder / name)
            return
    missing = [name for name in FILES if not (source / name).is_file()]
    raise InputError(f"{source} is not a folder of onnxruntime-web: it lacks {', '.join(missing)}")


def is_cached() -> bool:
    """Return whether an export needs no network."""
    return sha1(_SHA1).fits(cache_folder() / ARCHIVE)


def cached_archive() -> Path:
    """Return the package in the cache; ``npm pack`` fetches it, from the registry npm is set to."""
    checksum, cached = sha1(_SHA1), cache_folder() / ARCHIVE
    if checksum.fits(cached):
        return cached
    with tempfile.TemporaryDirectory() as scratch:
        packed = _npm_pack(Path(scratch))
        return download(packed.as_uri(), cached, checksum, what="onnxruntime-web")


def _npm_pack(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            f"onnxruntime-web {VERSION} is not in {cache_folder()} and npm, which fetches it, is "
            f"not installed: run `npm pack {_PACKAGE}` elsewhere and give {ARCHIVE} to --ort-from"
        )
    try:
        done = subprocess.run(
            [npm, "pack", "--silent", _PACKAGE], cwd=folder, capture_output=True, text=True,
            timeout=_TIMEOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RunError(f"`npm pack {_PACKAGE}` did not end within {_TIMEOUT} s") from None
    packed = folder / ARCHIVE
    if done.returncode or not packed.is_file():
        reason = " ".join(done.stderr.split())[:300] or f"exit status {done.returncode}"
        raise RunError(
            f"`npm pack {_PACKAGE}` failed ({reason}); or give its file {ARCHIVE}, fetched "
            f"elsewhere, to --ort-from"
        )
    return packed


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive) as opened:
            for name in FILES:
                member: Optional[tarfile.TarInfo] = opened.getmember(f"package/dist/{name}")
                with opened.extractfile(member) as file:
                    (folder / name).write_bytes(file.read())
    except (tarfile.TarError, KeyError, EOFError) as error:
        raise FormatError(f"{archive} is not onnxruntime-web as npm packs it: {error}") from None
