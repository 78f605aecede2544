"""Archives of VOC."""

import io
import tarfile

from gluon_asymmnet.data.boxes.voc_download import unpack
from tests.fuzz import mutations as damage
from tests.fuzz.parsers.base import Target


def tar_seeds():
    found = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as archive:
            for part in ("Annotations", "ImageSets", "JPEGImages"):
                folder = tarfile.TarInfo(f"VOCdevkit/VOC2007/{part}")
                folder.type = tarfile.DIRTYPE
                archive.addfile(folder)
            for name in ("a.jpg", "n" * 120 if form != tarfile.USTAR_FORMAT else "b.jpg"):
                file = tarfile.TarInfo(f"VOCdevkit/VOC2007/JPEGImages/{name}")
                file.size = 700
                archive.addfile(file, io.BytesIO(b"x" * 700))
        found.append(out.getvalue())
    return found


def read_tar(folder, data):
    """Nothing but folders and plain files, nowhere but inside; no more bytes than came."""
    (folder / "a.tar").write_bytes(data)
    out = folder / "box/out"
    out.mkdir(parents=True)
    try:
        unpack(folder / "a.tar", "VOC2007", out)
    finally:
        assert {p.name for p in folder.iterdir()} == {"a.tar", "box"}
        assert [p.name for p in (folder / "box").iterdir()] == ["out"]
        inside = list(out.rglob("*"))
        assert not any(p.is_symlink() or not (p.is_dir() or p.is_file()) for p in inside)
        assert sum(p.stat().st_size for p in inside if p.is_file()) <= len(data)


TARGETS = {
    "tar": Target("`voc_download.unpack`", tar_seeds, damage.damaged_tar, read_tar, 400),
}  # fmt: skip
