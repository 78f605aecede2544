"""Load a parameter file that has the net's own names."""

from pathlib import Path
from typing import Union

from gluon_asymmnet._environment import mx
from gluon_asymmnet.compat.layouts import differences
from gluon_asymmnet.compat.params_file import read_params, strip_prefixes
from gluon_asymmnet.errors import FormatError


def load_exact(net, path: Union[str, Path], *, ctx=None) -> None:
    """Read a Gluon parameter file into any net of ours.

    The arrays that ``net.constants`` names, a detector's anchors, are left as they are: they
    follow from the net.

    Args:
        net: any block; initialised here where it is not.
        ctx: device or devices for a net that is not initialised; the CPU by default.

    Raises:
        FormatError: if the file is damaged or holds another net; the net is then unchanged.
        FileNotFoundError: if there is no such file.
    """
    found = strip_prefixes(read_params(path))
    params = net._collect_params_with_prefix()
    constants = getattr(net, "constants", ())
    problems = differences(
        {n: tuple(p.shape) for n, p in params.items() if n not in constants},
        {n: array.shape for n, array in found.items() if n not in constants},
    )
    if problems:
        raise FormatError(f"{path} does not fit {net.prefix.rstrip('_')}: {problems}")
    for name, param in params.items():
        if param._data is None:
            param.initialize(init=None if name in constants else mx.init.Zero(), ctx=ctx)
        if name not in constants:
            param.set_data(mx.nd.array(found[name], dtype=param.dtype))
