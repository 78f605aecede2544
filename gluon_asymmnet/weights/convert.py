"""Convert parameter files between formats.

A format is a kind of file and a layout of names (``layouts.FORMATS``).  All layouts have the same
arrays in the same order, so a conversion renames arrays and changes no value.  A file that is
converted to another format and back is the same, byte for byte.

The content is recognised from the file: its kind by the first bytes, the layout by the names, the
network by the shapes.  A channel shuffle cannot be recognised.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from gluon_asymmnet.arch import STEMS, WIDTHS, NetPlan, plan_net
from gluon_asymmnet.data.constants import IMAGENET_CLASSES
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.models.registry import SPECS, ModelSpec
from gluon_asymmnet.utils.atomic import NewFiles, naming
from gluon_asymmnet.weights.layouts import FORMATS, LAYOUTS, differences, entries
from gluon_asymmnet.weights.params_file import kind_of, read_params, write_params
from gluon_asymmnet.weights.safetensors_file import read_safetensors, write_safetensors
from gluon_asymmnet.weights.state_dict_file import read_state_dict, write_state_dict

_RATES = (0, 1, 2)  # no other fits any width
_COUNTER = ".num_batches_tracked"  # PyTorch's, beside each norm; unused at a fixed momentum
_FLOATS = ("float16", "float32", "float64")


class Weights(NamedTuple):
    """The arrays of a network, read from a file."""

    layout: str
    model: ModelSpec  # a network with these arrays: MobileNetV3 shares some with AsymmNet's rate 0
    plan: NetPlan
    classes: int
    arrays: list  # np.ndarray, in the order of the layouts


class Conversion(NamedTuple):
    """The result of a conversion."""

    source_layout: str
    model: ModelSpec
    classes: int
    arrays: int
    notes: tuple[str, ...]  # for users of the result; mostly empty


def convert(
    source,
    out,
    to: str,
    *,
    model: Optional[str] = None,
    width: Optional[float] = None,
    rate: Optional[int] = None,
    overwrite: bool = False,
) -> Conversion:
    """Write the weights of ``source`` to ``out`` in the format ``to``, all or nothing.

    Args:
        source: a file in any of the formats.
        out: the file to write; its folder must exist.
        to: one of ``FORMATS``.
        model, width, rate: the network, needed only if its width is not in ``WIDTHS``.
        overwrite: replace ``out`` if it exists.

    Raises:
        InputError: for an unknown format or model; if ``out`` exists; if PyTorch is needed and
            missing.
        FormatError: if ``source`` is damaged or another network; the message has the differences
            from the nearest one.
        FileNotFoundError: if ``source`` or the folder of ``out`` does not exist.
    """
    if to not in FORMATS:
        raise InputError(f"unknown format {to!r}: expected one of {', '.join(FORMATS)}")
    weights = read_weights(source, model=model, width=width, rate=rate)
    layout = FORMATS[to].layout
    wanted = entries(weights.plan, weights.classes, layout)
    arrays = {e.name: array.reshape(e.shape) for e, array in zip(wanted, weights.arrays)}
    notes = _notes(weights, layout)
    with NewFiles(overwrite=overwrite) as files:
        scratch = files.add(out)
        with naming(Path(out), scratch):
            _WRITERS[FORMATS[to].container](scratch, arrays)
    return Conversion(weights.layout, weights.model, weights.classes, len(arrays), notes)


def read_weights(
    path,
    *,
    model: Optional[str] = None,
    width: Optional[float] = None,
    rate: Optional[int] = None,
) -> Weights:
    """Read a file of any format and recognise its network.

    Args and errors: as ``convert``.
    """
    candidates = list(_candidates(model, width, rate))
    found = read_arrays(path)
    layout = find_layout(path, found)
    classes = classes_of(found, layout)
    shapes = {name: array.shape for name, array in found.items()}

    def distance(candidate) -> int:
        return len(dict(entries(candidate[1], classes, layout)).items() ^ shapes.items())

    nearest, plan = min(candidates, key=distance)
    try:
        arrays = arrays_of(path, found, layout, plan, classes)
    except FormatError as error:
        if model is not None:
            raise
        raise FormatError(
            f"{error}; the nearest known net is {nearest.id}: if the file has another width, name "
            f"the net with --model"
        ) from None
    return Weights(layout, nearest, plan, classes, arrays)


def read_arrays(path) -> dict[str, np.ndarray]:
    """Read the named arrays of a file of any kind, without PyTorch's batch counters."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; a parameter file is needed")
    with path.open("rb") as file:
        kind = kind_of(file.read(512))
    if kind not in _READERS:
        raise FormatError(f"{path}: {kind}; expected a .params, .pt, .safetensors or .npz file")
    arrays = _READERS[kind](path)
    return {name: array for name, array in arrays.items() if not name.endswith(_COUNTER)}


def find_layout(path, names) -> str:
    """Return the layout that shares most names with the file; FormatError if there is none."""
    plan = plan_net(SPECS["asymmnet_large"])  # the other networks share most of its names
    known = {layout: {e.name for e in entries(plan, layout=layout)} for layout in LAYOUTS}
    shared = {layout: sum(name in of for name in names) for layout, of in known.items()}
    layout = max(shared, key=shared.get)
    if shared[layout] == 0 or 2 * shared[layout] < min(len(names), len(known[layout])):
        raise FormatError(
            f"{path}: not the weights of AsymmNet or MobileNetV3: its names "
            f"({next(iter(names), 'none')}, ...) are in none of the layouts {', '.join(LAYOUTS)}"
        )
    return layout


def arrays_of(
    path, found: Mapping[str, np.ndarray], layout: str, plan: NetPlan, classes: int
) -> list:
    """Return the arrays of a network in the order of the layouts; FormatError for other arrays."""
    expected = dict(entries(plan, classes, layout))
    problems = differences(expected, {name: array.shape for name, array in found.items()})
    if problems:
        raise FormatError(f"{path} ({layout} layout) does not fit the net: {problems}")
    for name in expected:
        if found[name].dtype.name not in _FLOATS:
            raise FormatError(
                f"{path}: {name} is {found[name].dtype}, expected one of {', '.join(_FLOATS)}"
            )
    return [found[name] for name in expected]


# ---------------------------------------------------------------------------- recognition


def _candidates(
    model: Optional[str], width: Optional[float], rate: Optional[int]
) -> Iterator[tuple[ModelSpec, NetPlan]]:
    """Yield the networks to compare a file with; of equally near ones the first is taken."""
    if model is not None:
        specs = [ModelSpec.parse(model, width=width, rate=rate)]
    elif width is not None or rate is not None:
        raise InputError("a width or rate needs a model: name it, too")
    else:
        specs = [
            ModelSpec(name, w, r)
            for name, spec in SPECS.items()
            for w in WIDTHS
            for r in (_RATES if spec.asymmetric else (0,))
        ]
    for spec in specs:
        for stem in STEMS:
            try:
                yield spec, _plan(spec, stem)
            except InputError:  # e.g. rate 2 at width 0.35
                if model is not None:
                    raise


@functools.cache
def _plan(spec: ModelSpec, stem: str) -> NetPlan:
    return spec._replace(stem=stem).plan()


def classes_of(found: Mapping[str, np.ndarray], layout: str) -> int:
    """Return the number of classes, the length of the last array, the classifier's bias."""
    last = entries(plan_net(SPECS["asymmnet_large"]), layout=layout)[-1].name
    shape = found[last].shape if last in found else ()
    return shape[0] if len(shape) == 1 else IMAGENET_CLASSES


def _notes(weights: Weights, to_layout: str) -> tuple[str, ...]:
    """Describe differences between the nets of the authors' MXNet code and their PyTorch port.

    Only the first block differs: the MXNet code assumes 16 input channels at any width, the port
    takes the real number.
    """
    if (weights.layout == "torch") == (to_layout == "torch"):
        return ()
    released, port = (_plan(weights.model, stem).blocks[0] for stem in ("authors", "scaled"))
    which = weights.model.id
    if released.expand_channels != port.expand_channels:
        if weights.plan.blocks[0].expand_channels:
            return (
                f"{which}: the first block of these weights expands, as in the released MXNet "
                f"code; the authors' PyTorch port has no expansion there and cannot load them",
            )
        return (
            f"{which}: the first block of these weights does not expand, as in the authors' "
            f"PyTorch port; the released MXNet code cannot load them, ours does with stem=scaled",
        )
    if released.shortcut != port.shortcut:
        return (
            f"{which}: the first block has a shortcut in the authors' PyTorch port and none in "
            f"their MXNet code, so the same weights give other logits; ours has it with "
            f"stem=scaled",
        )
    return ()


# ------------------------------------------------------------------------- kinds of files


def _read_npz(path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            _refuse_bomb(archive.zip)
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged archive raises any exception
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FormatError(f"{path}: not a valid .npz file of plain arrays: {reason}") from None


def _refuse_bomb(archive) -> None:
    """Raise ValueError for an archive that would need too much memory, or for a cut-off array.

    Weights hardly compress; zeros compress a thousandfold and are accepted up to 16 MiB.
    """
    members = archive.infolist()
    packed = sum(member.compress_size for member in members)
    if sum(member.file_size for member in members) > 64 * packed + (16 << 20):
        raise ValueError(f"{packed} bytes would expand to more than 64 times as many")
    for member in members:
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            read = f"read_array_header_{'1_0' if version == (1, 0) else '2_0'}"
            shape, _, dtype = getattr(np.lib.format, read)(file)
            if math.prod(shape) * dtype.itemsize > member.file_size:
                raise ValueError(f"an array is cut off: {member.file_size} bytes are there")


def _write_npz(path, arrays: Mapping[str, np.ndarray]) -> None:
    with open(path, "wb") as file:  # given a path, NumPy appends .npz to it
        np.savez(file, **arrays)


def _write_state_dict(path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write with the batch counters of PyTorch's norms, which strict loading needs."""
    state = {}
    for name, array in arrays.items():
        state[name] = array
        if name.endswith(".running_var"):
            state[name.replace(".running_var", _COUNTER)] = np.zeros((), np.int64)
    write_state_dict(path, state)


_READERS = {  # by the result of kind_of, which is None for .params files
    None: read_params,
    "a PyTorch file": read_state_dict,
    "a PyTorch file (before 1.6)": read_state_dict,
    "a safetensors file": read_safetensors,
    "a NumPy .npz archive": _read_npz,
}
_WRITERS = {
    "params": write_params,
    "state_dict": _write_state_dict,
    "safetensors": write_safetensors,
    "npz": _write_npz,
}
