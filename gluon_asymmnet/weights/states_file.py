"""The trainer states beside the authors' checkpoint: a pickle, looked at without running it."""

import io
import pickle
import pickletools
from pathlib import Path

from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.weights.params_file import kind_of
from gluon_asymmnet.weights.published import git_blob_id


def inspect_states(path) -> dict:
    """Say what a ``.states`` file of ``Trainer.save_states`` holds, without unpickling it.

    Only the opcodes are read; nothing in the file is executed or imported.  The names are
    those of a pickle as ``pickle`` writes it: a hostile file can hide some.

    Returns: ``bytes`` and ``git_blob_id`` of the file, pickle ``protocol``, ``globals`` (every
        class or function that loading would import and may call), ``arrays`` and
        ``array_bytes`` (serialised NDArrays, headers included), ``strings`` (the other texts
        of up to 100 characters).

    Raises: FormatError if it is no pickle, or a damaged one; FileNotFoundError.
    """
    data = _read_pickle(path)
    protocol, names, arrays, strings = None, set(), [], set()
    try:
        for kind, value in _pickle_contents(data):
            if kind == "protocol":
                protocol = value
            elif kind == "global":
                names.add(value)
            elif _is_ndarray(value):
                arrays.append(len(value))
            elif isinstance(value, str) and len(value) <= 100:
                strings.add(value)
    except ValueError as error:  # what pickletools raises on damage, UnicodeDecodeError included
        raise FormatError(f"{path}: damaged pickle: {_one_line(error)}") from None
    return {
        "bytes": len(data),
        "git_blob_id": git_blob_id(path),
        "protocol": protocol,
        "globals": sorted(names),
        "arrays": len(arrays),
        "array_bytes": sum(arrays),
        "strings": sorted(strings),
    }


def load_states(path, trust: bool = False):
    """Unpickle a ``.states`` file, which can run any code: only with ``trust=True``.

    Import MXNet first; the pickle names its classes.

    Returns: what was pickled: ``{parameter index: state}``, or that and the optimizer.

    Raises: InputError without ``trust``; FormatError if it is no pickle; FileNotFoundError.
    """
    if trust is not True:
        raise InputError(
            f"{path} is a Python pickle, and loading it runs the code it names; look at it with "
            f"inspect_states, and pass trust=True if you know who made it"
        )
    try:
        return pickle.loads(_read_pickle(path))
    except (pickle.UnpicklingError, EOFError) as error:
        raise FormatError(f"{path}: damaged pickle: {_one_line(error)}") from None


def _read_pickle(path) -> bytes:
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a directory; a .states file is needed")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    data = path.read_bytes()
    if not data.startswith(b"\x80"):  # PROTO, which every pickle since protocol 2 starts with
        kind = kind_of(data[:512]) or "something else"
        raise FormatError(f"{path}: not a pickle (of protocol 2 or later) but {kind}")
    return data


def _pickle_contents(data: bytes):
    """Yield ``("protocol", int)``, ``("global", name)`` and ``("value", str or bytes)``.

    STACK_GLOBAL takes its module and name from the stack; they are the two texts pushed
    last, directly or from the memo.
    """
    memo, texts, top = {}, ["?", "?"], None
    for opcode, arg, _ in pickletools.genops(io.BytesIO(data)):
        name = opcode.name
        if name == "PROTO":
            yield "protocol", arg
        elif name in ("GLOBAL", "INST"):
            yield "global", arg.replace(" ", ".")
        elif name == "STACK_GLOBAL":
            yield "global", ".".join(texts)
        elif isinstance(arg, (str, bytes, bytearray)):
            yield "value", arg

        if name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if arg is None else arg] = top
            continue  # does not touch the stack
        if name in ("GET", "BINGET", "LONG_BINGET"):
            top = memo.get(arg)
        else:
            top = arg if isinstance(arg, str) else None
        if top is not None:
            texts = [texts[1], top]


def _is_ndarray(value) -> bool:
    """Whether a text or byte string is a serialised NDArray: they start with the version.

    Protocol 2 has no byte strings and carries them as Latin-1 text.
    """
    if isinstance(value, str):
        return value.startswith("\xc9\xfa\x93\xf9")
    return bytes(value[:4]) == b"\xc9\xfa\x93\xf9"


def _one_line(text) -> str:
    return " ".join(str(text)[:500].split())
