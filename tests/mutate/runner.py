"""Runs pytest on a copy of the project, in a fork of a process that has loaded what is slow."""

import contextlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import pytest

from tests.conftest import ROOT

COPIED = ("gluon_asymmnet", "tests", "symbols", "benchmarks", "examples", "tools", "docs")
LOADED = ("numpy", "cv2", "mxnet", "onnx")  # by no test in an unusual way
MARKS = "not slow and not browser and not horovod"


class Order:
    """A pytest plugin: the tests that failed before come first, then the fast ones.

    It writes each test's seconds, and the first test that fails, to ``result``.
    """

    def __init__(self, failures: dict, seconds: dict, result: Path):
        self.failures, self.before, self.result = failures, seconds, result
        self.seconds, self.failed = {}, None

    def pytest_collection_modifyitems(self, items):
        items.sort(key=lambda i: (-self.failures.get(i.nodeid, 0), self.before.get(i.nodeid, 0)))

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_sessionfinish(self, exitstatus):
        failed = self.failed or (f"pytest ended with {int(exitstatus)}" if exitstatus else None)
        self.result.write_text(json.dumps({"failed": failed, "seconds": self.seconds}))


class Workplace:
    """A copy of the project, for one mutant at a time."""

    def __init__(self, root: Path):
        self.root, self.process, self.ends, self.writes = root, None, 0.0, 0
        self.result = root / "result.json"
        for name in COPIED:
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for pattern in ("*.py", "*.md", "*.toml", "*.txt"):
            for path in ROOT.glob(pattern):
                shutil.copy(path, root)

    def replace(self, path: str, content: bytes) -> None:
        file = self.root / path
        file.write_bytes(content)
        self.writes += 1  # Python compiles a file again if its size or its second of change differs
        os.utime(file, (self.writes, self.writes))

    def start(self, tests: list[str], failures: dict, seconds: dict, limit: float) -> None:
        """Run test files in a process of their own, at most ``limit`` seconds."""
        self.result.unlink(missing_ok=True)
        for name in LOADED:
            __import__(name)
        self.ends = time.monotonic() + limit
        self.process = os.fork()
        if self.process:
            return
        status = 1
        try:
            os.setsid()  # so that the processes that a test starts end with it
            silence = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1):
                os.dup2(silence, stream)
            os.chdir(self.root)
            os.environ["PYTHONPATH"] = str(self.root)
            sys.path[:] = [str(self.root), *(p for p in sys.path if Path(p or ".") != ROOT)]
            for name in [m for m in sys.modules if m.split(".")[0] in COPIED]:
                del sys.modules[name]
            status = pytest.main(
                [
                    "-x",
                    "-q",
                    "--tb=no",
                    "-p",
                    "no:cacheprovider",
                    "-p",
                    "no:xdist",
                    "-m",
                    MARKS,
                    *tests,
                ],
                plugins=[Order(failures, seconds, self.result)],
            )
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def ended(self) -> dict:
        """Return None while the tests run, then what failed (None: nothing) and the seconds."""
        if not os.waitpid(self.process, os.WNOHANG)[0]:
            if time.monotonic() < self.ends:
                return None
            self.stop()
            return {"failed": "timeout", "seconds": {}}
        self.process = None
        if not self.result.exists():
            return {"failed": "the process died", "seconds": {}}
        return json.loads(self.result.read_text())

    def stop(self) -> None:
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
            self.process = None
