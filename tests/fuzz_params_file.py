"""Feed damaged .params files to the reader; prints one line of JSON, exit status 1 on a crash.

    python tests/fuzz_params_file.py --inputs 100000

A crash is anything but an exact round trip or a FormatError of one line, or more memory than
a file of that size warrants.  Input ``i`` of seed ``s`` is always the same bytes, so the
index in the report reproduces it (``--first i --inputs 1``).
"""

import argparse
import json
import random
import struct
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

from gluon_asymmnet.errors import FormatError
from gluon_asymmnet.weights.params_file import read_params, write_params

V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
# Values at which a careless reader goes wrong: signs, ends of the integer types, magic numbers.
EDGES = (0, 1, 2, 7, 12, 32, 33, 0x112, V1, V2, V3, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1,
         2**63, 2**64 - 1)  # fmt: skip
# Python's own objects (a dict entry, a string, an array, a message) per input and per byte.
FIXED_BYTES, BYTES_PER_BYTE = 50_000, 40


def params_bytes(*arrays: bytes, names=("a",)) -> bytes:
    """A file made of arrays that are already serialised."""
    out = struct.pack("<QQQ", 0x112, 0, len(arrays)) + b"".join(arrays)
    raw = [name.encode() for name in names]
    return out + struct.pack("<Q", len(raw)) + b"".join(struct.pack("<Q", len(n)) + n for n in raw)


VALUES = np.array([1.5, -2.5], "<f4").tobytes()
CPU_FLOAT32 = struct.pack("<iii", 1, 0, 0)  # device type, device id, dtype flag
ARRAY_V2 = struct.pack("<Iiiq", V2, 0, 1, 2) + CPU_FLOAT32 + VALUES
ARRAY_V1 = struct.pack("<Iiq", V1, 1, 2) + CPU_FLOAT32 + VALUES
ARRAY_OLDEST = struct.pack("<II", 1, 2) + CPU_FLOAT32 + VALUES
ARRAY_SCALAR = struct.pack("<Iii", V3, 0, 0) + CPU_FLOAT32 + VALUES[:4]
ARRAY_EMPTY = struct.pack("<Iiiqq", V2, 0, 2, 0, 3) + CPU_FLOAT32
ARRAY_UNSHAPED = struct.pack("<Iii", V2, 0, 0)
# What MXNet 1.9.1 wrote for nd.ones((2, 2)).tostype("row_sparse").
ARRAY_SPARSE = bytes.fromhex(
    "c9fa93f9010000000200000002000000000000000200000000000000020000000200000000000000"
    "02000000000000000100000000000000000000000600000001000000020000000000000000000000"
    "0000803f0000803f0000803f0000803f00000000000000000100000000000000"
)


def seeds() -> list:
    """Small files of every kind that the reader knows, as bytes."""
    dtypes = ("f4", "f8", "f2", "u1", "i4", "i1", "i8", "?")
    arrays = {f"features.{i}.weight": np.ones((2, i), name) for i, name in enumerate(dtypes)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seed.params"
        write_params(path, arrays)
        whole = path.read_bytes()
        write_params(path, {**arrays, "scalar": np.array(1.0)}, np_shape=True)
        return [
            whole,
            path.read_bytes(),
            params_bytes(ARRAY_V1, ARRAY_OLDEST, ARRAY_V2, names=("arg:a", "aux:b", "c")),
            params_bytes(ARRAY_SCALAR, ARRAY_EMPTY, names=("s", "e")),
            params_bytes(ARRAY_UNSHAPED),
            params_bytes(ARRAY_SPARSE),
            params_bytes(ARRAY_V2, names=()),
            params_bytes(names=()),
        ]


def mutate(rng: random.Random, seed: bytes) -> bytes:
    """Damage ``seed`` in one to four places; one input in fifty is noise instead."""
    if rng.random() < 0.02:
        return rng.randbytes(rng.randrange(200))
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        length = rng.choice((1, 2, 4, 8, 16))
        kind = rng.randrange(6)
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            size = rng.choice((4, 8))
            data[at : at + size] = (rng.choice(EDGES) % 256**size).to_bytes(size, "little")
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = rng.randbytes(length)
        else:
            data[at:at] = data[at // 2 : at // 2 + length]
    return bytes(data)


def check(folder: Path, data: bytes) -> tuple:
    """Read ``data`` from a file; return whether it was accepted and the bytes that took.

    Raises: AssertionError on a crash.
    """
    path, again = folder / "input.params", folder / "again.params"
    path.write_bytes(data)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        params = read_params(path)
    except FormatError as error:
        message = str(error)
        assert message.startswith(str(path)), message
        assert "\n" not in message, message
        assert len(message) < 1000 + len(str(path)), message
        params = None
    spent = tracemalloc.get_traced_memory()[1] - before
    assert spent <= FIXED_BYTES + BYTES_PER_BYTE * len(data), f"{spent} bytes for {len(data)}"
    if params is None:
        return False, spent
    write_params(again, params, np_shape=True)
    for (name, array), (name_again, array_again) in zip(params.items(), read_params(again).items()):
        assert name == name_again
        assert array.dtype == array_again.dtype
        assert array.shape == array_again.shape
        assert array.tobytes() == array_again.tobytes()
    return True, spent


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="index of the first")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other inputs")
    args = parser.parse_args(argv)

    sources = seeds()
    accepted, crashes, largest, peak = 0, [], 0, 0
    start = time.perf_counter()
    tracemalloc.start()
    with tempfile.TemporaryDirectory() as folder:
        for i in range(args.first, args.first + args.inputs):
            rng = random.Random((args.seed << 40) + i)
            data = mutate(rng, rng.choice(sources))
            largest = max(largest, len(data))
            try:
                read, spent = check(Path(folder), data)
                accepted += read
                peak = max(peak, spent)
            except Exception as error:
                crashes.append({"index": i, "error": repr(error)})
    tracemalloc.stop()
    report = {
        "inputs": args.inputs,
        "seed": args.seed,
        "accepted": accepted,
        "refused": args.inputs - accepted - len(crashes),
        "crashes": len(crashes),
        "first_crashes": crashes[:5],
        "largest_input_bytes": largest,
        "peak_memory_bytes": peak,
        "seconds": round(time.perf_counter() - start, 1),
    }
    print(json.dumps(report))
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
