"""Settings from a file, and what ``--print-config`` prints."""

import json

import pytest

from gluon_asymmnet.cli import main
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.detector_config import DetectorConfig
from gluon_asymmnet.utils.settings_file import read_settings

YAML = """\
# names as in --help
recipe: demo
num-epochs: 3
lr: 1e-1        # a text in YAML 1.1
-j: 2
rgb_mean: [1, 2, 3.5]
tag-name: 7
no_wd: false
width:
"""


def printed(capsys, *line):
    assert main([*line, "--print-config"]) == 0
    return json.loads(capsys.readouterr().out)


def test_flags_win_over_the_file_and_the_file_over_the_recipe(tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text(YAML)
    found = printed(capsys, "train", "--config", str(file), "--lr", "0.2")
    assert (found["lr"], found["num_epochs"], found["num_workers"]) == (0.2, 3, 2)
    assert (found["rgb_mean"], found["tag_name"], found["no_wd"]) == ([1, 2, 3.5], "7", False)
    assert (found["model"], found["warmup_epochs"]) == ("asymmnet_small", 2)  # of the recipe


@pytest.mark.parametrize("command", [("train", "--model", "asymmnet_small"), ("train-ssd",)])
def test_what_is_printed_can_be_read(tmp_path, capsys, command):
    first = printed(capsys, *command, "--num-epochs" if command[1:] else "--epochs", "3")
    (tmp_path / "run.json").write_text(json.dumps(first))
    assert printed(capsys, command[0], "--config", str(tmp_path / "run.json")) == first


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("num_epoch: 3", "unknown setting 'num_epoch'; did you mean 'num_epochs'"),
        ("qqqq: 3", "unknown setting 'qqqq'; see --help"),
        ("num_epochs: three", "num_epochs is 'three', expected a whole number"),
        ("num_epochs: 1.5", "num_epochs is 1.5, expected a whole number"),
        ("num_epochs: .inf", "num_epochs is inf, expected a whole number"),
        ("num_epochs: true", "num_epochs is True, expected a whole number"),
        ("no_wd: 1", "no_wd is 1, expected true or false"),
        ("rgb_mean: 3", "rgb_mean is 3, expected a list of numbers"),
        ("model: [a]", r"model is \['a'\], expected a text"),
        ("num_epochs: 1\nnum-epochs: 2", "given twice, under two names"),
        ("[1, 2]", "holds a list, not a mapping"),
        ("a: b: c", "not settings of a training"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path, content, message):
    file = tmp_path / "run.yml"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        read_settings(file, ClassifierConfig)


def test_other_files(tmp_path):
    (tmp_path / "a.yaml").write_text("")
    assert read_settings(tmp_path / "a.yaml", DetectorConfig) == {}
    (tmp_path / "a.json").write_text('{"epochs": 3, "amp": false, "gpus": null}')
    assert read_settings(tmp_path / "a.json", DetectorConfig) == {"num_epochs": 3}
    assert main(["train", "--config", str(tmp_path / "none.json")]) == 2
