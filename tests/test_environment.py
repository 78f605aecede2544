import subprocess
import sys

import numpy as np
import pytest

from gluon_asymmnet._mxnet import _ALIASES, _FINANCIAL, mx, restore_numpy_names
from tests.conftest import run_python

pytestmark = pytest.mark.thorough


def test_importing_says_nothing():
    code = (
        "import gluon_asymmnet; gluon_asymmnet.get_model\n"
        "from gluon_asymmnet._mxnet import mx, gluoncv"
    )
    done = run_python("-W", "error::DeprecationWarning", "-W", "error::FutureWarning", "-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_plain_import_needs_no_mxnet():
    code = "import sys, gluon_asymmnet; sys.exit('mxnet' in sys.modules or 'numpy' in sys.modules)"
    assert run_python("-c", code).returncode == 0


def test_names_numpy_still_has_are_left_alone():
    before = {name: vars(np).get(name) for name in ("float64", "bool_", "prod", "isin")}
    restore_numpy_names()
    assert all(vars(np)[name] is value for name, value in before.items())
    assert all(name in vars(np) for name in (*_ALIASES, *_FINANCIAL))


def test_mxnet_runs_with_the_names_put_back():
    assert mx.nd.ones((2, 2)).sum().asscalar() == 4


def test_gluoncv_loads_beside_a_new_torch():
    code = (
        "import torch; from gluon_asymmnet._mxnet import gluoncv; import sys, torch as again;"
        "sys.exit(not (again is torch and torch.__version__ >= '2' and gluoncv.model_zoo))"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr


def test_threads_are_set_before_mxnet_loads():
    code = (
        "import os, sys; os.environ.pop('OMP_NUM_THREADS', None)\n"
        "from gluon_asymmnet.utils.threads import set_threads, available\n"
        "assert set_threads() == available() and set_threads(3) == 3\n"
        "import gluon_asymmnet._mxnet\n"
        "assert set_threads(3) == 3\n"
        "try: set_threads(2)\n"
        "except ValueError as error: assert 'OMP_NUM_THREADS=2' in str(error)\n"
        "else: sys.exit(1)"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert subprocess.run([sys.executable, "-c", "0"]).returncode == 0
