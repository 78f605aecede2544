"""``make demo-fashion``: train, evaluate and export AsymmNet on Fashion-MNIST."""

import sys
from pathlib import Path

from examples.classifier import demonstrate
from gluon_asymmnet.cli import guarded
from gluon_asymmnet.data.fashion import write_fashion
from gluon_asymmnet.utils.threads import set_threads

_DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist


def demo(folder) -> int:
    """Build the records, train, score the 10,000 test images, export and score again."""
    set_threads()  # before MXNet is imported: imports inside functions load it
    folder = Path(folder)
    print("1. Fashion-MNIST as records (asymmnet records fashion ...)", flush=True)
    records = folder / "records"
    if not records.exists():
        write_fashion(records, source=_DEBIAN if _DEBIAN.exists() else None)
    print(f"   {records}", flush=True)
    train, val, test = (records / f"{name}.rec" for name in ("train", "val", "test"))
    return demonstrate(folder, "fashion", train, val, test)


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else "demo/fashion"
    sys.exit(guarded(lambda: demo(folder), "demo-fashion"))
