"""The campaign of faults: real runs that are killed, starved and damaged, and have to end right.

``python -m tests.faults`` runs it and writes ``benchmarks/faults.json`` and ``faults.md``;
``tests/test_faults.py`` runs a short part.
"""
