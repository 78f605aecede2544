"""The commands as a user meets them."""

import os
import re

import numpy as np
import pytest

from gluon_asymmnet.cli import COMMANDS, main
from gluon_asymmnet.weights.params_file import write_params
from tests.conftest import ROOT, run_python

_HELP = """\
import sys
from gluon_asymmnet.cli import main
try: main(sys.argv[2:])
except SystemExit: pass
sys.exit(len(set(sys.argv[1].split(",")) & sys.modules.keys()))
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_useful_help_and_loads_no_mxnet_for_it(command):
    done = run_python("-c", _HELP, "mxnet", command, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: asymmnet {command} [-h]")
    assert len(done.stdout.splitlines()) > 5


def test_help_lists_the_commands_and_loads_none():
    modules = {f"gluon_asymmnet.cli.{command.module}" for command in COMMANDS.values()}
    done = run_python("-c", _HELP, ",".join([*modules, "numpy", "cv2", "mxnet"]), "--help")
    assert done.returncode == 0
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{command.help}$", done.stdout, re.MULTILINE)
    assert {"train", "train-ssd", "eval", "export", "predict", "detect"} < COMMANDS.keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["xyzzy", "--help"], "unknown command 'xyzzy'; asymmnet --help lists all"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_unknown_commands(words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert message in capsys.readouterr().err


@pytest.mark.thorough
def test_doctor():
    done = run_python("-m", "gluon_asymmnet", "doctor")
    assert done.returncode == 0, done.stdout
    assert "ok  MXNet 1.9.1" in done.stdout
    broken = run_python("-m", "gluon_asymmnet", "doctor", PYTHONPATH=f"{ROOT}:{ROOT}/tests/broken")
    assert broken.returncode == 1
    assert (
        "BAD tensorboardX: ImportError: broken on purpose\n    mend: pip install" in broken.stdout
    )


@pytest.mark.parametrize(
    "script", ["train_imagenet.py", "train_ssd.py", "eval.py", "export.py", "benchmark.py"]
)
def test_scripts_are_thin(script):
    text = (ROOT / script).read_text()
    assert len(text.splitlines()) <= 10
    assert "mxnet" not in text
    done = run_python(ROOT / script, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: {script} [-h]")


BAD = {
    "missing.params": None,
    "empty.params": b"",
    "garbage.params": os.urandom(1000),
    "text.params": b"not parameters",
    "picture.params": b"\xff\xd8\xff\xe0" + bytes(100),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.thorough
def test_bad_weights(tmp_path, digits, name):
    if BAD[name] is not None:
        (tmp_path / name).write_bytes(BAD[name])
    _one_line(
        2, name, "eval.py", "imagenet", tmp_path / name, "--model", "asymmnet_small", "--rec-val",
        digits.val,
    )  # fmt: skip


@pytest.mark.thorough
def test_truncated_and_foreign_weights(tmp_path, digits):
    write_params(tmp_path / "foreign.params", {"a": np.zeros(3, np.float32)})
    data = (tmp_path / "foreign.params").read_bytes()
    (tmp_path / "cut.params").write_bytes(data[: len(data) // 2])
    for name in ("foreign.params", "cut.params"):
        _one_line(2, name, "eval.py", "imagenet", tmp_path / name, "--model", "asymmnet_small",
                  "--rec-val", digits.val)  # fmt: skip


@pytest.mark.parametrize(
    ("rec", "idx"),
    [
        (b"", None),
        (b"garbage" * 100, None),
        (None, b"0\t0\n1\t99999999\n"),
        (None, b"no index"),
        (None, b""),
    ],
)
@pytest.mark.thorough
def test_bad_records(tmp_path, digits, rec, idx):
    good = digits.val
    (tmp_path / "a.rec").write_bytes(good.read_bytes() if rec is None else rec)
    (tmp_path / "a.idx").write_bytes(good.with_suffix(".idx").read_bytes() if idx is None else idx)
    line = ["--model", "asymmnet_small", "--rec-train", tmp_path / "a.rec", "--rec-train-idx",
            tmp_path / "a.idx", "--save-dir", tmp_path / "out"]  # fmt: skip
    _one_line(2, "a.", "train_imagenet.py", *line)
    assert not (tmp_path / "out").exists()


@pytest.mark.thorough
def test_an_unwritable_place(tmp_path, digits):
    (tmp_path / "file").write_text("")
    expected = "file is a file; expected a folder"
    _one_line(2, expected, "eval.py", "imagenet", _weights(tmp_path), "--rec-val", digits.val,
              "--json", tmp_path / "file/result.json", *NAMED)  # fmt: skip
    _one_line(2, expected, "export.py", "symbol", _weights(tmp_path), tmp_path / "file/out", *NAMED)


def test_a_full_disk(tmp_path):
    """RLIMIT_FSIZE stands for it: the weights of 2.9 MB do not fit into 100 kB."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "from gluon_asymmnet.weights.params_file import write_params; import numpy as np;"
        "from gluon_asymmnet.cli import guarded;"
        "sys.exit(guarded(lambda: write_params(sys.argv[1], {'a': np.zeros(10**6)}), 'test'))"
    )
    done = run_python("-c", code, tmp_path / "a.params")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


NAMED = ("--model", "asymmnet_small_0.35", "--classes", 10, "--input-size", 32)


def _weights(folder):
    from gluon_asymmnet.zoo import get_model

    net = get_model("asymmnet_small_0.35", classes=10)
    net.initialize()
    net.save_parameters(str(folder / "net.params"))
    return folder / "net.params"


def _one_line(status, text, script, *arguments):
    done = run_python(ROOT / script, *arguments)
    lines = [
        line for line in done.stderr.splitlines() if not line.startswith(("engine: ", "data: "))
    ]
    assert (done.returncode, len(lines)) == (status, 1), done.stderr
    assert text in lines[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("records demo out --seed -1", "seed must be 0 to 4294967295, got -1"),
        ("launch -n 1 --timeout nan -- true", "--timeout must be at least 1, got nan"),
        (
            "launch -n 1 --port 65536 -- true",
            r"--port must be 0 \(a free one\) to 65535, got 65536",
        ),
        ("launch -n 1 --port -1 -- true", "--port must be 0 .*, got -1"),
        ("eval voc x --iou nan", "--iou must be above 0 and at most 1, got nan"),
        ("summary asymmnet_small --width nan", "width must be a number above 0 .* got nan"),
        ("decompose x out --memory nan", "--memory must be a number of GiB above 0, got nan"),
    ],
)
def test_numbers_that_cannot_be_meant(line, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    assert re.search(message, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []
