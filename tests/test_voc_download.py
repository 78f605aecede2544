"""Fetching VOC from a real server on this machine, with small archives of the real layout."""

import hashlib
import io
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from gluon_asymmnet.cli.voc import build_parser
from gluon_asymmnet.data.boxes.voc import VOCSource
from gluon_asymmnet.data.boxes.voc_download import ARCHIVES, Archive, download_voc, unpack
from gluon_asymmnet.data.boxes.voc_xml import VOCObject, annotation_xml
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.errors import FormatError, InputError, RunError

PICTURE = encode(np.zeros((30, 40, 3), np.uint8))


def content(folder, split, stem):
    xml = annotation_xml(f"{stem}.jpg", (40, 30), [VOCObject("dog", (1, 2, 30, 20))])
    return {
        f"VOCdevkit/{folder}/Annotations/{stem}.xml": xml.encode(),
        f"VOCdevkit/{folder}/ImageSets/Main/{split}.txt": f"{stem}\n".encode(),
        f"VOCdevkit/{folder}/JPEGImages/{stem}.jpg": PICTURE,
    }


def tar_of(files, *members, kind="w"):
    """The bytes of a tar file: plain files, then ``members``, TarInfos without content."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=kind) as tar:
        for name, body in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(body), 0o777
            tar.addfile(member, io.BytesIO(body))
        for member in members:
            tar.addfile(member)
    return data.getvalue()


class Quiet(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """``server.publish(name, folder, data)`` returns the Archive; ``server.asked`` the paths."""
    monkeypatch.setenv("no_proxy", "*")
    site = tmp_path / "site"
    site.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        server.asked = []
        server.url = f"http://127.0.0.1:{server.server_port}"

        def publish(name, folder, data):
            (site / name).write_bytes(data)
            return Archive(folder, f"{server.url}/{name}", hashlib.sha1(data).hexdigest())

        server.publish = publish
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def archives(server):
    return [
        server.publish("a.tar", "VOC2007", tar_of(content("VOC2007", "trainval", "000001"))),
        server.publish("b.tar", "VOC2007", tar_of(content("VOC2007", "test", "000002"))),
        server.publish("c.tar", "VOC2012", tar_of(content("VOC2012", "trainval", "2008_000001"))),
    ]


def names(root):
    return sorted(p.name for p in root.iterdir()) if root.exists() else []


def test_download(tmp_path, archives, server):
    root, seen = tmp_path / "voc", []
    folders = download_voc(root, archives, progress=lambda *counts: seen.append(counts))
    assert folders == [root / "VOC2007", root / "VOC2012"]
    assert names(root) == ["VOC2007", "VOC2012", "downloads"]
    source = VOCSource(root, [(2007, "trainval"), (2012, "trainval"), (2007, "test")])
    assert len(source) == 3
    np.testing.assert_array_equal(source.read(2).boxes, [[1, 2, 30, 20]])
    assert server.asked == ["/a.tar", "/b.tar", "/c.tar"]
    assert (10240, 10240) in seen  # the least size of a tar file
    mode = (root / "VOC2007" / "Annotations" / "000001.xml").stat().st_mode
    assert mode & 0o111 == 0  # not what the archive says


def test_right_archives_are_used_again(tmp_path, archives, server):
    download_voc(tmp_path / "voc", archives[:2])
    server.asked.clear()
    download_voc(tmp_path / "voc", archives[2:])
    assert server.asked == ["/c.tar"]
    server.asked.clear()
    (tmp_path / "voc" / "VOC2012").rename(tmp_path / "elsewhere")
    download_voc(tmp_path / "voc", archives[2:])
    assert server.asked == []


def test_existing_folder_is_left_alone(tmp_path, archives, server):
    (tmp_path / "voc" / "VOC2012").mkdir(parents=True)
    with pytest.raises(InputError, match="VOC2012 exists already, and is not changed"):
        download_voc(tmp_path / "voc", archives)
    assert names(tmp_path / "voc") == ["VOC2012"] and server.asked == []
    with pytest.raises(InputError, match="no archive is given"):
        download_voc(tmp_path / "voc", [])


def test_wrong_sum(tmp_path, archives):
    wrong = archives[1]._replace(sha1="0" * 40)
    expected = f"b.tar has SHA-1 {archives[1].sha1}, expected {'0' * 40}; it was moved to .*wrong"
    with pytest.raises(FormatError, match=expected):
        download_voc(tmp_path / "voc", [archives[0], wrong])
    assert names(tmp_path / "voc") == ["downloads"]
    assert not (tmp_path / "voc" / "downloads" / "b.tar").exists()


def test_server_without_the_file(tmp_path, archives, server):
    gone = archives[2]._replace(url=f"{server.url}/gone.tar")
    with pytest.raises(RunError, match=r"gone.tar: the server answered 404"):
        download_voc(tmp_path / "voc", [archives[0], gone])
    assert names(tmp_path / "voc") == ["downloads"]


def test_mirror(tmp_path, archives, server):
    elsewhere = [archive._replace(url=archive.url.replace(server.url, "http://127.0.0.1:9")) for
                 archive in archives]  # fmt: skip
    download_voc(tmp_path / "voc", elsewhere, mirror=server.url + "/")
    assert len(VOCSource(tmp_path / "voc", [(2007, "test")])) == 1


def test_all_folders_or_none(tmp_path, archives, server):
    bad = server.publish("bad.tar", "VOC2012", tar_of({"VOCdevkit/VOC2012/x": b""}))
    with pytest.raises(FormatError, match=r"bad.tar: it holds no VOCdevkit/VOC2012/Annotations"):
        download_voc(tmp_path / "voc", [archives[0], bad])
    assert names(tmp_path / "voc") == ["downloads"]


# ------------------------------------------------------------------- archives that are not safe


def member(name, kind=tarfile.REGTYPE, target=""):
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, target
    return found


TOP = "VOCdevkit/VOC2007"


@pytest.mark.parametrize(
    "bad, message",
    [
        (member("/etc/evil"), "'/etc/evil' lies outside VOCdevkit/VOC2007"),
        (member("../evil"), "'../evil' lies outside"),
        (member(f"{TOP}/../../../evil"), "evil' lies outside"),
        (member(f"{TOP}/a\\..\\evil"), "evil' lies outside"),
        (member("VOCdevkit/VOC2012/x"), "VOC2012/x' lies outside"),
        (member("evil"), "'evil' lies outside"),
        (member("VOCdevkit"), "'VOCdevkit' is a file, expected a folder"),
        (member(f"{TOP}/link", tarfile.SYMTYPE, "/etc"), "link' is a link, a device or a sparse"),
        (member(f"{TOP}/link", tarfile.SYMTYPE, "Annotations"), "is a link"),
        (member(f"{TOP}/hard", tarfile.LNKTYPE, "/etc/passwd"), "is a link"),
        (member(f"{TOP}/pipe", tarfile.FIFOTYPE), "is a link, a device"),
        (member(f"{TOP}/null", tarfile.CHRTYPE), "is a link, a device"),
        (member(f"{TOP}/JPEGImages"), "one name is a file and a folder"),
        (member(f"{TOP}/JPEGImages/1.jpg/x"), "one name is a file and a folder"),
    ],
)
def test_unsafe_archives(tmp_path, server, bad, message):
    data = tar_of(content("VOC2007", "test", "1"), bad)
    archive = server.publish("unsafe.tar", "VOC2007", data)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(FormatError, match=f"unsafe.tar: .*{message}"):
        download_voc(tmp_path / "voc", [archive])
    left = {p for p in set(tmp_path.rglob("*")) - before if p.is_file()}
    assert {p.parent.name for p in left} == {"downloads"}


def sparse_tar():
    """A file of 1 TB in GNU's sparse form: one empty piece, and the real size in the header."""
    data = bytearray(tar_of({}, member(f"{TOP}/big", tarfile.GNUTYPE_SPARSE)))
    data[483:495] = tarfile.itn(10**12, 12, tarfile.GNU_FORMAT)
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


@pytest.mark.parametrize(
    "data, message",
    [
        (b"not a tar file " * 100, "damaged tar file"),
        (b"", "damaged tar file|it holds no"),
        (tar_of(content("VOC2007", "test", "1"), kind="w:gz"), "damaged tar file"),
        (tar_of(content("VOC2007", "test", "1"))[:2000], "damaged tar file|cut off|it holds no"),
        (sparse_tar(), "is a link, a device or a sparse file"),
        (tar_of({}), "it holds no VOCdevkit/VOC2007/Annotations"),
    ],
    ids=["no tar", "empty file", "compressed", "cut off", "sparse", "without annotations"],
)
def test_damaged_archives(tmp_path, data, message):
    (tmp_path / "x.tar").write_bytes(data)
    (tmp_path / "out").mkdir()
    with pytest.raises(FormatError, match=f"x.tar: .*({message})"):
        unpack(tmp_path / "x.tar", "VOC2007", tmp_path / "out")


# ------------------------------------------------------------------- the command


def run(*words):
    parser = build_parser("asymmnet voc")
    args = parser.parse_args(["download", *map(str, words)])
    return args.run(args)


def test_command_asks_for_the_real_files(tmp_path, server):
    (tmp_path / "site" / "VOCtest_06-Nov-2007.tar").write_bytes(b"small")
    with pytest.raises(FormatError, match="expected 41a8d6e12baa5ab18ee7f8f8029b9e11805b4ef1"):
        run(tmp_path / "voc", "--only", "2007_test", "--mirror", server.url)
    assert server.asked == ["/VOCtest_06-Nov-2007.tar"]
    with pytest.raises(InputError, match="unknown archive '2007_val': expected some of 2007_train"):
        run(tmp_path / "voc", "--only", "2007_test,2007_val")


def test_published_sums():
    """As GluonCV's scripts/datasets/pascal_voc.py has them."""
    assert {name: (archive.folder, archive.sha1) for name, archive in ARCHIVES.items()} == {
        "2007_trainval": ("VOC2007", "34ed68851bce2a36e2a223fa52c661d592c66b3c"),
        "2007_test": ("VOC2007", "41a8d6e12baa5ab18ee7f8f8029b9e11805b4ef1"),
        "2012_trainval": ("VOC2012", "4e443f8a2eca6b1dac8a6c57641b67dd40621a49"),
    }
