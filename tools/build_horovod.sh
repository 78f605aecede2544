#!/bin/sh
# Usage: build_horovod.sh PYTHON: build Horovod for the MXNet of PYTHON's environment; some minutes.
#
# PyPI has sources only, and its last release predates CMake 4 and the newer setuptools; hence a
# build environment of our choice instead of pip's own.  Gloo needs no MPI; NCCL is taken up on a
# machine with GPUs when HOROVOD_GPU_OPERATIONS=NCCL is set.
set -eu
python=${1:?usage: build_horovod.sh PYTHON}
command -v c++ >/dev/null || { echo "build_horovod.sh: needs a C++ compiler (g++ or clang++)" >&2; exit 2; }

kept=$("$python" -c 'import importlib.metadata as m; print(m.version("setuptools"))')
"$python" -m pip install --quiet 'setuptools<70' wheel 'cmake<4' packaging cloudpickle psutil pyyaml
PATH=$(dirname "$python"):$PATH \
HOROVOD_WITH_MXNET=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 \
HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 \
    "$python" -m pip install --no-build-isolation --no-deps 'horovod==0.28.1'
"$python" -m pip install --quiet "setuptools==$kept"
"$python" -c 'import horovod.mxnet as h; h.init(); assert h.gloo_built(); print("Horovod", h.size())'
