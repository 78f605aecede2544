"""Load parameter files into networks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Optional, Union

import numpy as np

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.arch import LARGE, plan_net
from gluon_asymmnet.data.constants import IMAGENET_CLASSES
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.utils.json_objects import read_json_lines
from gluon_asymmnet.weights.layouts import differences, entries, exported_names
from gluon_asymmnet.weights.params_file import read_params, strip_prefixes
from gluon_asymmnet.weights.published import PUBLISHED, fetch

_OUTPUT = ("output.weight", "output.bias")
_GLUON_LAYOUTS = ("ours", "released", "published")


def load_weights(
    net, path: Union[str, Path], *, ctx=None, skip_output: bool = False,
    rows: Optional[Mapping[int, int]] = None,
) -> str:  # fmt: skip
    """Read a Gluon parameter file of any layout into a classifier.

    Layouts: our own names, those of the authors' released code, of the published checkpoint (also
    GluonCV's MobileNetV3), and of a symbol exported from this net.

    Args:
        net: parameters that are not initialised are initialised here.
        path: the file.
        ctx: device or devices of these parameters; the CPU by default.
        skip_output: do not load the classifier layer, to fine-tune on other classes.
        rows: with it, classes of the net whose rows are copied: {class: class of the file}.

    Returns: the name of the layout.
    Raises:
        FormatError: if the file is damaged or belongs to another net; the message lists missing,
            unexpected and wrongly shaped arrays.  The net is then unchanged.
        FileNotFoundError: if there is no such file.
    """
    found = strip_prefixes(read_params(path))
    layout, names = _recognise(net, found, path)
    params = net._collect_params_with_prefix()
    ours = dict(zip(_candidates(net)["ours"], names))
    if skip_output:
        dropped = {name: ours.pop(name) for name in _OUTPUT if name in ours}
        output = {name: found.pop(dropped[name], None) for name in dropped}
    _check(path, layout, {theirs: params[our].shape for our, theirs in ours.items()}, found)
    for our, theirs in ours.items():
        _set(params[our], found[theirs], ctx)
    if skip_output:
        for name in set(_OUTPUT) & set(params):
            if params[name]._data is None:
                params[name].initialize(ctx=ctx, default_init=mx.init.MSRAPrelu())
            if rows and output[name] is not None:
                _copy_rows(params[name], output[name], rows)
    return layout


def _copy_rows(param, source: np.ndarray, rows: Mapping[int, int]) -> None:
    values = param.data(param.list_ctx()[0]).asnumpy()
    values[list(rows)] = source[list(rows.values())].reshape(-1, *values.shape[1:])
    param.set_data(mx.nd.array(values, dtype=param.dtype))


def _recognise(net, found: dict[str, np.ndarray], path):
    """Return the layout that shares most names with the file, and the net's names in it."""
    candidates = _candidates(net)
    shared = {layout: sum(n in found for n in names) for layout, names in candidates.items()}
    layout = max(shared, key=shared.get)
    if 2 * shared[layout] < min(len(found), len(candidates[layout])):
        first = next(iter(found), "nothing")
        raise FormatError(
            f"{path}: not a parameter file of {net.prefix.rstrip('_')}: its names "
            f"({first}, ...) are in none of the layouts {', '.join(candidates)}"
        )
    return layout, candidates[layout]


def _candidates(net) -> dict[str, list[str]]:
    """Return the names of the net's arrays in each layout, its own first."""
    if not hasattr(net, "plan"):
        params = net._collect_params_with_prefix()
        return {"ours": list(params), "exported": [p.name for p in params.values()]}
    plan, classes = net.plan, net.output._channels
    candidates = {
        layout: [e.name for e in entries(plan, classes, layout)] for layout in _GLUON_LAYOUTS
    }
    candidates["exported"] = exported_names(net.prefix, plan, classes)
    return candidates


def _check(path, layout, expected: dict[str, tuple], found: dict[str, np.ndarray]) -> None:
    problems = differences(expected, {name: array.shape for name, array in found.items()})
    if problems:
        raise FormatError(f"{path} ({layout} layout) does not fit the net: {problems}")


def _set(param, value: np.ndarray, ctx) -> None:
    if param._data is None:
        param.initialize(init=mx.init.Zero(), ctx=ctx, force_reinit=True)
    param.set_data(mx.nd.array(value, dtype=param.dtype))


def has_published_weights(net) -> bool:
    """Return whether the authors published weights of this net, whatever its classes."""
    return getattr(net, "plan", None) == plan_net(LARGE)


def load_published(net, *, root=None, ctx=None, skip_output: bool = False) -> None:
    """Load the authors' published checkpoint, downloading it if it is not in the cache.

    Args:
        net: ``asymmnet_large`` at width 1 and rate 1; nothing else was published.
        root, ctx: as in ``published.fetch`` and ``load_weights``.
        skip_output: do not load the classifier layer, to fine-tune on other classes.

    Raises: InputError if ``net`` is another network; RunError if the download fails.
    """
    if not has_published_weights(net):
        raise InputError(
            f"no published weights for {net.prefix.rstrip('_')}: only asymmnet_large at width 1.0 "
            f"and rate 1, without shuffle, was published"
        )
    classes = net.output._channels
    if classes != IMAGENET_CLASSES and not skip_output:
        raise InputError(
            f"the published weights have {IMAGENET_CLASSES} classes, the net {classes}: build it "
            f"with classes={IMAGENET_CLASSES}, or skip the classifier layer"
        )
    load_weights(net, fetch(root=root), ctx=ctx, skip_output=skip_output)


def newest_weights(folder: Path) -> Path:
    """Return the best, else the last, else the newest checkpoint's parameters of a run.

    The best are those of the average where its best validation was better.
    """
    best = ["best-ema.params"] if _average_is_better(folder) else []
    candidates = [folder / name for name in (*best, "best.params", "last.params")]
    candidates += sorted(folder.glob("checkpoints/step-*/net.params"), reverse=True)
    for path in candidates:
        if path.is_file():
            return path
    raise InputError(f"{folder}: the run has no weights yet; let it finish an epoch")


def find_weights(source: Union[str, Path]) -> Path:
    """Return the parameter file of a run, of an exported folder, of ``published``, or the file.

    Raises: InputError if a folder holds none.
    """
    if source == PUBLISHED:
        return fetch()
    path = Path(source)
    if not path.is_dir():
        return path
    exported = sorted(path.glob("*-0000.params"))
    return exported[0] if len(exported) == 1 else newest_weights(path)


def _average_is_better(run: Path) -> bool:
    """Compare the best first metric of weights and average, top-1 or mAP, in a run's metrics."""
    best: dict[str, float] = {}
    for row in read_json_lines(run / "metrics.jsonl"):
        names = [name for name in row if name.startswith("val_")]
        average = next((name for name in names if name.startswith("val_ema_")), None)
        for name in (*names[:1], *filter(None, [average])):
            if isinstance(row[name], (int, float)):
                best[name] = max(row[name], best.get(name, row[name]))
    scores = {name.startswith("val_ema_"): score for name, score in best.items()}
    return len(scores) == 2 and scores[True] > scores[False]


def load_exact(net, path: Union[str, Path], *, ctx=None) -> None:
    """Read a Gluon parameter file with our own names into any block.

    Arrays in ``net.constants``, such as a detector's anchors, are not loaded: the net computes
    them.

    Args:
        net: parameters that are not initialised are initialised here.
        ctx: device or devices of these parameters; the CPU by default.

    Raises:
        FormatError: if the file is damaged or belongs to another net, which is then unchanged.
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
