"""Exporting from Python: ``gluon_asymmnet.export``."""

from collections.abc import Sequence
from pathlib import Path

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.utils.registry import import_modules

FORMS = ("symbol", "onnx", "openvino", "all")


def run(path, out, form: str = "onnx", *, imports: Sequence[str] = (), **options) -> Path:
    """Export a run, an exported folder or a ``.params`` file with its card, and compare the files.

    Args:
        out: the folder to write; must not exist.
        form: one of ``FORMS``.
        imports: modules that register own parts.
        options: those of ``export_symbol``, ``export_onnx``, ``export_openvino`` or ``export_all``.

    Returns: the folder.
    Raises: InputError, FormatError, FileNotFoundError.
    """
    if form not in FORMS:
        raise InputError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
    import_modules(imports)
    from gluon_asymmnet.export import formats, openvino, symbol
    from gluon_asymmnet.export.onnx.export import export_onnx
    from gluon_asymmnet.saved import open_saved

    export = {
        "symbol": symbol.export_symbol, "onnx": export_onnx,
        "openvino": openvino.export_openvino, "all": formats.export_all,
    }[form]  # fmt: skip
    return export(open_saved(path), out, **options)
