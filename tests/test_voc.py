"""VOC folders: what is read, what is repaired, and what each malformed annotation says."""

import pickle
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gluon_asymmnet.data.boxes.voc import VOC_CLASSES, VOCSource
from gluon_asymmnet.data.boxes.voc_check import find_splits
from gluon_asymmnet.data.boxes.voc_xml import (
    MAX_BYTES,
    ClassNames,
    VOCObject,
    annotation_xml,
    parse_annotation,
)
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.errors import FormatError, InputError

CLASSES = ClassNames(VOC_CLASSES)
WIDTH, HEIGHT = 40, 30


def thing(name="dog", box=(9, 5, 20, 25), difficult="0", **other):
    """One <object>; ``box`` as in the file, counted from 1."""
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box)
    parts = {"name": name, "difficult": difficult, **other}
    body = "".join(f"<{tag}>{text}</{tag}>" for tag, text in parts.items() if text is not None)
    inner = "".join(f"<{tag}>{value}</{tag}>" for tag, value in corners)
    return f"<object>{body}<bndbox>{inner}</bndbox></object>"


def xml(*objects, width=WIDTH, height=HEIGHT, before=""):
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{before}{size}{''.join(objects)}</annotation>".encode()


def picture(width=WIDTH, height=HEIGHT):
    return encode(np.full((height, width, 3), (200, 100, 50), np.uint8))


def make(root, annotations, split="test", folder="VOC2007"):
    """Write a set; ``annotations``: image id -> XML, or None for a missing file."""
    base = root / folder
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (base / part).mkdir(parents=True, exist_ok=True)
    (base / "ImageSets" / "Main" / f"{split}.txt").write_text(
        "".join(f"{k}\n" for k in annotations)
    )
    for stem, content in annotations.items():
        (base / "JPEGImages" / f"{stem}.jpg").write_bytes(picture())
        if content is not None:
            (base / "Annotations" / f"{stem}.xml").write_bytes(content)
    return root


@pytest.fixture
def root(tmp_path):
    return make(
        tmp_path,
        {
            "000001": xml(thing(), thing("person", (1, 1, 40, 30), difficult="1")),
            "000002": xml(),
        },
    )


# ------------------------------------------------------------------- what is right


def test_reads(root):
    source = VOCSource(root)
    assert len(source) == 2
    assert source.class_names == list(VOC_CLASSES)
    found = source.read(0)
    assert found.image_id == "VOC2007/000001"
    assert found.rgb.shape == (HEIGHT, WIDTH, 3) and found.rgb.dtype == np.uint8
    assert np.abs(found.rgb.reshape(-1, 3).mean(0) - (200, 100, 50)).max() < 3  # red first
    # One less than in the file, on all four sides.
    np.testing.assert_array_equal(found.boxes, [[8, 4, 19, 24], [0, 0, 39, 29]])
    assert found.boxes.dtype == np.float32
    assert found.labels.tolist() == [11, 14] == [VOC_CLASSES.index(n) for n in ("dog", "person")]
    assert found.labels.dtype == np.int64
    assert found.difficult.tolist() == [False, True]
    assert found.size == (WIDTH, HEIGHT)


def test_image_without_objects(root):
    found = VOCSource(root).read(1)
    assert found.boxes.shape == (0, 4) and found.boxes.dtype == np.float32
    assert found.labels.shape == found.difficult.shape == (0,)
    assert (found.labels.dtype, found.difficult.dtype) == (np.int64, bool)


def test_annotation_has_no_picture_and_arrays_of_its_own(root):
    source = VOCSource(root)
    first = source.annotation(0)
    assert first.rgb is None
    first.boxes[:] = 0
    first.labels[:] = 0
    assert source.annotation(0).boxes.max() == 39
    assert source.annotation(0).labels.tolist() == [11, 14]


def test_pickled_for_worker_processes(root):
    source = pickle.loads(pickle.dumps(VOCSource(root)))
    np.testing.assert_array_equal(source.read(0).boxes, VOCSource(root).read(0).boxes)


def test_splits_of_years_and_folders(root):
    make(root, {"2008_000001": xml(thing("cat"))}, "trainval", "VOC2012")
    make(root, {"000001": xml(thing("cow"))}, "mine", "own")
    source = VOCSource(root, [(2007, "test"), (2012, "trainval"), ("own", "mine")])
    ids = [source.annotation(i).image_id for i in range(len(source))]
    assert ids == ["VOC2007/000001", "VOC2007/000002", "VOC2012/2008_000001", "own/000001"]
    assert source.name(3) == str(root / "own" / "Annotations" / "000001.xml")
    assert find_splits(root) == [("VOC2007", "test"), ("VOC2012", "trainval")]


def test_own_classes(root):
    assert VOCSource(root, classes=["person", "dog"]).annotation(0).labels.tolist() == [1, 0]
    (root / "VOC2007" / "classes.txt").write_text("cat\ndog\nperson\n")
    source = VOCSource(root)
    assert source.class_names == ["cat", "dog", "person"]
    assert source.annotation(0).labels.tolist() == [1, 2]
    make(root, {"1": xml()}, "val", "VOC2012")
    with pytest.raises(InputError, match=r"VOC2007 and .*VOC2012 have different classes"):
        VOCSource(root, [(2007, "test"), (2012, "val")])


@pytest.mark.parametrize(
    "names, message",
    [([], "at least one"), (["dog", ""], "none empty"), (["Dog", "cat", "dog "], "class 2 .* 0")],
)
def test_classes_that_cannot_be_told_apart(root, names, message):
    with pytest.raises(InputError, match=message):
        VOCSource(root, classes=names)


def test_gluoncv_reads_the_same(root):
    from gluon_asymmnet._mxnet import gluoncv

    theirs = gluoncv.data.VOCDetection(str(root), splits=((2007, "test"),))
    image, label = theirs[0]
    ours = VOCSource(root).read(0)
    np.testing.assert_array_equal(ours.boxes, label[:, :4])
    np.testing.assert_array_equal(ours.labels, label[:, 4])
    np.testing.assert_array_equal(ours.difficult, label[:, 5])
    np.testing.assert_array_equal(ours.rgb, image.asnumpy())


# ------------------------------------------------------------------- what is repaired


def test_missing_difficult_is_none(tmp_path):
    objects = thing(difficult=None), thing(difficult=""), thing(difficult=" 1 ")
    source = VOCSource(make(tmp_path, {"1": xml(*objects)}))
    assert source.annotation(0).difficult.tolist() == [False, False, True]
    assert not source.issues


def test_case_of_names_is_ignored_and_counted(tmp_path):
    source = VOCSource(make(tmp_path, {"1": xml(thing("DOG"), thing(" dog\n"), thing("Cat"))}))
    assert source.annotation(0).labels.tolist() == [11, 11, 7]
    assert source.issues == {"renamed": 2}


def test_boxes_are_cut_at_the_border(tmp_path):
    boxes = thing(box=(0, 1, 41, 30)), thing(box=(-5.5, 2, 10, 1e9)), thing(box=(1, 1, 40, 30))
    source = VOCSource(make(tmp_path, {"1": xml(*boxes)}))
    expected = [[0, 0, 39, 29], [0, 1, 9, 29], [0, 0, 39, 29]]
    np.testing.assert_array_equal(source.annotation(0).boxes, expected)
    assert source.issues == {"clipped": 2}


def test_parts_of_a_person_are_not_objects(tmp_path):
    """VOC's layout annotations put a <part> with a name and a box inside the object."""
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    item = thing("person").replace("<name>", part + "<name>", 1)
    found = VOCSource(make(tmp_path, {"1": xml(item)})).annotation(0)
    assert found.labels.tolist() == [14]
    np.testing.assert_array_equal(found.boxes, [[8, 4, 19, 24]])


def test_png_that_the_annotation_names(tmp_path):
    make(tmp_path, {"1": xml(thing(), before="<filename>1.png</filename>")})
    folder = tmp_path / "VOC2007" / "JPEGImages"
    (folder / "1.jpg").unlink()
    (folder / "1.png").write_bytes(encode(np.zeros((HEIGHT, WIDTH, 3), np.uint8), ".png"))
    assert VOCSource(tmp_path).read(0).rgb.max() == 0


def test_unknown_classes_are_skipped_on_request(tmp_path):
    make(tmp_path, {"1": xml(thing("yeti"), thing(), thing("Yeti")), "2": xml(thing("unicorn"))})
    source = VOCSource(tmp_path, skip_bad=True)
    assert source.issues == {"unknown": 3}
    assert source.annotation(0).labels.tolist() == [11]
    assert len(source) == 2 and len(source.annotation(1).labels) == 0


def test_bad_boxes_are_skipped_on_request(tmp_path):
    make(tmp_path, {"1": xml(thing(box=(20, 5, 9, 25)), thing())})
    source = VOCSource(tmp_path, skip_bad=True)
    assert source.issues == {"bad box": 1}
    assert len(source.annotation(0).labels) == 1


# ------------------------------------------------------------------- what is refused

BOMB = '<!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'
MALFORMED = {
    "empty file": (b"", "broken XML: no element found: line 1"),
    "not XML": (b"000001.jpg dog 1 2 3 4", "broken XML: syntax error: line 1"),
    "cut off": (xml(thing())[:-40], "broken XML: .* line 1"),
    "binary": (picture(), "broken XML: not well-formed"),
    "encoding": (b'<?xml version="1.0" encoding="gbk"?><annotation/>', "broken XML: .*multi-byte"),
    "entity bomb": (BOMB.encode(), "declares a document type or an entity"),
    "entity bomb in UTF-16": (BOMB.encode("utf-16"), "declares a document type or an entity"),
    "outside entity": (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "document type"),
    "too large": (b" " * (MAX_BYTES + 1), r"1048577 bytes; an annotation has at most 1048576"),
    "other XML": (b"<html></html>", "outermost element is 'html', expected 'annotation'"),
    "negative size": (xml(width=-4), "width is '-4', expected a whole number of pixels"),
    "fraction": (xml(height="30.5"), "height is '30.5', expected a whole number"),
    "huge": (xml(width="1" + "0" * 30), "width is '10+', expected"),
    "no name": (xml(thing(name=None)), r"object 1 \(''\): it has no <name>"),
    "unknown": (xml(thing("yeti")), r"object 1 \('yeti'\): unknown class; expected .*20 in all"),
    "no box": (xml("<object><name>dog</name></object>"), "no <bndbox> with a <xmin>"),
    "no corner": (xml(thing(box=(1, 2, 3))), "no <bndbox> with a <ymax>"),
    "word": (xml(thing(box=(1, 2, "three", 4))), "xmax is 'three', expected a number of pixels"),
    "nan": (xml(thing(box=("nan", 2, 3, 4))), "xmin is 'nan', expected"),
    "infinite": (xml(thing(box=(1, 2, 3, "1e999"))), "ymax is '1e999', expected"),
    "python": (xml(thing(box=(1, 2, "1_0", 4))), "xmax is '1_0', expected"),
    "difficult": (xml(thing(difficult="very")), "difficult is 'very', expected 0 or 1"),
    "inverted": (xml(thing(), thing("cat", (20, 5, 9, 25))),
                 r"object 2 \('cat'\): the box \(20, 5, 9, 25\) is empty or inverted"),
    "empty": (xml(thing(box=(9, 5, 20, 5))), r"the box \(9, 5, 20, 5\) is empty or inverted"),
    "outside": (xml(thing(box=(41, 5, 60, 25))),
                r"the box \(41, 5, 60, 25\) lies outside the 40 x 30 image"),
    "missing": (None, "no such file, but the image is listed"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_annotations(tmp_path, case):
    content, message = MALFORMED[case]
    make(tmp_path, {"good": xml(thing()), "bad": content})
    file = re.escape(str(tmp_path / "VOC2007" / "Annotations" / "bad.xml"))
    with pytest.raises(FormatError, match=f"^{file}: .*{message}") as caught:
        VOCSource(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_messages_differ():
    assert len({message for _, message in MALFORMED.values()}) >= len(MALFORMED) - 1  # two bombs


def test_deep_nesting_ends():
    with pytest.raises(FormatError, match="no element found"):
        parse_annotation(b"<a>" * 300_000, CLASSES)
    with pytest.raises(FormatError, match="outermost element is 'a'"):
        parse_annotation(b"<a>" * 100_000 + b"</a>" * 100_000, CLASSES)


@pytest.mark.parametrize("line", ["../../etc/passwd", "a/b", "a\\b", "..", "a\0b"])
def test_ids_that_leave_the_folder(root, line):
    path = root / "VOC2007" / "ImageSets" / "Main" / "test.txt"
    path.write_text(f"000001\n{line}\n")
    with pytest.raises(
        FormatError, match=r"test.txt: (line 2 is .*expected an image id|holds a byte)"
    ):
        VOCSource(root)


def test_wrong_arguments(root):
    with pytest.raises(InputError, match="no splits are given"):
        VOCSource(root, [])


def test_lists(root):
    with pytest.raises(FileNotFoundError, match=r"VOC2007.*val.txt: no such list of images"):
        VOCSource(root, [(2007, "val")])
    with pytest.raises(
        FormatError, match=r"test.txt: line 1: 000001 is listed for the second time"
    ):
        VOCSource(root, [(2007, "test"), (2007, "test")])
    path = root / "VOC2007" / "ImageSets" / "Main" / "test.txt"
    path.write_text("\n")
    with pytest.raises(FormatError, match="it lists no image"):
        VOCSource(root)
    path.write_bytes(b"\xff\xf0\n")
    with pytest.raises(FormatError, match="not UTF-8 text"):
        VOCSource(root)


def test_missing_and_damaged_pictures(root):
    path = root / "VOC2007" / "JPEGImages" / "000001.jpg"
    path.write_bytes(picture(HEIGHT, WIDTH))
    with pytest.raises(FormatError, match=r"000001.jpg: the image has 30 x 40 pixels, .* 40 x 30"):
        VOCSource(root).read(0)
    path.write_bytes(picture()[:-2])
    with pytest.raises(FormatError, match=r"000001.jpg: truncated JPEG"):
        VOCSource(root).read(0)
    path.unlink()
    with pytest.raises(FormatError, match=r"000001.jpg: no such file, but the image is listed"):
        VOCSource(root)


# ------------------------------------------------------------------- mutations

GOOD = annotation_xml(
    "a.jpg",
    (WIDTH, HEIGHT),
    [VOCObject("dog", (1, 2, 3.5, 4)), VOCObject("cat", (0, 0, 9, 9), True)],
).encode()
FRAGMENTS = [
    b"<", b">", b"</", b"&amp;", b"&x;", b"<!DOCTYPE a [", b"<!ENTITY x 'y'>", b"]>", b"<?xml",
    b"-1", b"1e400", b"nan", b"", b"\0", b"\xff\xfe", b"<object>", b"</object>", b"<bndbox/>",
    b"<size>", b"<!-- ", b"<![CDATA[", b"9" * 400, b"encoding='utf-16'", b"\xed\xa0\x80",
]  # fmt: skip


@st.composite
def mutated(draw):
    data = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        end = at + draw(st.sampled_from([0, 1, 2, 5, 30]))
        data[at:end] = draw(st.sampled_from(FRAGMENTS) | st.binary(max_size=3))
    return bytes(data)


@given(mutated())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutations_raise_nothing_but_format_errors(data):
    try:
        found = parse_annotation(data, CLASSES)
    except FormatError as error:
        assert "\n" not in str(error)
        return
    width, height = found.size
    assert len(found.boxes) == len(found.labels) == len(found.difficult)
    assert (found.boxes >= 0).all() and (found.boxes <= [width, height, width, height]).all()
    assert (found.boxes[:, :2] < found.boxes[:, 2:]).all()
    assert all("\n" not in issue.message for issue in found.issues)


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=9),
            st.integers(0, 9), st.integers(10, 39), st.booleans(),
        ),
        max_size=4,
    )
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read(objects):
    names = list(dict.fromkeys(name.strip() for name, *_ in objects if name.strip()))
    folded = {name.casefold() for name in names}
    if len(folded) < len(names) or re.search("[\ufffe\uffff]", "".join(names)):
        return
    items = [
        VOCObject(name.strip(), (low, low, high, high - 9.25), difficult)
        for name, low, high, difficult in objects
        if name.strip() and low < high - 9.25
    ]
    data = annotation_xml("a&b.jpg", (40, 40), items).encode()
    found = parse_annotation(data, ClassNames([*names, "one that is not empty"]))
    assert found.filename == "a&b.jpg" and found.issues == []
    assert [names[k] for k in found.labels] == [item.name for item in items]
    np.testing.assert_array_equal(found.boxes, np.float32([i.box for i in items]).reshape(-1, 4))
    assert found.difficult.tolist() == [item.difficult for item in items]


def test_names_that_xml_cannot_hold():
    with pytest.raises(InputError, match=r"XML does not allow the character '\\x01'"):
        annotation_xml("a.jpg", (1, 1), [VOCObject("d\x01g", (0, 0, 1, 1))])
