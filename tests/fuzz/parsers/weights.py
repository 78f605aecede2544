"""Arrays: parameter files of every format, and Fashion-MNIST's."""

import gzip
import io
import tempfile
from pathlib import Path

import numpy as np

from gluon_asymmnet.data.fashion import read_idx
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.weights.convert import read_arrays
from gluon_asymmnet.weights.safetensors_file import read_safetensors, write_safetensors
from gluon_asymmnet.weights.state_dict_file import read_state_dict, write_state_dict
from tests import fuzz_params_file
from tests.fuzz import mutations as damage
from tests.fuzz.parsers.base import Target

ARRAYS = {"a.weight": np.ones((2, 3), np.float32), "b": np.arange(4, dtype=np.int64)}


def written(write, name):
    """The bytes that ``write(path, ARRAYS)`` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path, ARRAYS)
        return path.read_bytes()


def idx_seeds():
    """An array of bytes, plain and compressed."""
    plain = bytes.fromhex("00000803 00000002 00000002 00000003") + bytes(range(12))
    return [plain, gzip.compress(plain, mtime=0)]


def read_idx_array(folder, data):
    (folder / "a").write_bytes(data)
    read_idx(folder / "a")


def params_seeds():
    """Without those that only a refusal fits: no shape, sparse, no names."""
    found = fuzz_params_file.seeds()
    return [*found[:4], found[-1]]


def read_params(folder, data):
    """A round trip of what is accepted, too."""
    accepted, _ = fuzz_params_file.check(folder, data)
    if not accepted:
        raise InputError("refused")


def reader(read, name):
    """Return a function that writes its input to a file and reads it."""

    def read_file(folder, data):
        (folder / name).write_bytes(data)
        found = read(folder / name)
        assert isinstance(found, dict)

    return read_file


def npz(compressed):
    out = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(out, **ARRAYS)
    return out.getvalue()


TARGETS = {
    "params": Target("`read_params`", params_seeds, damage.damaged_bytes, read_params),
    "idx array": Target("`read_idx`", idx_seeds, damage.damaged_bytes, read_idx_array, 2000),
    "safetensors": Target(
        "`read_safetensors`", lambda: [written(write_safetensors, "a.safetensors")],
        damage.damaged_safetensors, reader(read_safetensors, "a.safetensors"),
    ),
    "npz": Target(
        "`read_arrays`", lambda: [npz(False), npz(True)], damage.damaged_zip,
        reader(read_arrays, "a.npz"), 2000,
    ),
    "state dict": Target(
        "`read_state_dict`", lambda: [written(write_state_dict, "a.pt")], damage.damaged_zip,
        reader(read_state_dict, "a.pt"), 2000,
    ),
}  # fmt: skip
