"""A scheduler or a server of MXNet's kvstore: a process that a worker starts for itself.

It ends when its standard input does, that is with its worker, however that ended.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading


def start_helper(role: str, variables: dict) -> subprocess.Popen:
    """Start a process; ``role`` is scheduler or server."""
    environment = {**os.environ, **variables, "ASYMMNET_ROLE": role, "OMP_NUM_THREADS": "1"}
    environment.pop("DMLC_ROLE", None)
    return subprocess.Popen(
        [sys.executable, "-m", __name__], stdin=subprocess.PIPE, env=environment
    )


def main() -> None:
    """Serve until all workers have ended."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # meant for the worker, which may want to save first
    threading.Thread(target=_end_with_the_worker, daemon=True).start()
    # DMLC_ROLE would make the import itself serve, with a controller that unpickles what it gets.
    from gluon_asymmnet._mxnet import mx

    os.environ["DMLC_ROLE"] = os.environ["ASYMMNET_ROLE"]
    store = mx.kv.create("dist")
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    refuse = kind(lambda *_: None)
    mx.base.check_call(mx.base._LIB.MXKVStoreRunServer(store.handle, refuse, None))
    os._exit(0)  # the thread below still reads, which the interpreter's end would trip over


def _end_with_the_worker() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
