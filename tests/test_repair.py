"""Damaged record files: the record is named, and a clean copy made of the others."""

import json
import os
import re
import struct

import numpy as np
import pytest

from gluon_asymmnet.cli.records import build_parser
from gluon_asymmnet.data.records import verify
from gluon_asymmnet.data.records.recordio import MAGIC, RecordFile, pack
from gluon_asymmnet.data.records.repair import repair
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.errors import FormatError, InputError
from tests.record_files import grey, offsets, overwrite

KEYS = [10, 3, 77, 4, 5, 6, 7, 8]


def write(path, payloads=None, keys=KEYS):
    with RecordWriter(path) as writer:
        for i, key in enumerate(keys):
            given = (payloads or {}).get(i)
            writer.write_payload(key, given if given is not None else pack(key, i % 4, grey(9 * i)))
        writer.add_file(path.with_suffix(".lst")).write(
            b"".join(b"%d\t%d\timage %d.png\n" % (key, i % 4, i) for i, key in enumerate(keys))
        )
        writer.add_file(path.with_suffix(".classes.txt")).write(b"a\nb\nc\nd\n")
    return path


@pytest.fixture
def rec(tmp_path):
    return write(tmp_path / "a.rec")


def check(rec, lost, tmp_path, places=1, **kwargs):
    """Repair; all but the records at ``lost`` must be there, byte for byte."""
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    out = tmp_path / "clean.rec"
    report = repair(rec, out, overwrite=True, **kwargs)
    keys = [key for i, key in enumerate(KEYS) if i not in lost]
    with RecordFile(out) as found:
        assert list(found.keys) == keys
        for i, key in enumerate(keys):
            n = KEYS.index(key)
            assert found.payload(i) == pack(key, n % 4, grey(9 * n))
    assert verify.verify(out) == (len(keys), [], 0)
    listed = [int(x.split("\t")[0]) for x in out.with_suffix(".lst").read_text().splitlines()]
    assert listed == keys
    assert {n: (tmp_path / n).read_bytes() for n in before if not n.startswith("clean")} == {
        n: b for n, b in before.items() if not n.startswith("clean")
    }
    assert report.records == len(keys)
    assert len(report.dropped) == places
    return report


def test_a_sound_file_is_copied_byte_for_byte(rec, tmp_path):
    assert check(rec, [], tmp_path, places=0).index is None
    for suffix in (".rec", ".idx", ".lst", ".classes.txt"):
        assert (tmp_path / f"clean{suffix}").read_bytes() == rec.with_suffix(suffix).read_bytes()


def test_every_kind_of_damage_in_the_middle(rec, tmp_path):
    """What is damaged, and only that, is lost; the search goes on at the next magic."""
    sound, at = rec.read_bytes(), offsets(rec)

    def damaged(where, data, lost, reason, places=1):
        rec.write_bytes(sound)
        overwrite(rec, where, data)
        report = check(rec, lost, tmp_path, places)
        assert report.dropped[0].offset == at[lost[0]]
        assert [key for place in report.dropped for key in place.keys] == [KEYS[i] for i in lost]
        assert reason in report.dropped[0].reason

    length = at[4] - at[3] - 8
    damaged(at[3], b"XXXX", [3], f"no record starts at byte {at[3]}")
    damaged(at[3] + 4, struct.pack("<I", length + 40), [3], f"the next one starts at byte {at[4]}")
    damaged(at[3] + 4, struct.pack("<I", 1 << 28), [3], "claims 268435456 bytes")
    damaged(at[3] + 4, struct.pack("<I", length - 24), [3], "truncated PNG")
    damaged(at[3] + 4, struct.pack("<I", 8), [3], "fewer than the 24")
    damaged(at[3] + 4, struct.pack("<I", 3 << 29 | length), [3], "has flag 3")
    damaged(at[3] + 8, struct.pack("<I", 10**6), [3], "announces 1000000 labels")
    damaged(at[3] + 12, struct.pack("<f", np.nan), [3], "the label is nan")
    damaged(at[3] + 12, struct.pack("<f", 9), [3], "expected a whole number from 0 below 4")
    damaged(at[3] + 60, b"\0\xff\0", [3], "damaged PNG")
    damaged(at[0], b"\0" * 8, [0], "no record starts at byte 0")
    damaged(at[3], b"\0" * (at[6] - at[3]), [3, 4, 5], "no record starts")
    damaged(at[7], b"\0" * 9, [7], "no record starts")


def test_a_cut_end(rec, tmp_path):
    """Also what is no longer in the file is named, by the index."""
    at = offsets(rec)
    for cut in (at[6] + 5, at[6] + 40, at[7] - 9):
        os.truncate(rec, cut)
        report = check(rec, [6, 7], tmp_path, places=2)
        assert [(d.offset, d.keys) for d in report.dropped] == [(at[6], [7]), (cut, [8])]
        assert "the file ends before these records" in report.dropped[1].reason
        rec = write(tmp_path / f"{cut}.rec")
    os.truncate(rec, at[7])
    assert check(rec, [7], tmp_path).dropped[0].keys == [8]


def test_a_payload_with_the_magic_inside(tmp_path):
    """Its pieces are joined again; a broken chain of pieces is one damaged place."""
    split = pack(4, 3, grey(1) + MAGIC * 2)
    rec = write(tmp_path / "a.rec", {3: split})
    out = tmp_path / "clean.rec"
    assert repair(rec, out) == (8, [], None)
    assert rec.read_bytes() == out.read_bytes()
    overwrite(rec, offsets(rec)[3] + 4, struct.pack("<I", 2 << 29 | 40))
    check(rec, [3], tmp_path)


@pytest.mark.parametrize("index", [b"no index", b"3\t0\n3\t8\n", None])
def test_without_a_sound_index_the_headers_give_the_keys(rec, tmp_path, index):
    at = offsets(rec)[2]
    overwrite(rec, at, b"XXXX")
    if index is None:
        rec.with_suffix(".idx").unlink()
    else:
        rec.with_suffix(".idx").write_bytes(index)
    report = check(rec, [2], tmp_path)
    assert (report.index is None) == (index is None)
    assert report.dropped[0].keys == []


def test_repeated_ids_get_free_keys(tmp_path):
    rec = write(tmp_path / "a.rec", {i: pack(7, 0, grey(i)) for i in range(8)})
    rec.with_suffix(".idx").unlink()
    repair(rec, tmp_path / "b.rec")
    with RecordFile(tmp_path / "b.rec") as found:
        assert list(found.keys) == list(range(7, 15))


def test_the_source_is_never_written_over(rec, tmp_path):
    os.link(rec, tmp_path / "hard.rec")
    os.symlink(rec.with_suffix(".idx"), tmp_path / "soft.idx")
    for out in (rec, tmp_path / "x/../a.rec", tmp_path / "hard.rec", tmp_path / "soft.rec"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="belongs to the source, which stays as it is"):
            repair(rec, out, overwrite=True)
    with pytest.raises(InputError, match=r"b: expected a name that ends in \.rec"):
        repair(rec, tmp_path / "b")
    (tmp_path / "b.idx").write_text("mine")
    with pytest.raises(InputError, match=r"b\.idx exists and is not overwritten"):
        repair(rec, tmp_path / "b.rec")
    assert (tmp_path / "b.idx").read_text() == "mine"
    assert not (tmp_path / "b.rec").exists()


@pytest.mark.parametrize("content", [b"", b"no records at all", MAGIC * 3])
def test_nothing_usable_writes_nothing(tmp_path, content):
    (tmp_path / "a.rec").write_bytes(content)
    with pytest.raises(FormatError, match=r"a\.rec: .*(empty|nothing in its)"):
        repair(tmp_path / "a.rec", tmp_path / "b.rec")
    assert [p.name for p in tmp_path.iterdir()] == ["a.rec"]


@pytest.mark.parametrize("i", [0, 3, 7])
def test_a_bad_record_is_named_by_number_key_and_byte(rec, i):
    at = offsets(rec)[i]
    name = re.escape(f"{rec}: record {i} (key {KEYS[i]}) at byte {at}: no record starts")
    with RecordFile(rec, rec.with_suffix(".idx")) as file:
        overwrite(rec, at, b"XXXX")
        with pytest.raises(FormatError, match=f"^{name}"):
            file.read(i)
    with pytest.raises(FormatError, match=f"^{name}"):
        RecordFile(rec, rec.with_suffix(".idx"))


def test_command(rec, tmp_path, capsys):
    parser = build_parser("asymmnet records")

    def run(*argv):
        args = parser.parse_args(["repair", *map(str, argv)])
        return args.run(args)

    assert run(rec, tmp_path / "b.rec") == 0
    overwrite(rec, offsets(rec)[1], b"XXXX")
    assert run(rec, tmp_path / "c.rec", "--json", tmp_path / "c.json") == 1
    first, second, third = capsys.readouterr().out.splitlines()
    at, end = offsets(rec)[1:3]
    assert first == f"{tmp_path}/b.rec: 8 records, 0 damaged places dropped"
    assert second.startswith(f"dropped at bytes {at} to {end} (key 3): no record starts at byte")
    assert third == f"{tmp_path}/c.rec: 7 records, 1 damaged places dropped"
    found = json.loads((tmp_path / "c.json").read_text())
    assert (found["records"], found["dropped"][0]["keys"]) == (7, [3])
