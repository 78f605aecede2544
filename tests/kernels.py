"""Run the numerical tests with the instruction sets of several processors: ``make test-kernels``.

A bound that holds for the kernels of one processor only fails on another.  oneDNN (in MXNet and
OpenVINO) and OpenBLAS (in NumPy and MXNet) choose their kernels when they load, by these switches.
"""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent

# name: most of oneDNN's instruction sets, OpenBLAS' processor, the kernel that a convolution takes.
# Not SSE4.1: with it OpenVINO 2026.4 has no interpolation, and computes softsign wrongly.
SETTINGS = {
    "AVX2": ("AVX2", "Haswell", "jit:avx2"),
    "AVX-512": ("AVX512_CORE", "SkylakeX", "avx512_core"),
    "all": ("ALL", None, ""),
}
# OpenVINO asks the processor, not the switch, whether it computes in bfloat16, and then fails.
LEFT_OUT = {"AVX2": "not bfloat16"}

_CONVOLUTION = """
from gluon_asymmnet._mxnet import mx
mx.nd.Convolution(
    mx.nd.ones((1, 16, 32, 32)), mx.nd.ones((16, 16, 3, 3)), kernel=(3, 3), num_filter=16,
    no_bias=True,
).wait_to_read()
"""


def environment(isa: str, processor) -> dict:
    """Return this process's environment with the switches set."""
    switches = {"DNNL_MAX_CPU_ISA": isa, "ONEDNN_MAX_CPU_ISA": isa}
    if processor:
        switches["OPENBLAS_CORETYPE"] = processor
    return {**os.environ, "PYTHONPATH": str(TESTS.parent), **switches}


def convolution_kernel(env: dict) -> str:
    """Return the name of the kernel with which MXNet computes a convolution."""
    done = subprocess.run(
        [sys.executable, "-c", _CONVOLUTION], env={**env, "DNNL_VERBOSE": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [line.split(",") for line in done.stdout.splitlines() if ",convolution," in line]
    return lines[0][4]


def numerical_tests() -> list[str]:
    """Return pytest's arguments for the test files that compare floats.

    The folder without the other files, not the files: what ``conftest`` leaves out stays out.
    """
    others = [
        str(path) for path in sorted(TESTS.glob("test_*.py"))
        if "from tests.floats import" not in path.read_text()
    ]  # fmt: skip
    return [str(TESTS), *(f"--ignore={path}" for path in others)]


def main() -> int:
    """Run the tests with every setting that this processor has; return 1 if any failed."""
    results = {}
    for name, (isa, processor, expected) in SETTINGS.items():
        env = environment(isa, processor)
        kernel = convolution_kernel(env)
        if expected not in kernel:
            results[name] = f"not run: this processor's convolution stays {kernel}"
            continue
        print(f"{name}: convolution by {kernel}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", *sys.argv[1:],
             "-m", "not thorough and not slow and not browser and not horovod",
             "-k", LEFT_OUT.get(name, ""), *numerical_tests()],
            env=env,
        )  # fmt: skip
        results[name] = "passed" if done.returncode == 0 else "FAILED"
    for name, result in results.items():
        print(f"{name}: {result}")
    return int("FAILED" in results.values() or list(results.values()).count("passed") < 3)


if __name__ == "__main__":
    sys.exit(main())
