"""``asymmnet launch --hosts`` through a real SSH server; by ``make test-slow``."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import free_port
from tests.test_distributed_runs import (
    last_weights,
    nothing_stays,  # noqa: F401 - a fixture
    together,
)

pytestmark = pytest.mark.slow
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
AcceptEnv TEST_RUN OPENBLAS_*
StrictModes no
UsePAM no
PidFile none
"""


@pytest.fixture
def ssh(tmp_path):
    """Start a server of our own; return the command that reaches it."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "these tests need an SSH server: apt install openssh-server"
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it shuts itself in; systems make it at boot
    for name in ("host", "user"):
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(key, check=True)
    port = free_port()
    (tmp_path / "config").write_text(CONFIG.format(port=port, folder=tmp_path))
    with (tmp_path / "log").open("w") as log, subprocess.Popen(
        [program, "-D", "-e", "-f", str(tmp_path / "config")], stderr=log
    ) as server:  # fmt: skip
        try:
            _wait_for(port)
            yield (
                f"ssh -p {port} -i {tmp_path}/user -o BatchMode=yes -o StrictHostKeyChecking=no "
                f"-o UserKnownHostsFile={tmp_path}/known -o SendEnv=TEST_RUN -o LogLevel=ERROR "
                f"-o SendEnv=OPENBLAS_*"  # its choice of kernels shows in the last digits
            )
        finally:
            server.terminate()


def _wait_for(port):
    deadline = time.time() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert time.time() < deadline
            time.sleep(0.05)


def is_ssh(number):
    """Whether a process is the client, which has the worker's variables, too."""
    return Path(f"/proc/{number}/comm").read_text().strip() == "ssh"


def test_stopped_then_killed_over_ssh_ends_as_here(digits, tmp_path, ssh, monkeypatch):
    """The same run on this machine, and by SSH with a SIGTERM and a kill of the second worker."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # sums in one order; a host's worker takes all else
    here = together(digits, tmp_path / "a")
    assert here.end() == 0, here.text

    hosts = tmp_path / "hosts"
    hosts.write_text("localhost\n127.0.0.1\n")
    options = ("--hosts", hosts, "--ssh", ssh, "--elastic-restart", 1)
    stopped = together(digits, tmp_path / "b", *options)
    stopped.until(r"\[0\] Epoch\[0\] Batch \[4\]")
    stopped.process.terminate()
    assert stopped.end() == 0, stopped.text
    assert "[0] stopped after step" in stopped.text

    killed = together(digits, tmp_path / "b", *options)
    killed.until(r"\[0\] \[Epoch 1\] validation")
    (worker,) = (n for n in killed.left(DMLC_WORKER_ID="1", ASYMMNET_ROLE=None) if not is_ssh(n))
    os.kill(worker, signal.SIGKILL)
    assert killed.end() == 0, killed.text
    assert "starting all again from the last checkpoint (1 of 1)" in killed.text
    a, b = (last_weights(tmp_path / name) for name in "ab")
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_host_that_refuses_ends_the_launch(digits, tmp_path, ssh):
    (tmp_path / "hosts").write_text("localhost\n")
    wrong = ssh.replace(str(tmp_path / "user"), str(tmp_path / "host"))
    run = together(digits, tmp_path, "-n", 1, "--hosts", tmp_path / "hosts", "--ssh", wrong)
    assert run.end() == 255
    assert "Permission denied" in run.text
    assert "worker 0 ended first: status 255" in run.text
