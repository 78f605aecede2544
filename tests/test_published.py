"""Fetching the published checkpoint from a real server on this machine, which misbehaves."""

import fcntl
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gluon_asymmnet.cli import fetch as fetch_command
from gluon_asymmnet.errors import FormatError, InputError, RunError
from gluon_asymmnet.weights import published
from gluon_asymmnet.weights.published import fetch, git_blob_id
from tests.download_server import (
    CONTENT,
    corrupt,
    cut,
    endless,
    html,
    ignore_range,
    other_range,
    redirect,
    running_server,
    serve,
    slowly,
    stall,
    status,
    without_length,
)

pytestmark = pytest.mark.thorough

REPOSITORY = Path(__file__).parents[1]
TIMEOUT_S = 0.6  # a busy machine must still answer in this time


@pytest.fixture
def server(monkeypatch):
    """``server.script`` says how to answer; ``server.ranges`` has what was asked."""
    monkeypatch.setenv("no_proxy", "*")
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def blob_id(tmp_path_factory):
    path = tmp_path_factory.mktemp("content") / "content"
    path.write_bytes(CONTENT)
    return git_blob_id(path)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def get(server, blob_id, root):
    """``fetch`` from the server, impatiently."""

    def get(**kwargs):
        defaults = {"url": server.url, "blob_id": blob_id, "root": root, "timeout_s": TIMEOUT_S}
        return fetch(**{**defaults, "retries": 1, **kwargs})

    return get


def files(root, suffix=""):
    return sorted(path.name for path in root.glob(f"*{suffix}") if path.suffix != ".lock")


# ------------------------------------------------------------------- the id


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),  # git's well-known empty blob
        (b"what is up, doc?", "bd9dbf5aae1a3862dd1526723246b20206e5fc37"),  # Pro Git, chapter 10.2
    ],
)
def test_git_blob_id(tmp_path, content, expected):
    (tmp_path / "file").write_bytes(content)
    assert git_blob_id(tmp_path / "file") == expected


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git to compare with")
def test_git_blob_id_as_git_computes_it(tmp_path):
    (tmp_path / "file").write_bytes(CONTENT * 10)
    command = ["git", "hash-object", "--no-filters", tmp_path / "file"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert git_blob_id(tmp_path / "file") == printed.strip()


# ------------------------------------------------------------------- what works


def test_downloads_once(get, server, root):
    path = get()
    assert path.read_bytes() == CONTENT
    assert files(root) == [path.name]
    assert get() == path
    assert server.ranges == [None]


def test_progress(get):
    seen = []
    get(progress=lambda received, total: seen.append((received, total)))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)


@pytest.mark.parametrize("trouble", [cut(100_000), stall(100_000)])
def test_continues_after_trouble(get, server, trouble):
    server.script = [trouble, trouble, serve]
    assert get().read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=200000-"]


def test_progress_resets_the_retries(get, server):
    server.script = [cut(60_000)]
    assert get(retries=0, timeout_s=0.05).read_bytes() == CONTENT
    assert len(server.ranges) == 5


def test_server_that_ignores_range(get, server):
    server.script = [cut(100_000), ignore_range]
    assert get().read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]


def test_server_that_sends_another_range(get, server):
    server.script = [cut(100_000), other_range, serve]
    assert get().read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", None]


def test_server_that_does_not_say_how_much(get, server):
    server.script = [without_length]
    assert get().read_bytes() == CONTENT


@pytest.mark.parametrize("code", [500, 503, 429, 408])
def test_passing_trouble_of_the_server(get, server, code):
    server.script = [status(code), serve]
    assert get().read_bytes() == CONTENT


def test_redirects_are_followed_with_the_range(get, server):
    server.script = [cut(100_000), redirect("/elsewhere"), serve]
    assert get().read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=100000-"]


@pytest.mark.parametrize(
    "left_over, asked",
    [
        (CONTENT[:1000], ["bytes=1000-"]),  # of an earlier run
        (CONTENT, ["bytes=300000-"]),  # killed just before the end: 416, and complete
        (b"x" * 1000, ["bytes=1000-", None]),  # of another version of the file
        (CONTENT + b"more", ["bytes=300004-", None]),  # of a longer one: 416, begin anew
    ],
)
def test_left_over_parts(get, server, root, left_over, asked):
    with pytest.raises(RunError, match="404"):
        server.script = [status(404)]
        get()
    (lock,) = root.glob("*.lock")
    lock.with_suffix(".part").write_bytes(left_over)
    server.script, server.ranges[:] = [serve], []
    path = get()
    assert path.read_bytes() == CONTENT
    assert files(root) == [path.name]
    assert server.ranges == asked


def start_process(url, blob_id, root):
    program = (
        "import sys; from gluon_asymmnet.weights.published import fetch;"
        "print(fetch(url=sys.argv[1], blob_id=sys.argv[2], root=sys.argv[3]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, url, blob_id, str(root)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )


def test_two_processes_download_once(server, blob_id, root):
    server.script = [slowly]
    processes = [start_process(server.url, blob_id, root) for _ in range(2)]
    printed = [process.communicate(timeout=30)[0].strip() for process in processes]
    assert printed[0] == printed[1]
    assert Path(printed[0]).read_bytes() == CONTENT
    assert server.ranges == [None]


def test_killed_process_is_continued(get, server, blob_id, root):
    server.script = [stall(100_000), serve]
    process = start_process(server.url, blob_id, root)
    deadline = time.monotonic() + 20
    while sum(part.stat().st_size for part in root.glob("*.part")) < 100_000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert get().read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]


# ------------------------------------------------------------------- what does not


def test_gives_up_and_says_how_to_continue(get, server, root):
    server.script = [stall(100_000), stall(0)]
    expected = rf"{TIMEOUT_S} s; 100000 bytes received of 300000, tries without progress: 2; "
    with pytest.raises(RunError, match=expected) as caught:
        get()
    assert server.ranges == [None, "bytes=100000-", "bytes=100000-"]
    assert "\n" not in str(caught.value)

    command = shlex.split(str(caught.value).partition("continue with: ")[2])
    assert command[:3] == ["asymmnet", "fetch", "published"]
    assert "--url" in command and str(root) in command
    server.script, server.ranges[:] = [serve], []
    assert run_command(*command[2:]) == 0
    assert server.ranges == ["bytes=100000-"]


def test_nobody_listens(get, server):
    with pytest.raises(RunError, match="refused; 0 bytes received of an unknown number"):
        get(url="http://127.0.0.1:9/net.params", timeout_s=0.05)


@pytest.mark.parametrize("code", [400, 403, 404])
def test_refusal_is_not_repeated(get, server, code):
    server.script = [status(code)]
    with pytest.raises(RunError, match=f"net.params: the server answered {code} "):
        get(retries=5)
    assert server.ranges == [None]


def test_server_error_that_stays(get, server):
    server.script = [status(500)]
    with pytest.raises(RunError, match="the server answered 500 Internal Server Error; 0 bytes"):
        get(timeout_s=0.05)
    assert len(server.ranges) == 2


@pytest.mark.parametrize("location", ["file:///etc/passwd", "data:,x", "/loop"])
def test_redirects_that_lead_nowhere(get, server, location):
    server.script = [redirect(location)]
    with pytest.raises(RunError, match="the server answered 302") as caught:
        get()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong, kind", [(corrupt, ""), (html, "it is HTML or XML text")])
def test_wrong_content_is_never_used(get, server, root, blob_id, wrong, kind):
    server.script = [wrong]
    expected = rf"has git blob id [0-9a-f]{{40}}, expected {blob_id}.*{kind}.* moved to .*\.wrong"
    with pytest.raises(FormatError, match=expected) as caught:
        get()
    (left,) = files(root)
    assert left.endswith(".wrong")
    assert git_blob_id(root / left) in str(caught.value)
    server.script = [serve]
    assert get().read_bytes() == CONTENT


def test_damaged_cache_is_replaced(get, root):
    path = get()
    path.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=rf"{path.name} has git blob id .* moved to .*\.wrong"):
        assert get() == path
    assert path.read_bytes() == CONTENT
    assert path.with_suffix(".wrong").read_bytes() == b"damaged"


def test_endless_answer(get, server, root):
    server.script = [endless]
    with pytest.raises(RunError, match="more than 1073741824 bytes, not a checkpoint"):
        get()
    assert files(root) == []


def test_full_disk_is_not_retried(get, server):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            get()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert server.ranges == [None]


def test_lock_held_by_another(get, root):
    path = get()
    path.unlink()
    with path.with_suffix(".lock").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        expected = rf"another process \(pid {os.getpid()}\) has held .*\.lock for 0.2 s"
        with pytest.raises(RunError, match=expected):
            get(lock_timeout_s=0.2)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"url": "ftp://host/x"}, "'ftp://host/x' must start with http://, https:// or file://"),
        ({"url": "net.params"}, "must start with http://"),
        ({"url": "http:///net.params"}, "names no server"),
        ({"url": "http://host:port/"}, "is not a URL"),
        ({"url": "http://host/a b"}, "has characters that a URL spells with %"),
        ({"blob_id": "a2ee7b4f"}, "blob id 'a2ee7b4f' is not 40 hexadecimal digits"),
        ({"blob_id": "A" * 40}, "in lower case"),
        ({"timeout_s": 0}, "timeout_s must be above 0 and at most a day, got 0"),
        ({"timeout_s": float("nan")}, "timeout_s must be above 0"),
        ({"retries": -1}, "retries must be 0 or more, got -1"),
    ],
)
def test_wrong_arguments(get, server, kwargs, message):
    with pytest.raises(InputError, match=message):
        get(**kwargs)
    assert server.ranges == []


# ------------------------------------------------------------------- local copies


@pytest.mark.parametrize("as_url", [False, True])
def test_local_copy(get, server, tmp_path, as_url):
    source = tmp_path / "my copy.params"
    source.write_bytes(CONTENT)
    path = get(url=source.as_uri()) if as_url else get(source=source)
    assert path.read_bytes() == CONTENT
    assert path != source
    assert source.exists()
    assert server.ranges == []


def test_wrong_local_copy(get, tmp_path, root, blob_id):
    source = tmp_path / "other.params"
    source.write_text('{"not": "params"}')
    expected = rf"other.params has git blob id \w+, expected {blob_id} \(it is text, perhaps JSON\)"
    with pytest.raises(FormatError, match=expected):
        get(source=source)
    assert source.exists()
    assert not root.exists()


def test_local_copy_that_is_not_there(get, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent: no such file"):
        get(source=tmp_path / "absent")
    with pytest.raises(InputError, match="is not a regular file"):
        get(source=tmp_path)


def test_cache_folder(monkeypatch, tmp_path, server, blob_id, root):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    kwargs = {"url": server.url, "blob_id": blob_id}
    assert fetch(**kwargs, root=root).parent == root
    assert fetch(**kwargs).parent == tmp_path / "xdg" / "gluon_asymmnet"
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert fetch(**kwargs).parent == tmp_path / "home" / ".cache" / "gluon_asymmnet"


def test_cache_folder_that_is_a_file(get, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file cannot be a cache folder"):
        get(root=tmp_path / "file")


# ------------------------------------------------------------------- the command


def run_command(*words) -> int:
    args = fetch_command.build_parser("asymmnet fetch").parse_args(words)
    return args.run(args)


def test_command(server, blob_id, root, capsys):
    words = ["published", "--url", server.url, "--blob-id", blob_id, "--root", str(root)]
    assert run_command(*words) == 0
    assert Path(capsys.readouterr().out.strip()).read_bytes() == CONTENT


def test_command_with_a_local_copy(tmp_path, blob_id, root, capsys):
    (tmp_path / "copy").write_bytes(CONTENT)
    words = ["--from", str(tmp_path / "copy"), "--blob-id", blob_id, "--root", str(root)]
    assert run_command("published", *words) == 0
    assert Path(capsys.readouterr().out.strip()).parent == root


def test_command_checks_the_published_id(tmp_path, root):
    (tmp_path / "copy").write_bytes(CONTENT)
    with pytest.raises(FormatError, match="expected a2ee7b4f3161cd32595a67c9ec9c64764b914f00"):
        run_command("published", "--from", str(tmp_path / "copy"), "--root", str(root))


def test_default_address():
    assert published.URL.startswith("https://raw.githubusercontent.com/Spark001/AsymmNet/main/")
    assert len(published.BLOB_ID) == 40
