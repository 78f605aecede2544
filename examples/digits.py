"""``make demo``: train, evaluate and export AsymmNet on scikit-learn's digits."""

import sys
from pathlib import Path

from examples.classifier import demonstrate
from gluon_asymmnet.cli import guarded
from gluon_asymmnet.data.digits import write_digits
from gluon_asymmnet.utils.threads import set_threads


def demo(folder) -> int:
    """Build the digits records, train, evaluate, export, reload and evaluate again."""
    set_threads()  # before MXNet is imported: imports inside functions load it
    folder = Path(folder)
    print("1. scikit-learn's handwritten digits as JPEGs and records", flush=True)
    digits = write_digits(folder / "digits", exist_ok=True)
    print(f"   {digits.root}", flush=True)
    return demonstrate(folder, "demo", digits.train, digits.val, digits.val)


if __name__ == "__main__":
    sys.exit(guarded(lambda: demo(sys.argv[1] if len(sys.argv) > 1 else "demo"), "demo"))
