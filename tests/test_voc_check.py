"""The report of all that is wrong with a VOC folder, and ``asymmnet voc check``."""

import json
import re

import pytest

from gluon_asymmnet.cli.voc import build_parser
from gluon_asymmnet.data.boxes.findings import Problem
from gluon_asymmnet.data.boxes.voc_check import check
from gluon_asymmnet.errors import InputError
from tests.test_voc import HEIGHT, MALFORMED, WIDTH, make, picture, thing, xml


@pytest.fixture
def root(tmp_path):
    objects = thing(), thing("person", (1, 1, 40, 30), difficult="1")
    return make(tmp_path, {"000001": xml(*objects), "000002": xml()})


@pytest.fixture
def broken(tmp_path):
    """A folder with every malformed annotation and more; the number of problems in it."""
    annotations = {f"{n:03d}": content for n, (content, _) in enumerate(MALFORMED.values())}
    make(tmp_path, {"good": xml(thing(), thing("DOG", (0, 1, 9, 9), "1")), **annotations})
    twice = xml(thing("yeti"), thing("ghost"), thing(box=(9, 9, 1, 1)))
    make(tmp_path, {"empty": xml(), "two_a_time": twice, "turned": xml(thing())}, "val")
    (tmp_path / "VOC2007" / "JPEGImages" / "turned.jpg").write_bytes(picture(HEIGHT, WIDTH))
    (tmp_path / "VOC2007" / "JPEGImages" / "empty.jpg").unlink()
    (tmp_path / "VOC2007" / "ImageSets" / "Main" / "train.txt").write_text("../x\ngood\ngood\n")
    return tmp_path, len(MALFORMED) + 3 + 1 + 1 + 2


def test_report_lists_everything(broken):
    root, count = broken
    report = check(root)
    text = "\n".join(f"{problem.file}: {problem.message}" for problem in report.problems)
    said = {}
    for number, (_, message) in enumerate(MALFORMED.values()):
        (problem,) = (p for p in report.problems if p.file.endswith(f"{number:03d}.xml"))
        assert re.search(message, problem.message)
        said[number] = problem.message
    assert len(set(said.values())) == len(MALFORMED) - 2  # three declare a document type
    for message in ("turned.jpg: .* 30 x 40", "empty.jpg: no such file", "line 1 is '../x'",
                    "line 3: good is listed for the second time", "ghost", "yeti"):  # fmt: skip
        assert re.search(message, text)
    assert len(report.problems) == count == len(text.splitlines())
    assert [problem.kind for problem in report.repaired] == ["renamed", "clipped"]
    assert report.images == len(MALFORMED) + 1 + 3
    assert report.classes["dog"] == report.objects == 1 + 1 + 1 + 1  # good (2), inverted, turned
    assert report.difficult == 1


def test_report_of_a_good_folder(root):
    seen = []
    report = check(root, progress=lambda done, total: seen.append((done, total)), threads=1)
    assert report.problems == report.repaired == []
    assert (report.images, report.objects, report.difficult, report.empty) == (2, 2, 1, 1)
    assert report.classes["dog"] == report.classes["person"] == 1
    assert seen == [(1, 2), (2, 2)]


def test_report_of_pictures(root):
    path = root / "VOC2007" / "JPEGImages" / "000001.jpg"
    path.write_bytes(picture()[:-2])
    expected = Problem(str(path), "broken", "truncated JPEG: its end marker is missing")
    assert check(root).problems == [expected]
    assert check(root, decode_images=False).problems == []  # headers only


def test_report_of_a_missing_list(root, tmp_path):
    report = check(root, [(2007, "test"), (2012, "test")])
    assert [problem.message for problem in report.problems] == ["no such list of images"]
    assert report.images == 2
    with pytest.raises(FileNotFoundError, match="absent: no such folder"):
        check(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="absent: no such folder"):
        check(tmp_path / "absent", [(2007, "test")])
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="nothing holds no split: expected VOC2007"):
        check(tmp_path / "nothing")


# ------------------------------------------------------------------- the command


def run(*words):
    parser = build_parser("asymmnet voc")
    args = parser.parse_args([*map(str, words)])
    return args.run(args)


def test_check_command(root, capsys):
    assert run("check", root, "--headers-only", "--threads", 2) == 0
    output = capsys.readouterr().out
    assert "       1 dog\n" in output
    assert output.endswith(
        f"{root}: 2 images, 1 without objects; 2 objects, 1 difficult; 0 problems, 0 repaired\n"
    )


def test_check_command_finds_problems(broken, tmp_path, capsys):
    root, count = broken
    assert run("check", root, "--json", tmp_path / "out.json") == 1
    result = json.loads((tmp_path / "out.json").read_text())
    assert len(result["problems"]) == count
    assert result["problems"][0].keys() == {"file", "kind", "message"}
    assert f"{count} problems, 2 repaired" in capsys.readouterr().out


def test_check_command_with_splits_and_classes(root, tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("dog\n")
    assert run("check", root, "--splits", "2007_test", "--classes", names) == 1
    assert "object 2 ('person'): unknown class; expected one of dog;" in capsys.readouterr().out
    make(root, {"1": xml()}, "train", "my_set")
    assert run("check", root, "--splits", "my_set_train,VOC2007_test") == 0
    with pytest.raises(InputError, match="'2007' is not a split: expected YEAR_NAME"):
        run("check", root, "--splits", "2007")


@pytest.mark.parametrize("words", [["--threads", "0"], ["--threads", "x"]])
def test_wrong_flags(root, capsys, words):
    with pytest.raises(SystemExit):
        run("check", root, *words)
    assert "expected" in capsys.readouterr().err
