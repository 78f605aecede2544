"""Write the golden symbols and ``manifest.json``; run it by ``make goldens``.

Each golden is a static graph: a change of architecture shows as a diff of its JSON.
"""

import hashlib
import json
from pathlib import Path

from gluon_asymmnet import get_model
from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.models.complexity import count_model
from gluon_asymmnet.models.registry import ModelSpec

HERE = Path(__file__).parent
MODELS = (
    ModelSpec("asymmnet_large", 1.0, 1),
    ModelSpec("asymmnet_large", 0.5, 1),
    ModelSpec("asymmnet_small", 1.0, 1),
    ModelSpec("asymmnet_small", 0.5, 1),
    ModelSpec("asymmnet_large", 1.0, 0),
)
INPUT_SIZE = 224


def symbol_json(spec: ModelSpec) -> str:
    """Return the static graph of a variant as MXNet writes it."""
    return get_model(**spec._asdict())(mx.sym.var("data")).tojson() + "\n"


def manifest_entry(spec: ModelSpec, text: str) -> dict:
    """Return what the manifest says of a golden."""
    cost = count_model(spec, input_size=INPUT_SIZE)
    return {
        "input_shape": [1, 3, INPUT_SIZE, INPUT_SIZE],
        "parameters": cost.parameters,
        "macs": cost.macs,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def main() -> None:
    """Write every golden."""
    entries = {}
    for spec in MODELS:
        text, name = symbol_json(spec), spec.id
        (HERE / f"{name}-symbol.json").write_text(text)
        entries[name] = manifest_entry(spec, text)
    made = "symbols/make_goldens.py: hybridized graph of gluon_asymmnet.get_model, 1000 classes"
    manifest = {"made_by": made, "mxnet": mx.__version__, "symbols": entries}
    (HERE / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
