"""A short part of the fuzzing campaign, and that the campaign sees what it looks for."""

import io
import json
import struct
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest

from gluon_asymmnet.data.records.recordio import MAGIC
from tests.conftest import ROOT, run_python
from tests.fuzz.broken import BROKEN
from tests.fuzz.parsers.base import REFUSALS
from tests.fuzz.targets import TARGETS, input_of

REPORT = ROOT / "docs/data/fuzzing.json"


@pytest.mark.thorough
def test_no_parser_fails_on_a_few_thousand_inputs(tmp_path):
    """Others than those of the campaign: another seed."""
    report = tmp_path / "report.json"
    done = run_python(
        "-m", "tests.fuzz.campaign", "--inputs", 150, "--seed", 1, "--report", report, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(report.read_text())["results"]
    assert set(results) == set(TARGETS)
    for name, found in results.items():
        assert found["inputs"] == found["accepted"] + found["refused"] == 150, name
        assert found["accepted"], f"{name}: only refusals, so little of it was reached"


def test_the_report_is_that_of_all_parsers():
    results = json.loads(REPORT.read_text())["results"]
    assert set(results) == set(TARGETS)
    for name, found in results.items():
        assert found["inputs"] == found["accepted"] + found["refused"] == 100_000, name
        assert found["crashes"] == found["hangs"] == 0, name


@pytest.mark.parametrize("name", TARGETS)
def test_an_input_is_a_function_of_its_number(name):
    seeds = TARGETS[name].seeds()
    once = [input_of(name, seeds, 0, i) for i in range(30)]
    assert once == [input_of(name, seeds, 0, i) for i in range(30)]
    assert len(set(once)) > 10


@pytest.mark.thorough
def test_broken_parsers_are_found():
    """Each kind of failure is counted, with the input that did it, and the campaign goes on."""
    done = run_python("-m", "tests.fuzz.broken", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert set(results) == set(BROKEN)
    for what, found in results.items():
        assert found["inputs"] == 2, what
        assert {failure["kind"] for failure in found["failures"]} == {BROKEN[what].kind}, what
        hangs = 2 if what in ("a hang", "waiting") else 0
        assert (found["hangs"], found["crashes"]) == (hangs, 2 - hangs), what


def changed(name, **fields):
    """The JSON of a parser's first seed with some values replaced."""
    return json.dumps({**json.loads(TARGETS[name].seeds()[0]), **fields}).encode()


def bomb():
    """30 MB of zeros as an .npz of 30 kB."""
    out = io.BytesIO()
    np.savez_compressed(out, a=np.zeros(30_000_000, np.uint8))
    return out.getvalue()


def lying_npz():
    """An array of a terabyte, of which 4 bytes are there."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (274877906944,), }\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
        archive.writestr("a.npy", head + bytes(4))
    return out.getvalue()


def lying_tar(size):
    """A long name of so many bytes, in an archive of 1,024."""
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, size
    return member.tobuf(tarfile.GNU_FORMAT) + bytes(512)


def swallowing_record():
    """A first record whose length takes in the second, which was read as one sound record."""
    data = bytearray(TARGETS["recordio"].seeds()[0])
    start = data.index(MAGIC, 4)
    second = data.index(MAGIC, start + 4)
    data[4:8] = struct.pack("<I", second - 8)
    return bytes(data)


FOUND = {  # by campaigns: what the parser did, as a comment, and what it must say
    "card": [
        (b"[" * 100_000, "not the card of a model"),  # RecursionError
        (changed("card", width=10**400), "width is 1000"),  # OverflowError
        (changed("card", rate=2**31), "rate must be a whole number from 0 to 64"),  # a hang
        (changed("card", stem="x" * 5000), "stem is 'xxx"),  # a message of 5,000 characters
        (changed("card", rgb_mean=[1, 2, float("nan")]), "expected three values"),
    ],
    "detector card": [
        (b'{"a":' * 20_000, "not the card of a model"),  # RecursionError
        (changed("detector card", nms_topk="many"), "nms_topk is 'many', expected a whole number"),
    ],
    "classifier config": [
        (b"[" * 100_000, "not the configuration of a run"),  # RecursionError
        (changed("classifier config", lr=[[]]), "lr is \\[\\[\\]\\], expected a number"),
        (changed("classifier config", **{"a\nb": 1}), "it has 'a\\\\nb'"),  # two lines
    ],
    "safetensors": [  # a message of 5,000 characters
        (
            struct.pack("<Q", 6048) + b'{"a": {"dtype": "F32", "shape": ["' + b"x" * 5975
            + b'"], "data_offsets": [0, 8]}}'.ljust(39),
            "invalid type: string",
        ),
    ],
    "npz": [
        (bomb(), "more than 64 times as many"),
        (lying_npz(), "an array is cut off"),
    ],
    "tar": [
        (lying_tar(8**11 - 1), "damaged tar file"),  # 8 GB of memory
        (lying_tar(2**62), "damaged tar file"),  # MemoryError
    ],
    "manifest": [
        (changed("manifest", files={"a\nb": 1}), "names 'a"),  # two lines
        (changed("manifest", files={"x" * 5000: 1}), "names 'xxx"),  # 5,000 characters
    ],
    "coco json": [
        (
            changed("coco json", images=[{"id": 5, "file_name": "\ud800"}]),
            r"'\\ud800' is not a path below",  # UnicodeEncodeError
        ),
        (
            changed("coco json", images=[{"id": 5, "file_name": "a\nb"}]),
            r"'a\\nb' is not a path below",  # two lines
        ),
    ],
    "yolo labels": [
        (b"1e999 0.5 0.5 0.5 0.5", "class 1e999 is not one of the 2"),  # OverflowError
        (b"0 1e999 0.5 1e999 0.5", "leaves the picture"),  # a box of nan
    ],
    "yolo data": [
        (b"train: " + b"x" * 300, "[Ff]ile name too long"),  # OSError
        (b"train: ['a\n\n b']", r"data.yaml: 'a\\nb': no such file or folder in"),  # two lines
    ],
    "lst": [(b"0\t2\t1e30\ta.jpg\n", "an object has 1e\\+30 numbers")],  # ValueError
    "image set": [(b"x" * 300, "expected an image id")],  # OSError
    "recordio": [(swallowing_record(), "but the next one starts at byte")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [pytest.param(name, *case, id=f"{name}-{i}") for name in FOUND for i, case in
     enumerate(FOUND[name])],
)  # fmt: skip
def test_what_campaigns_have_found(tmp_path, name, data, message):
    tracemalloc.start()
    try:
        with pytest.raises(REFUSALS, match=message) as caught:
            TARGETS[name].read(tmp_path, data)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500
