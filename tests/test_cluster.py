"""The manifest of Kubernetes and the script of Slurm: their arguments, with two workers here."""

import os
import shutil
import stat
import subprocess
import sys

import pytest

from tests.conftest import ROOT, free_port

yaml = pytest.importorskip("yaml")
pytestmark = pytest.mark.thorough

# Behind the arguments: a small network, the digits, and one epoch of two steps
SMALL = [
    *("--dataset", "custom", "--model", "asymmnet_small", "--width-scale", "0.35"),
    *("--input-size", "32", "--num-epochs", "1", "--batch-size", "32"),
    *("--num-training-samples", "128", "--lr", "0.05", "-j", "1", "--threads", "1"),
]
OTHERS = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "DMLC", "JOB_"))}


@pytest.fixture
def shared(digits, tmp_path):
    """The folder that all workers share, with an ``asymmnet`` on the path."""
    for part in ("train", "val"):
        for suffix in (".rec", ".idx", ".classes.txt"):
            shutil.copy(digits.val.with_suffix(suffix), tmp_path / f"{part}{suffix}")
    executable(tmp_path / "bin/asymmnet", f'exec {sys.executable} -m gluon_asymmnet "$@"')
    return tmp_path


def executable(path, line):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def environment(shared, **variables):
    return {
        **OTHERS, "PYTHONPATH": str(ROOT), "PATH": f"{shared / 'bin'}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1", "ASYMMNET_TIMEOUT": "60", **variables,
    }  # fmt: skip


def test_the_manifest_of_kubernetes(shared):
    service, job = yaml.safe_load_all((ROOT / "docs/kubernetes.yaml").read_text())
    spec = job["spec"]
    pod = spec["template"]["spec"]
    [worker] = pod["containers"]
    variables = {item["name"]: item["value"] for item in worker["env"]}
    # the name of worker 0: job, index, and the service, which is the pods' subdomain
    assert variables["DMLC_PS_ROOT_URI"] == f"{job['metadata']['name']}-0.{pod['subdomain']}"
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert int(variables["DMLC_NUM_WORKER"]) == spec["completions"] == spec["parallelism"]
    mount = worker["volumeMounts"][0]["mountPath"]
    line = [word.replace(mount, str(shared)) for word in (*worker["command"], *worker["args"])]
    here = {"DMLC_NUM_WORKER": "2", "DMLC_PS_ROOT_URI": "127.0.0.1",
            "DMLC_PS_ROOT_PORT": str(free_port())}  # fmt: skip
    workers = [
        subprocess.Popen(
            [*line, *SMALL],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(shared, **{**variables, **here}, JOB_COMPLETION_INDEX=str(index)),
        )
        for index in range(2)
    ]
    texts = [process.communicate(timeout=200)[0] for process in workers]
    assert [process.returncode for process in workers] == [0, 0], texts
    assert "2 workers of 1 cpu(s)" in texts[0]
    assert (shared / "runs/custom/asymmnet_small_published/best.params").exists()


@pytest.mark.parametrize("status", [0, 143])
def test_the_script_of_slurm(shared, status):
    """``srun`` starts two numbered workers; its status is the highest of theirs."""
    if status:
        executable(shared / "bin/srun", f"exit {status}")
    else:
        executable(
            shared / "bin/srun",
            'SLURM_PROCID=1 "$@" & other=$!\nSLURM_PROCID=0 "$@" || exit 1\nwait $other',
        )
    executable(shared / "bin/scontrol", f'echo "$@" > {shared}/requeued')
    executable(shared / "bin/hostname", "echo 127.0.0.1")
    done = subprocess.run(
        ["sh", str(ROOT / "docs/slurm.sh"), *SMALL], capture_output=True, text=True, timeout=200,
        env=environment(shared, DATA=str(shared), RUNS=str(shared / "runs of mine"),
                        SLURM_NTASKS="2", SLURM_JOB_ID="17", DMLC_PS_ROOT_PORT=str(free_port())),
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    if status:
        assert (shared / "requeued").read_text() == "requeue 17\n"
        return
    assert not (shared / "requeued").exists()
    assert "2 workers of 1 cpu(s)" in done.stdout
    assert (shared / "runs of mine/custom/asymmnet_small_published/best.params").exists()
