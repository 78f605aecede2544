"""Fixtures that several test modules share."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

# One thread: sums are added in one order, so equal runs give equal bits.
os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).parent.parent


def run_python(*arguments, cwd=None, timeout=300, **environment):
    """Run a script or module of the project in a process of its own."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=cwd,
        timeout=timeout, env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


def free_port():
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The demo set: train.rec (1,348) and val.rec (449), 32 pixels."""
    from gluon_asymmnet.data.demo import write_digits

    return write_digits(tmp_path_factory.mktemp("demo") / "digits")
