"""Speed and memory, measured side by side; not part of the package."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # where ``python -m benchmarks.worker`` runs
