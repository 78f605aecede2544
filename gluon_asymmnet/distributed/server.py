"""Scheduler and parameter server of MXNet's kvstore, as a process that a worker starts.

It ends when its standard input closes, that is when its worker ends for any reason.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading


def start_server(role: str, variables: dict) -> subprocess.Popen:
    """Start the process; ``role`` is scheduler or server."""
    environment = {**os.environ, **variables, "ASYMMNET_ROLE": role, "OMP_NUM_THREADS": "1"}
    environment.pop("DMLC_ROLE", None)
    return subprocess.Popen(
        [sys.executable, "-m", __name__], stdin=subprocess.PIPE, env=environment
    )


def main() -> None:
    """Serve until all workers have ended."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # for the worker, which may save a checkpoint first
    threading.Thread(target=_exit_with_worker, daemon=True).start()
    # With DMLC_ROLE set, the import of MXNet starts a server whose controller unpickles its input.
    from gluon_asymmnet._mxnet import mx

    os.environ["DMLC_ROLE"] = os.environ["ASYMMNET_ROLE"]
    store = mx.kv.create("dist")
    controller = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    ignore = controller(lambda *_: None)
    mx.base.check_call(mx.base._LIB.MXKVStoreRunServer(store.handle, ignore, None))
    os._exit(0)  # the thread still reads standard input, and a normal exit would fail on that


def _exit_with_worker() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
