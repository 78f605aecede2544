"""Text files of one item per line, and the rule that tells pictures from other files."""

import os

import pytest

from gluon_asymmnet.data.class_names import load_class_names, name_lines
from gluon_asymmnet.data.image_files import list_folder, list_images_below
from gluon_asymmnet.data.text_files import read_lines
from gluon_asymmnet.errors import FormatError, InputError


@pytest.mark.parametrize(
    "data",
    [
        "Bär\nhen of the woods\n".encode(),
        "\ufeffBär\r\nhen of the woods\r\n".encode(),
        "# my classes\nBär  \n\then of the woods\n\n  \n".encode(),
        "Bär\rhen of the woods".encode(),
        "Bär\r\nhen of the woods\r\n".encode("utf-16"),
    ],
    ids=["plain", "byte order mark and CRLF", "comment and blanks", "CR", "UTF-16"],
)
def test_class_files_as_editors_write_them(tmp_path, data):
    path = tmp_path / "classes.txt"
    path.write_bytes(data)
    assert load_class_names(path) == ["Bär", "hen of the woods"]


def test_lines_keep_their_numbers(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"# ids\n\n0001\n# end\n0002\n")
    assert read_lines(tmp_path / "list.txt", "list") == [(2, ""), (3, "0001"), (5, "0002")]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"cat\ndog\ncat\n", "line 3 is 'cat' again, as line 1"),
        (b"# nothing\n", "holds no class name"),
        (b"cat\n\ndog\n", "line 2 is empty"),
        (b"c\xe4t\n", "byte 1 is not UTF-8"),
        (b"c\0a\0t\0\n\0", "holds a byte of zero"),
    ],
)
def test_class_files_that_cannot_be_meant(tmp_path, data, reason):
    (tmp_path / "classes.txt").write_bytes(data)
    with pytest.raises(FormatError, match=f"classes.txt: .*{reason}"):
        load_class_names(tmp_path / "classes.txt")


@pytest.mark.parametrize("names", [["cat "], [" cat"], ["# cat"], ["cat", "dog", "cat"]])
def test_names_that_would_be_read_otherwise_are_not_written(names):
    with pytest.raises(InputError, match=r"blank|twice"):
        name_lines(names)


def test_hidden_files_and_links(tmp_path):
    for name in (".DS_Store", "a/._1.jpg", "a/1.WEBP", "a/2.gif", "a/notes.txt", "Thumbs.db",
                 "__MACOSX/a/1.jpg", "b/3.tiff"):  # fmt: skip
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    folder = tmp_path / "in"
    os.symlink(folder, folder / "b" / "up")  # a circle
    os.symlink(folder / "b", folder / "c")
    os.symlink(tmp_path / "gone.png", folder / "a" / "broken.png")
    assert list_folder(folder) == (["a", "b", "c"], [])
    found = {str(path.relative_to(folder)) for path in list_images_below(folder)}
    assert found in (
        {"a/1.WEBP", "a/2.gif", "a/broken.png", "b/3.tiff"},
        {"a/1.WEBP", "a/2.gif", "a/broken.png", "c/3.tiff"},
    )
