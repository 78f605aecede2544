"""Record files from folders: building, verification, statistics, splitting."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gluon_asymmnet.data.class_names import class_names_path, read_class_names
from gluon_asymmnet.data.image_headers import image_info
from gluon_asymmnet.data.images import decode, encode
from gluon_asymmnet.data.records import build, stats, verify
from gluon_asymmnet.data.records.recordio import RecordFile
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.data.sources import RecordSource, count_rotated
from gluon_asymmnet.errors import FormatError, InputError
from tests.record_files import QUARTER_TURN, bomb, edit, jpeg, noise, png, with_exif

# --- From folders to records -----------------------------------------------------------------


@pytest.fixture
def tree(tmp_path):
    """Classes ant (2 JPEG), bee (1 JPEG, 1 PNG), cat (1 JPEG), all 32 x 24."""
    root = tmp_path / "tree"
    for path, image in {
        "bee/1.JPEG": jpeg(2), "bee/2.Png": encode(noise(seed=3), ".png"),
        "ant/1.jpg": jpeg(0), "ant/2.jpg": jpeg(1), "cat/x.jpg": jpeg(4),
        "cat/notes.txt": b"hello", "cat/.hidden.jpg": b"",
    }.items():  # fmt: skip
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(image)
    return root


def read_all(prefix):
    with RecordFile(f"{prefix}.rec") as file:
        return [file.read(i) for i in range(len(file))]


def test_build(tree, tmp_path):
    seen = []
    report = build.build(tree, tmp_path / "t", progress=lambda *done: seen.append(done))
    remarks = ["ignored 1 hidden files or folders: 'cat/.hidden.jpg'",
               "ignored 1 files that are not pictures: 'cat/notes.txt'"]  # fmt: skip
    assert report == (5, ["ant", "bee", "cat"], [], remarks)
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    found = read_all(tmp_path / "t")
    assert [(r.key, r.label) for r in found] == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2)]
    assert [r.image for r in found[:3]] == [jpeg(0), jpeg(1), jpeg(2)]  # stored as they are
    assert image_info(found[3].image).format == "jpeg"
    error = np.abs(decode(found[3].image).astype(int) - noise(seed=3))
    assert error.mean() < 4  # of 255; colour is stored at half the resolution
    assert (tmp_path / "t.lst").read_text() == (
        "0\t0.000000\tant/1.jpg\n1\t0.000000\tant/2.jpg\n2\t1.000000\tbee/1.JPEG\n"
        "3\t1.000000\tbee/2.Png\n4\t2.000000\tcat/x.jpg\n"
    )
    assert read_class_names(tmp_path / "t.rec") == ["ant", "bee", "cat"]
    assert verify.verify(tmp_path / "t.rec") == (5, [], 0)


def test_build_png_is_exact(tree, tmp_path):
    build.build(tree, tmp_path / "t", encoding=".png")
    found = read_all(tmp_path / "t")
    assert {image_info(r.image).format for r in found} == {"png"}
    np.testing.assert_array_equal(decode(found[0].image), decode(jpeg(0)))
    assert found[3].image == (tree / "bee/2.Png").read_bytes()


@pytest.mark.parametrize("resize, expected", [(12, (16, 12)), (48, (64, 48))])
def test_build_resizes_the_shorter_side(tree, tmp_path, resize, expected):
    build.build(tree, tmp_path / "t", resize=resize)
    assert {image_info(r.image)[1:3] for r in read_all(tmp_path / "t")} == {expected}


def test_build_keeps_bytes_of_images_that_fit_already(tree, tmp_path):
    build.build(tree, tmp_path / "t", resize=24)
    assert read_all(tmp_path / "t")[0].image == jpeg(0)


def test_build_does_not_depend_on_threads(tree, tmp_path):
    for i in range(40):
        (tree / "ant" / f"more{i}.jpg").write_bytes(jpeg(i, height=8 + 8 * (i % 5)))
    for threads in (1, 7):
        build.build(tree, tmp_path / f"t{threads}", resize=9, shuffle_seed=3, threads=threads)
    for suffix in ("rec", "idx", "lst", "classes.txt"):
        one, seven = (tmp_path / f"t{threads}.{suffix}" for threads in (1, 7))
        assert one.read_bytes() == seven.read_bytes()
    labels = [r.label for r in read_all(tmp_path / "t1")]
    assert labels != sorted(labels)


def test_build_with_classes_given(tree, tmp_path):
    shutil.rmtree(tree / "ant")
    report = build.build(tree, tmp_path / "val", classes=["ant", "bee", "cat", "dog"])
    assert [r.label for r in read_all(tmp_path / "val")] == [1, 1, 2]
    assert report.classes == ["ant", "bee", "cat", "dog"]
    assert "no folder for 2 of 4 classes: 'ant', 'dog'" in report.remarks
    with pytest.raises(InputError, match=r"only in the folders of .*tree: 'bee'; only in"):
        build.build(tree, tmp_path / "other", classes=["cat"])


def test_build_names_a_bad_image(tree, tmp_path):
    (tree / "bee" / "1.JPEG").write_bytes(jpeg(2)[:-9])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FormatError, match=r"bee/1\.JPEG: truncated JPEG: its end marker is miss"):
        build.build(tree, tmp_path / "t")
    assert sorted(tmp_path.iterdir()) == before
    report = build.build(tree, tmp_path / "t", skip_bad=True)
    assert report.skipped == [("bee/1.JPEG", "truncated JPEG: its end marker is missing")]
    assert [(r.key, r.label) for r in read_all(tmp_path / "t")] == [(0, 0), (1, 0), (2, 1), (3, 2)]


def test_build_leaves_out_every_kind_of_fault(tree, tmp_path):
    (tree / "bee" / "0.jpg").symlink_to(tmp_path / "gone.jpg")
    (tree / "bee" / "3.gif").write_bytes(b"GIF89a" + bytes(20))
    (tree / "bee" / "4.png").write_bytes(encode(np.zeros((4, 20_000, 3), np.uint8), ".png"))
    with pytest.raises(FormatError, match=r"bee/0\.jpg: no such file .*; .* add --skip-bad"):
        build.build(tree, tmp_path / "t", resize=16)
    report = build.build(tree, tmp_path / "t", resize=16, skip_bad=True)
    assert [(path, reason.split(",")[0].split(":")[0]) for path, reason in report.skipped] == [
        ("bee/0.jpg", "no such file or directory"),
        ("bee/3.gif", "a GIF"),
        ("bee/4.png", "the picture is too narrow"),
    ]
    assert len(read_all(tmp_path / "t")) == 5


def test_build_all_bad(tmp_path):
    (tmp_path / "tree" / "a").mkdir(parents=True)
    (tmp_path / "tree" / "a" / "1.jpg").write_bytes(b"no")
    with pytest.raises(InputError, match="none of the 1 images is readable"):
        build.build(tmp_path / "tree", tmp_path / "t", skip_bad=True)
    assert [p.name for p in tmp_path.iterdir()] == ["tree"]


def test_build_wrong_trees(tree, tmp_path):
    expected = "expected one folder per class"
    with pytest.raises(FileNotFoundError, match=f"none: no such folder; {expected}"):
        build.build(tmp_path / "none", tmp_path / "t")
    with pytest.raises(InputError, match=f"x.jpg: is a file; {expected}"):
        build.build(tree / "cat" / "x.jpg", tmp_path / "t")
    with pytest.raises(InputError, match=f"1 images in no class folder, e.g. x.jpg; {expected}"):
        build.build(tree / "cat", tmp_path / "t")
    with pytest.raises(InputError, match=f"holds the folder 'ant'; {expected}"):
        build.build(tmp_path, tmp_path / "t")
    (tmp_path / "hollow").mkdir()
    with pytest.raises(InputError, match=f"hollow: no class folders; {expected}"):
        build.build(tmp_path / "hollow", tmp_path / "t")
    (tmp_path / "hollow" / "a").mkdir()
    with pytest.raises(InputError, match="hollow: no picture in the class folders 'a'; add some"):
        build.build(tmp_path / "hollow", tmp_path / "t")
    (tmp_path / "hollow" / "a" / "tab\t.jpg").touch()
    with pytest.raises(InputError, match="holds a tab or a line break; rename it"):
        build.build(tmp_path / "hollow", tmp_path / "t")


@pytest.mark.parametrize(
    "option, message",
    [
        ({"resize": -1}, "resize must be 0 .* got -1"),
        ({"quality": 0}, "quality must be 1 to 100, got 0"),
        ({"encoding": ".gif"}, "encoding must be '.jpg' or '.png', got '.gif'"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"classes": ["ant", "bee", "cat", ""]}, "one line each and not empty"),
    ],
)
def test_build_wrong_options(tree, tmp_path, option, message):
    with pytest.raises(InputError, match=message):
        build.build(tree, tmp_path / "t", **option)
    assert [p.name for p in tmp_path.iterdir()] == ["tree"]


def test_build_never_overwrites(tree, tmp_path):
    (tmp_path / "t.lst").write_text("precious")
    with pytest.raises(InputError, match=r"t\.lst exists"):
        build.build(tree, tmp_path / "t")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.lst", "tree"]


# --- Looking at records ----------------------------------------------------------------------


def test_verify_lists_every_kind_of_bad_record(tmp_path):
    rec = tmp_path / "a.rec"
    with RecordWriter(rec) as writer:
        writer.write(0, 1, jpeg())
        writer.write(1, 2, jpeg()[:-5])
        writer.write(2, float("nan"), jpeg())
        writer.write(3, 0.5, jpeg())
        writer.write(4, 3, jpeg())
        writer.write(5, -1, jpeg())
        writer.write(6, [0.25, 0.75], jpeg())
        writer.write(7, [0.25, np.inf], jpeg())
        writer.write(8, 0, bomb(60_000, 60_000))
        writer.write_payload(9, b"tiny")
        writer.write(10, 0, jpeg())
    seen = []
    report = verify.verify(rec, classes=3, progress=lambda *done: seen.append(done))
    assert report.records == 11
    assert seen[-1] == (11, 11)
    assert [(bad.position, bad.key) for bad in report.bad] == [
        (i, i) for i in (1, 2, 3, 4, 5, 7, 8, 9)
    ]
    reasons = {bad.key: bad.reason for bad in report.bad}
    assert reasons[1] == "truncated JPEG: its end marker is missing"
    assert reasons[2] == "the label is nan, expected a finite number"
    assert reasons[3] == "the label is 0.5, expected a whole number from 0 below 3"
    assert reasons[4] == "the label is 3, expected a whole number from 0 below 3"
    assert reasons[8].startswith("the header claims 60000 x 60000 pixels")
    assert reasons[9].startswith("the record holds 4 bytes")
    assert [bad.key for bad in verify.verify(rec).bad] == [1, 2, 3, 5, 7, 8, 9]  # no bound
    with pytest.raises(InputError, match="classes must be at least 1, got 0"):
        verify.verify(rec, classes=0)


def test_verify_takes_the_number_of_classes_from_the_names(rec):
    class_names_path(rec).write_text("a\nb\n")
    assert [bad.key for bad in verify.verify(rec).bad] == [12, 15]
    class_names_path(rec).write_bytes(b"\xff\xf0")
    assert "is not UTF-8 text" in verify.verify(rec).bad[0].reason


def test_rotated_images_are_counted_and_turned(tmp_path):
    turned = with_exif(jpeg(), QUARTER_TURN)
    with RecordWriter(tmp_path / "a.rec") as writer:
        for key, image in enumerate((jpeg(), turned, turned)):
            writer.write(key, 0, image)
    assert verify.verify(tmp_path / "a.rec") == (3, [], 2)
    with RecordSource(tmp_path / "a.rec") as source:
        assert count_rotated(source) == 2
        assert decode(source.read(1).image).shape == (32, 24, 3)


def test_verify_damage_inside(rec):
    with RecordFile(rec) as file:
        third = int(file._offsets[2])
    edit(rec, **{f"at{third}": b"XXXX"})
    report = verify.verify(rec)
    assert report.records == 6
    assert [bad.position for bad in report.bad] == [None, 2]


def test_stats(tmp_path):
    with RecordWriter(tmp_path / "a.rec") as writer:
        writer.write(0, 2, jpeg(height=10, width=20))
        writer.write(1, 0, jpeg(height=30, width=20))
        writer.write(2, 2, png(np.zeros((50, 40), np.uint8)))
        writer.write(3, [1, 2], jpeg(height=30, width=20))
    class_names_path(tmp_path / "a.rec").write_text("ant\nbee\n")
    assert stats.stats(tmp_path / "a.rec") == stats.Stats(
        records=4,
        bytes=(tmp_path / "a.rec").stat().st_size,
        classes=[(0, "ant", 1), (1, "bee", 0), (2, None, 2)],
        several_labels=1,
        width=(20, 20, 40),
        height=(10, 30, 50),
        channels={1: 1, 3: 3},
        formats={"jpeg": 3, "png": 1},
    )


def test_stats_names_a_damaged_record(tmp_path):
    with RecordWriter(tmp_path / "a.rec") as writer:
        writer.write(5, 0, b"GIF89a..")
    with pytest.raises(FormatError, match=r"record 0 \(key 5\) at byte 0: a GIF, which is not"):
        stats.stats(tmp_path / "a.rec")


def test_class_names(tmp_path):
    rec = tmp_path / "a.rec"
    assert read_class_names(rec) is None
    names = tmp_path / "a.classes.txt"
    names.write_bytes("Bär\r\nhen of the woods\r\n".encode())
    assert read_class_names(rec) == ["Bär", "hen of the woods"]
    names.write_text("a\n\nb\n")
    with pytest.raises(FormatError, match=r"a\.classes\.txt: line 2 is empty; expected a class"):
        read_class_names(rec)


# --- Splitting -------------------------------------------------------------------------------


@pytest.mark.thorough
@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=5, max_size=30),
    fraction=st.sampled_from([0.1, 0.25, 0.5]),
)
def test_allocate_keeps_the_fractions(counts, fraction):
    labels = np.repeat(np.arange(len(counts)), counts)
    if len(labels) * fraction < 1:
        return
    train, val = stats.allocate(labels, [1 - fraction, fraction])
    assert sorted([*train, *val]) == list(range(len(labels)))
    assert abs(len(val) - fraction * len(labels)) <= 1
    for label, count in enumerate(counts):
        assert abs((labels[val] == label).sum() - fraction * count) <= 1


@pytest.mark.parametrize(
    "fractions, message",
    [
        ([], r"add up to 1, got \[\]"),
        ([0.5, 0.6], r"positive and add up to 1, got \[0.5, 0.6\]"),
        ([1.5, -0.5], "positive and add up to 1"),
        ([float("nan"), 1.0], "positive and add up to 1"),
        ([0.99, 0.01], "6 records are too few"),
    ],
)
def test_allocate_wrong_fractions(fractions, message):
    with pytest.raises(InputError, match=message):
        stats.allocate([0] * 6, fractions)


def test_split(rec, tmp_path):
    class_names_path(rec).write_text("a\nb\nc\n")
    source = {r.key: r for r in read_all(rec.with_suffix(""))}
    parts = {tmp_path / "x": 0.5, tmp_path / "y": 0.5}
    assert list(stats.split(rec, parts, seed=1).values()) == [3, 3]
    x, y = read_all(tmp_path / "x"), read_all(tmp_path / "y")
    assert sorted(r.label for r in x) == sorted(r.label for r in y) == [0, 1, 2]
    assert {r.key: r for r in [*x, *y]} == source
    assert [r.key for r in x] == sorted(r.key for r in x)
    assert read_class_names(tmp_path / "y.rec") == ["a", "b", "c"]
    with pytest.raises(InputError, match=r"x\.rec exists"):
        stats.split(rec, parts)


def test_split_is_all_or_nothing(rec, tmp_path):
    (tmp_path / "y.rec").write_text("precious")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"y\.rec exists"):
        stats.split(rec, {tmp_path / "x": 0.5, tmp_path / "y": 0.5})
    assert sorted(tmp_path.iterdir()) == before


def test_split_several_labels(tmp_path):
    with RecordWriter(tmp_path / "a.rec") as writer:
        for i in range(4):
            writer.write(i, [i, i], jpeg())
    parts = {tmp_path / "x": 0.75, tmp_path / "y": 0.25}
    with pytest.raises(InputError, match=r"has several labels, .* split without stratifying"):
        stats.split(tmp_path / "a.rec", parts)
    assert list(stats.split(tmp_path / "a.rec", parts, stratified=False).values()) == [3, 1]
