"""``asymmnet records``: what is printed, written and returned."""

import json
import subprocess
import sys

import numpy as np
import pytest

from gluon_asymmnet.cli.records import build_parser
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.data.records import stats
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.errors import FormatError, InputError


def run(*argv) -> int:
    args = build_parser("asymmnet records").parse_args(list(map(str, argv)))
    return args.run(args)


def image(level):
    return encode(np.full((8, 16, 3), level, np.uint8))


@pytest.fixture
def tree(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        for i in range(4):
            (tmp_path / "tree" / name / f"{i}.jpg").write_bytes(image(10 * i))
    return tmp_path / "tree"


def test_from_a_folder_to_a_split(tree, tmp_path, capfd):
    prefix = tmp_path / "all"
    assert run("build", tree, prefix, "--threads", 2) == 0
    assert run("verify", f"{prefix}.rec") == 0
    assert run("stats", f"{prefix}.rec", "--json", tmp_path / "stats.json") == 0
    assert run("split", f"{prefix}.rec", f"{tmp_path}/a=0.75", f"{tmp_path}/b=0.25") == 0
    size = (tmp_path / "all.rec").stat().st_size
    out, err = capfd.readouterr()
    assert out.splitlines() == [
        f"{tree}: 8 images, 2 classes, 4 to 4 images each",
        f"{prefix}.rec: 8 records, 2 classes",
        f"{prefix}.rec: 8 records, 0 bad",
        f"{prefix}.rec: 8 records, {size:,} bytes",
        "width    16 to 16 pixels, median 16",
        "height   8 to 8 pixels, median 8",
        "channels 3: 8",
        "formats  jpeg: 8",
        "     0        4 ant",
        "     1        4 bee",
        f"{tmp_path}/a.rec: 6 records",
        f"{tmp_path}/b.rec: 2 records",
    ]
    assert err == ""  # no bar where nobody watches
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert stats["classes"][1] == {"label": 1.0, "name": "bee", "records": 4}
    assert stats["width"] == {"least": 16, "median": 16.0, "most": 16}


def test_build_options(tree, tmp_path, capsys):
    (tree / "bee" / "0.jpg").write_bytes(b"damaged")
    (tree / "bee" / "readme.txt").touch()
    names = tmp_path / "names.txt"
    names.write_text("bee\nant\n")
    with pytest.raises(FormatError, match=r"bee/0\.jpg: not a picture"):
        run("build", tree, tmp_path / "x")
    capsys.readouterr()
    status = run(
        "build", tree, tmp_path / "x", "--skip-bad", "--classes", names, "--resize", 4,
        "--quality", 80, "--encoding", ".png", "--shuffle-seed", 1, "--overwrite",
    )  # fmt: skip
    assert status == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tree}: 8 images, 2 classes, 4 to 4 images each; ignored 1 files that are not pictures: "
        "'bee/readme.txt'",
        f"{tmp_path}/x.rec: 7 records, 2 classes",
        "skipped bee/0.jpg: not a picture: it starts with 64616d61676564; expected JPEG, PNG, BMP, "
        "WebP, TIFF, JPEG 2000, PNM or Sun raster",
    ]
    found = stats.stats(tmp_path / "x.rec")
    assert found.classes == [(0, "bee", 3), (1, "ant", 4)]
    assert (found.width.most, found.height.most, found.formats) == (8, 4, {"png": 7})
    with pytest.raises(FileNotFoundError, match=r"no\.txt: no such class name file"):
        run("build", tree, tmp_path / "y", "--classes", tmp_path / "no.txt")


def test_verify_lists_bad_records(tmp_path, capsys):
    rec = tmp_path / "a.rec"
    with RecordWriter(rec) as writer:
        writer.write(100, 0, image(0))
        writer.write(101, 1, image(0)[:-2])
        writer.write(102, 7, image(0))
    assert run("verify", rec, "--classes", 2, "--json", tmp_path / "bad.json") == 1
    truncated = "truncated JPEG: its end marker is missing"
    label = "the label is 7, expected a whole number from 0 below 2"
    assert capsys.readouterr().out.splitlines() == [
        f"record 1 (key 101): {truncated}",
        f"record 2 (key 102): {label}",
        f"{rec}: 3 records, 2 bad",
    ]
    assert json.loads((tmp_path / "bad.json").read_text()) == {
        "file": str(rec),
        "records": 3,
        "rotated": 0,
        "bad": [
            {"position": 1, "key": 101, "reason": truncated},
            {"position": 2, "key": 102, "reason": label},
        ],
    }


def test_verify_damaged_file(tmp_path, capsys):
    (tmp_path / "a.rec").write_bytes(b"no record file")
    assert run("verify", tmp_path / "a.rec") == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{tmp_path}/a.rec: record 0 at byte 0: no record starts at byte 0")
    assert last == f"{tmp_path}/a.rec: 0 records, 1 bad"
    with pytest.raises(FileNotFoundError, match=r"b\.rec: no such record file"):
        run("verify", tmp_path / "b.rec")


@pytest.mark.thorough
def test_demo(tmp_path, capsys):
    for options in ([], ["--exist-ok"]):
        assert run("demo", tmp_path / "d", "--size", 8, "--seed", 2, *options) == 0
        assert capsys.readouterr().out.splitlines() == [
            f"{tmp_path}/d/train.rec: 1348 records",
            f"{tmp_path}/d/val.rec: 449 records",
        ]


@pytest.mark.parametrize(
    "argv, message",
    [
        (["split", "a.rec", "half"], "'half': expected PREFIX=FRACTION, e.g. train=0.9"),
        (["split", "a.rec", "a=half"], "'half' is not a number: 'a=half'"),
        (["build", "x", "y", "--encoding", ".gif"], "invalid choice: '.gif'"),
        ([], "required"),
    ],
)
def test_wrong_usage(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*argv)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_split_names_a_prefix_twice(tmp_path):
    with pytest.raises(InputError, match="each prefix may be given once, got"):
        run("split", "a.rec", "a=0.5", "a=0.5")


@pytest.mark.parametrize("command", ["build", "verify", "stats", "split", "demo"])
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        run(command, "--help")
    assert stop.value.code == 0
    assert f"  asymmnet records {command} " in capsys.readouterr().out


def test_a_bar_on_a_terminal(tree, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert run("build", tree, tmp_path / "t") == 0
    assert "packing" in capsys.readouterr().err


def test_nothing_heavy_is_imported_for_help():
    code = (
        "import sys; from gluon_asymmnet.cli.records import build_parser;"
        "build_parser('asymmnet records');"
        "print([m for m in ('mxnet', 'sklearn') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_records_need_no_mxnet():
    code = "import sys, gluon_asymmnet.data.digits; print('mxnet' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
