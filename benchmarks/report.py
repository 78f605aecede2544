"""The tables that ``benchmark.py`` makes of what was measured."""

from typing import Callable

from gluon_asymmnet.zoo import cost_of

_MATMUL_OPERATIONS = 2 * 2048**3
_AHEAD = 20  # times the speed of training that the input has to reach


def table(rows: list) -> str:
    """Return a table per case of what was measured."""
    parts, key = [], ("kind", "model", "width", "size", "batch", "threads")
    for case in dict.fromkeys(tuple(row[k] for k in key) for row in rows):
        found = [row for row in rows if tuple(row[k] for k in key) == case]
        parts.append(_TABLES[case[0]](dict(zip(key, case)), found))
    return "\n\n".join(parts)


def document(measured: dict) -> str:
    """Return the page of what ``write`` wrote as JSON."""
    return (
        f"# Measured\n\n{machine_line(measured['machine'])} One process per contender, in turn, "
        f"round by round.\n\n{table(measured['rows'])}\n"
    )


def machine_line(machine: dict) -> str:
    """Describe the machine in a paragraph."""
    packages = ", ".join(f"{k} {v}" for k, v in machine["packages"].items())
    return (
        f"{machine['cpu']}, {machine['processors']} processors "
        f"({', '.join(machine['cpu_features'])}); {machine['platform']}; Python "
        f"{machine['python']}; {packages}."
    )


def _title(case: dict, what: str) -> str:
    threads = f"{case['threads']} thread{'s' if case['threads'] > 1 else ''}"
    return (
        f"**{what}: {case['model']} {case['width']}, {case['size']} px, batch {case['batch']}, "
        f"{threads}**"
    )


def _lines(title: str, head: str, rows: list, cells: Callable[[dict], str]) -> list[str]:
    """Return a title, a head and a line per row; those left out say why."""
    columns = head.count("|") - 1
    lines = [title, "", head, "|" + " --- |" * columns]
    for row in rows:
        if "left_out" in row:
            reason = row["left_out"].replace("|", "/")
            lines.append(f"| {row['name']} | left out: {reason} |" + " |" * (columns - 2))
        else:
            lines.append(f"| {row['name']} | {cells(row)} |")
    return lines


def _named(rows: list, *names: str) -> dict:
    """Return the first measured row of one of these names, else the first measured one."""
    measured = [row for row in rows if "left_out" not in row]
    return next((row for row in measured if row["name"] in names), measured[0])


def _speed_table(case: dict, rows: list) -> str:
    product = next((r for r in rows if r["name"] == "matmul" and "left_out" not in r), None)
    rows = [r for r in rows if r["name"] != "matmul"]
    limit = 0.0
    if product:
        macs = cost_of(case["model"], width=case["width"], input_size=case["size"]).macs
        limit = 2 * macs * case["batch"] * product["median"] / _MATMUL_OPERATIONS

    def cells(row) -> str:
        share = f"{limit / row['median']:.2f}" if limit else ""
        return (
            f"{1e3 * row['median']:.2f} | {1e3 * row['p95']:.2f} | "
            f"{case['batch'] / row['median']:.1f} | {row['beside'] / row['median']:.2f} | "
            f"{row['peak_mb']:.0f} | {share}"
        )

    head = "| contender | ms, median | p95 | images/s | times plain | peak MB | of the limit |"
    lines = _lines(_title(case, case["kind"]), head, rows, cells)
    if limit:
        lines.append(f"| (limit: multiply-adds at a matrix product's speed) | {1e3 * limit:.2f} |"
                     " | | | | |")  # fmt: skip
    return "\n".join(lines)


def _memory_table(case: dict, rows: list) -> str:
    def cells(row) -> str:
        plain = _named([r for r in rows if r["of"] == row["of"]], "plain", "train_plain")
        return f"{row['of']} | {row['peak_mb']:.0f} | {row['peak_mb'] / plain['peak_mb']:.2f}"

    head = "| contender | does | peak MB | of plain's |"
    return "\n".join(_lines(_title(case, "memory"), head, rows, cells))


def _input_table(case: dict, rows: list) -> str:
    def rate(row) -> float:
        return row["images"] / row["median"]

    trained = next((rate(r) for r in rows if r["name"] == "train_task" and "images" in r), 0.0)

    def cells(row) -> str:
        if not trained or row["name"] == "train_task":
            return f"{rate(row):.0f} | | "
        enough = "yes" if rate(row) >= _AHEAD * trained else "no"
        return f"{rate(row):.0f} | {rate(row) / trained:.1f} | {enough}"

    head = f"| reader | images/s | times training | at least {_AHEAD} times |"
    title = _title(case, f"input, {rows[0]['data']}")
    return "\n".join(_lines(title, head, rows, cells))


def _picture_table(case: dict, rows: list) -> str:
    """Preprocessing's share of an answer."""
    prepare = _named(rows, "prepare")["median"]

    def cells(row) -> str:
        share = "" if row["name"] == "prepare" else f"{100 * prepare / row['median']:.0f} %"
        return f"{1e3 * row['median']:.2f} | {1e3 * row['p95']:.2f} | {share}"

    head = "| from a JPEG of 500x375 | ms, median | p95 | preprocessing's share |"
    return "\n".join(_lines(_title(case, "one picture"), head, rows, cells))


def _startup_table(case: dict, rows: list) -> str:
    head = "| process | s, median | p95 |"
    cells = lambda row: f"{row['median']:.2f} | {row['p95']:.2f}"  # noqa: E731
    return "\n".join(_lines(_title(case, "whole processes"), head, rows, cells))


def _shift_table(case: dict, rows: list) -> str:
    first = next(row["name"] for row in rows if "left_out" not in row)

    def cells(row) -> str:
        faster = row["beside"] / row["median"]
        return f"{1e3 * row['median']:.3f} | {1e3 * row['p95']:.3f} | {faster:.2f}"

    head = f"| primitive | ms, median | p95 | times as fast as {first} |"
    shape = " x ".join(map(str, rows[0]["shape"]))
    return "\n".join(_lines(_title(case, f"shift, {shape}"), head, rows, cells))


_TABLES = {
    "infer": _speed_table,
    "train": _speed_table,
    "memory": _memory_table,
    "input": _input_table,
    "picture": _picture_table,
    "startup": _startup_table,
    "shift": _shift_table,
}
