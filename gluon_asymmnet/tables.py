"""Tables in the documents, made from data: ``python -m gluon_asymmnet.tables`` rewrites them."""

import json
import re
from pathlib import Path

from gluon_asymmnet.atomic import write_text
from gluon_asymmnet.bench import scaling
from gluon_asymmnet.bench import scaling_model as model
from gluon_asymmnet.complexity import count
from gluon_asymmnet.registry import plan_model

AUTHORS_STEP = 2048 / 4050  # seconds: their log, 8 GPUs, 2,048 images a step
_WIDTHS = (0.5, 0.75, 1.0)


def counts_table() -> str:
    """Return the rows of README's table of models."""
    rows = ["| model | width | parameters | multiply-adds |", "| --- | --- | --- | --- |"]
    for name in ("asymmnet_large", "asymmnet_small", "mobilenetv3_large", "mobilenetv3_small"):
        for width in _WIDTHS if name.startswith("asymm") else (1.0,):
            cost = count(plan_model(name, width=width)[1])
            rows.append(f"| `{name}` | {width} | {cost.parameters:,} | {cost.macs / 1e6:.1f}M |")
    return "\n".join(rows)


def scaling_tables() -> dict:
    """Return what makes the tables of docs/scaling.md."""
    root = Path(__file__).parent.parent
    rows = json.loads((root / "benchmarks/scaling.json").read_text())["rows"]
    size = model.gradient_bytes()
    return {
        "measured": lambda: scaling.table(rows),
        "weak": lambda: model.weak_table(AUTHORS_STEP, size),
        "strong": lambda: model.strong_table(AUTHORS_STEP, size),
    }


TABLES = {"README.md": {"counts": counts_table}, "docs/scaling.md": scaling_tables()}


def updated(text: str, tables: dict) -> str:
    """Return ``text`` with the lines between ``<!-- name: ... -->`` and ``<!-- /name -->`` anew."""
    for name, make in tables.items():
        pattern = rf"(<!-- {name}:[^\n]*-->\n).*?(<!-- /{name} -->)"
        text, found = re.subn(pattern, lambda m: f"{m[1]}{make()}\n{m[2]}", text, flags=re.DOTALL)  # noqa: B023
        if found != 1:
            raise ValueError(f"the text has {found} places for the table {name!r}, expected 1")
    return text


def main() -> None:
    """Rewrite the tables of every document."""
    root = Path(__file__).parent.parent
    for document, tables in TABLES.items():
        write_text(root / document, updated((root / document).read_text(), tables))


if __name__ == "__main__":
    main()
