"""Markdown tables."""

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence, rows: Iterable[Sequence]) -> str:
    """Return a Markdown table; a row shorter than ``head`` ends in empty cells."""
    lines = [head, ["---"] * len(head)]
    lines += [[*row, *[""] * (len(head) - len(row))] for row in rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)
