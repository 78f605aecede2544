"""What a shell sees: JSON on standard output, folders of records, completion."""

import json
import shutil

import pytest

from gluon_asymmnet.cli import main
from tests.conftest import run_python


@pytest.fixture
def records(digits, tmp_path):
    for suffix in (".rec", ".idx", ".classes.txt"):
        for folder in ("a", "b/c"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(digits.val.with_suffix(suffix), tmp_path / folder)
    return tmp_path


def test_json_alone_is_on_standard_output(records, capsys):
    assert main(["records", "verify", str(records), "--json", "-"]) == 0
    out, err = capsys.readouterr()
    files = json.loads(out)["files"]
    assert [file["file"] for file in files] == [
        str(records / "a/val.rec"), str(records / "b/c/val.rec")
    ]  # fmt: skip
    assert err.count("449 records, 0 bad") == 2
    assert main(["records", "stats", str(records / "a/val.rec"), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["records"] == 449
    assert main(["summary", "asymmnet_small", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["macs"] > 0


def test_a_bad_file_of_a_folder_is_found(records, capsys):
    file = records / "b/c/val.rec"
    data = bytearray(file.read_bytes())
    data[5000:5400] = bytes(400)
    file.write_bytes(bytes(data))
    assert main(["records", "verify", str(records)]) == 1
    assert "a/val.rec: 449 records, 0 bad" in capsys.readouterr().out
    (records / "empty").mkdir()
    assert main(["records", "verify", str(records / "empty")]) == 2
    assert "no record file (.rec) in this folder" in capsys.readouterr().err


def test_build_makes_its_folder_and_says_at_the_start_what_is_in_the_data(digits, tmp_path, capsys):
    images = digits.val.parent / "images/val"
    assert main(["records", "build", str(images), str(tmp_path / "new/deep/val")]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"{images}: 449 images, 10 classes, 43 to 46 images each")
    assert (tmp_path / "new/deep/val.rec").exists()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("asymmnet tra", {"train", "train-ssd"}),
        ("asymmnet train --num-e", {"--num-epochs"}),
        ("asymmnet train --data-backend o", {"opencv"}),
        ("asymmnet records ver", {"verify"}),
        ("asymmnet records verify --cl", {"--classes"}),
    ],
)
def test_completion(tmp_path, line, expected):
    found = tmp_path / "found"
    run_python(
        "-m", "gluon_asymmnet", _ARGCOMPLETE="1", COMP_LINE=line, COMP_POINT=str(len(line)),
        COMP_TYPE="9", _ARGCOMPLETE_STDOUT_FILENAME=str(found),
    )  # fmt: skip
    assert {word.strip() for word in found.read_text().split("\013")} == expected
