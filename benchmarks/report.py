"""The tables that ``benchmark.py`` makes of its measurements."""

from collections.abc import Callable, Sequence

from benchmarks.detectors import OTHERS
from gluon_asymmnet.models.complexity import count_model
from gluon_asymmnet.models.registry import ModelSpec
from tools.markdown import markdown_table

_MATMUL_OPERATIONS = 2 * 2048**3
_OTHER_DETECTORS = {function.__name__ for function in OTHERS}
_WANTED_RATIO = 20  # reading has to be this many times as fast as training


def table(rows: list) -> str:
    """Return a table for each case in ``rows``."""
    parts, key = [], ("kind", "model", "width", "size", "batch", "threads")
    for case in dict.fromkeys(tuple(row[k] for k in key) for row in rows):
        found = [row for row in rows if tuple(row[k] for k in key) == case]
        parts.append(_TABLES[case[0]](dict(zip(key, case)), found))
    return "\n\n".join(parts)


def document(measured: dict) -> str:
    """Return the page made from the JSON that ``suite.write`` writes."""
    return (
        f"# Measured\n\n{machine_line(measured['machine'])} One process per candidate, in turn, "
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


def _table(
    case: dict, subject: str, head: Sequence, rows: list, cells: Callable[[dict], tuple], end=()
) -> str:
    """Return a title and a table with a line per row; those left out give the reason."""
    threads = f"{case['threads']} thread{'s' if case['threads'] > 1 else ''}"
    title = (
        f"**{subject}: {case['model']} {case['width']}, {case['size']} px, batch {case['batch']}, "
        f"{threads}**"
    )
    lines = [
        (row["name"], "left out: " + row["left_out"].replace("|", "/"))
        if "left_out" in row
        else (row["name"], *cells(row))
        for row in rows
    ]
    return f"{title}\n\n{markdown_table(head, [*lines, *end])}"


def _named(rows: list, *names: str) -> dict:
    """Return the first measured row of one of these names, else the first measured one."""
    measured = [row for row in rows if "left_out" not in row]
    return next((row for row in measured if row["name"] in names), measured[0])


def _speed_table(case: dict, rows: list) -> str:
    product = next((r for r in rows if r["name"] == "matmul" and "left_out" not in r), None)
    rows = [r for r in rows if r["name"] != "matmul"]
    limit, end = 0.0, []
    if product:
        spec = ModelSpec.parse(case["model"], width=case["width"])
        macs = count_model(spec, input_size=case["size"]).macs
        limit = 2 * macs * case["batch"] * product["median"] / _MATMUL_OPERATIONS
        end = [("(limit: multiply-adds at a matrix product's speed)", f"{1e3 * limit:.2f}")]

    def cells(row) -> tuple:
        return (
            f"{1e3 * row['median']:.2f}", f"{1e3 * row['p95']:.2f}",
            f"{case['batch'] / row['median']:.1f}", f"{row['beside'] / row['median']:.2f}",
            f"{row['peak_mb']:.0f}", f"{limit / row['median']:.2f}" if limit else "",
        )  # fmt: skip

    reference = rows[0]["name"].removeprefix("train_")  # the first of those timed together
    head = ("candidate", "ms, median", "p95", "images/s", f"times {reference}", "peak MB",
            "of the limit")  # fmt: skip
    return _table(case, case["kind"], head, rows, cells, end)


def _memory_table(case: dict, rows: list) -> str:
    def cells(row) -> tuple:
        plain = _named([r for r in rows if r["of"] == row["of"]], "plain", "train_plain")
        return row["of"], f"{row['peak_mb']:.0f}", f"{row['peak_mb'] / plain['peak_mb']:.2f}"

    return _table(case, "memory", ("candidate", "does", "peak MB", "of plain's"), rows, cells)


def _input_table(case: dict, rows: list) -> str:
    def rate(row) -> float:
        return row["images"] / row["median"]

    def rate_of(name: str) -> float:
        return next((rate(row) for row in rows if row["name"] == name and "median" in row), 0.0)

    trained, theirs = rate_of("train_task"), rate_of("input_record_iter")

    def cells(row) -> tuple:
        beside = f"{rate(row) / theirs:.2f}" if theirs else ""
        if not trained or row["name"] == "train_task":
            return f"{rate(row):.0f}", beside
        enough = "yes" if rate(row) >= _WANTED_RATIO * trained else "no"
        return f"{rate(row):.0f}", beside, f"{rate(row) / trained:.1f}", enough

    head = ("reader", "images/s", "times input_record_iter", "times training",
            f"at least {_WANTED_RATIO} times")  # fmt: skip
    return _table(case, f"input, {rows[0]['data']}", head, rows, cells)


def _picture_table(case: dict, rows: list) -> str:
    prepare = _named(rows, "prepare")["median"]

    def cells(row) -> tuple:
        share = "" if row["name"] == "prepare" else f"{100 * prepare / row['median']:.0f} %"
        return f"{1e3 * row['median']:.2f}", f"{1e3 * row['p95']:.2f}", share

    head = ("from a JPEG of 500x375", "ms, median", "p95", "preprocessing's share")
    return _table(case, "one picture", head, rows, cells)


def _prepare_table(case: dict, rows: list) -> str:
    """The fastest call is what other programs disturb least: these are calls of one thread."""
    first = _named(rows)["fastest"]

    def cells(row) -> tuple:
        return (
            f"{1e3 * row['median']:.2f}", f"{1e3 * row['fastest']:.2f}",
            f"{first / row['fastest']:.2f}", f"{row['peak_mb']:.0f}",
        )  # fmt: skip

    name = "one picture of 500x375" if case["kind"] == "prepare" else "12 megapixels"
    head = (
        "preprocessing",
        "ms, median",
        "fastest",
        f"times {_named(rows)['name']}, fastest",
        "peak MB",
    )
    return _table(case, name, head, rows, cells)


def _folder_table(case: dict, rows: list) -> str:
    """Share of the slower of reading and inference alone; first: of both in turn on all threads."""
    seconds = {row["name"]: row["median"] for row in rows if "median" in row}
    before = _named(rows)["median"]
    alone = [seconds.get(name, 0.0) for name in ("folder_prepared", "folder_inferred")]

    def cells(row) -> tuple:
        took = row["median"]
        return (
            f"{row['images'] / took:.0f}", f"{before / took:.2f}",
            f"{100 * max(alone) / took:.0f} %", f"{100 * sum(alone) / took:.0f} %",
            f"{row['peak_mb']:.0f}",
        )  # fmt: skip

    head = ("a folder of JPEGs of 500x375", "images/s", f"times {_named(rows)['name']}",
            "of the slower part alone", "of both parts' sum", "peak MB")  # fmt: skip
    return _table(case, f"folder of {rows[0]['images']} pictures", head, rows, cells)


def _detect_table(case: dict, rows: list) -> str:
    """Times the fastest of the others; a stage's share is that of the engine in its name."""
    seconds = {row["name"]: row["median"] for row in rows if "median" in row}
    best = min((s for name, s in seconds.items() if name in _OTHER_DETECTORS), default=None)

    def cells(row) -> tuple:
        name, took = row["name"], row["median"]
        times = f"{best / took:.2f}" if best and not name.startswith("stage_") else ""
        whole = seconds.get(f"detect_{'openvino' if 'openvino' in name else 'onnxruntime'}")
        share = f"{100 * took / whole:.0f} %" if whole and name.startswith("stage_") else ""
        return (
            f"{1e3 * took:.2f}", f"{1e3 * row['p95']:.2f}", f"{1e3 * row['fastest']:.2f}", times,
            share, f"{row['peak_mb']:.0f}",
        )  # fmt: skip

    head = ("from a JPEG of 500x375 to boxes", "ms, median", "p95", "fastest",
            "times the best of the others", "share", "peak MB")  # fmt: skip
    return _table(case, "detection", head, rows, cells)


def _startup_table(case: dict, rows: list) -> str:
    def cells(row) -> tuple:
        return f"{row['median']:.2f}", f"{row['p95']:.2f}"

    return _table(case, "whole processes", ("process", "s, median", "p95"), rows, cells)


def _shift_table(case: dict, rows: list) -> str:
    first = next(row["name"] for row in rows if "left_out" not in row)

    def cells(row) -> tuple:
        faster = row["beside"] / row["median"]
        return f"{1e3 * row['median']:.3f}", f"{1e3 * row['p95']:.3f}", f"{faster:.2f}"

    head = ("operator", "ms, median", "p95", f"times as fast as {first}")
    shape = " x ".join(map(str, rows[0]["shape"]))
    return _table(case, f"shift, {shape}", head, rows, cells)


_TABLES = {
    "infer": _speed_table,
    "train": _speed_table,
    "memory": _memory_table,
    "input": _input_table,
    "picture": _picture_table,
    "prepare": _prepare_table,
    "large": _prepare_table,
    "folder": _folder_table,
    "detect": _detect_table,
    "startup": _startup_table,
    "shift": _shift_table,
}
