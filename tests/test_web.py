"""The web page's folder, without a browser: its files, onnxruntime-web's sources, the errors."""

import re
import tarfile

import pytest

from gluon_asymmnet.cli import main
from gluon_asymmnet.errors import FormatError, InputError, RunError
from gluon_asymmnet.export.web import runtime
from gluon_asymmnet.export.web.export import SITE, export_web
from gluon_asymmnet.predict import Predictor
from gluon_asymmnet.saved import open_saved


@pytest.fixture
def ort(tmp_path):
    """Stands for onnxruntime-web where nothing runs it: files with its names."""
    folder = tmp_path / "dist"
    folder.mkdir()
    for name in runtime.FILES:
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def archive(ort, tmp_path):
    path = tmp_path / runtime.ARCHIVE
    with tarfile.open(path, "w:gz") as opened:
        opened.add(ort, "package/dist")
    return path


def test_the_folder(teacher_run, ort, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["export", "web", str(teacher_run), str(out), "--ort-from", str(ort)]
    assert main(arguments) == 0
    assert "python -m http.server --directory" in capsys.readouterr().out
    site = {path.name for path in SITE.iterdir()}
    assert {path.name for path in out.iterdir()} == {"card.json", "model.onnx", "ort", *site}
    assert {path.name for path in (out / "ort").iterdir()} == set(runtime.FILES)
    assert Predictor(out, "onnxruntime").card.class_names == list("0123456789")


def test_what_the_pages_load_is_beside_them():
    """Every import and every file that is named exists, and no other host is."""
    for path in SITE.iterdir():
        text = path.read_text()
        for name in re.findall(r'(?:from|import\(|src=|href=)\s*"(?!data:)([^"]+)"', text):
            assert (SITE / name).is_file(), (path.name, name)
        hosts = re.findall(r"https?://[\w-]*", text)
        assert set(hosts) <= {"http://localhost", "https://", "http://"}, (path.name, hosts)


@pytest.mark.parametrize("kind", ["folder", "package", "archive", "export"])
def test_sources_of_the_runtime(kind, ort, archive, tmp_path):
    target = tmp_path / "export" / "ort"
    target.mkdir(parents=True)
    source = {"folder": ort, "package": ort.parent, "archive": archive, "export": target.parent}
    if kind == "export":
        runtime.copy_runtime(target, ort)
        (target := tmp_path / "second").mkdir()
    runtime.copy_runtime(target, source[kind])
    assert {path.name: path.read_text() for path in target.iterdir()} == {
        name: name for name in runtime.FILES
    }


def test_wrong_sources(ort, archive, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder or file"):
        runtime.copy_runtime(tmp_path, tmp_path / "nowhere")
    (ort / runtime.FILES[2]).unlink()
    with pytest.raises(InputError, match=f"lacks {re.escape(runtime.FILES[2])}$"):
        runtime.copy_runtime(tmp_path, ort)
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(FormatError, match="not onnxruntime-web as npm packs it"):
        runtime.copy_runtime(tmp_path, archive)


def test_nothing_is_written_without_the_runtime(teacher_run, tmp_path):
    with pytest.raises(FileNotFoundError):
        export_web(open_saved(teacher_run), tmp_path / "out", ort_from=tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def npm(folder, script, monkeypatch):
    """Put a program of this name first on the path."""
    folder.mkdir()
    program = folder / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_npm_fills_the_cache_once(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime, "_SHA1", runtime.sha1("0" * 40).of(archive))
    npm(tmp_path / "bin", f'echo "$@" >> {tmp_path}/calls; cp {archive} .', monkeypatch)
    assert not runtime.is_cached()
    for _ in range(2):
        assert runtime.cached_archive().read_bytes() == archive.read_bytes()
    assert runtime.is_cached()
    called = (tmp_path / "calls").read_text()
    assert called == f"pack --silent onnxruntime-web@{runtime.VERSION}\n"


def test_another_package_than_the_pinned_one(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    npm(tmp_path / "bin", f"cp {archive} .", monkeypatch)
    with pytest.raises(FormatError, match="SHA-1"):
        runtime.cached_archive()
    assert not runtime.is_cached()


def test_without_npm_and_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    npm(tmp_path / "bin", "echo the network is down >&2; exit 1", monkeypatch)
    with pytest.raises(RunError, match=r"failed \(the network is down\).*--ort-from"):
        runtime.cached_archive()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"npm, which fetches it, is not installed.*--ort-from"):
        runtime.cached_archive()
