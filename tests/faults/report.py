"""What the campaign found, as data and as a page."""

import collections

from tests.faults.kills import Outcome
from tests.faults.watch import PHASES
from tools.markdown import markdown_table


def summary(outcomes: list[Outcome], environment: dict, settings: dict) -> dict:
    """Count faults and survivals by subject, kind and phase."""
    counted: dict = collections.defaultdict(lambda: [0, 0])
    for one in outcomes:
        counts = counted[one.kind, one.phase, one.subject]
        counts[0] += 1
        counts[1] += not one.problem
    rows = [
        {"kind": kind, "phase": phase, "subject": subject, "injected": n, "survived": s}
        for (kind, phase, subject), (n, s) in sorted(counted.items())
    ]
    problems = [vars(one) for one in outcomes if one.problem]
    return {"environment": environment, "settings": settings, "rows": rows, "problems": problems}


def document(found: dict) -> str:
    """Return the page ``benchmarks/faults.md``."""
    rows, env, how = found["rows"], found["environment"], found["settings"]
    kills = [row for row in rows if row["kind"] == "SIGKILL"]
    others = [row for row in rows if row["kind"] != "SIGKILL"]
    packages = ", ".join(f"{n} {v}" for n, v in sorted(env["packages"].items()) if v)
    subjects = sorted({row["subject"] for row in rows})
    lines = [
        "# Faults",
        "",
        "Made by `make faults` from `faults.json`; do not edit.",
        "",
        f"{_total(kills)} SIGKILLs and {_total(others)} other faults were injected into real "
        f"training processes; {_survived(kills)} and {_survived(others)} were survived: no good "
        f"checkpoint was lost, the run went on, and ended with weights, optimizer state and "
        f"metrics equal bit for bit to those of the undisturbed run.",
        "",
        f"{env['platform']}, {env['processors']} processors, Python {env['python']}; {packages}. "
        f"One thread a run, {how['jobs']} runs at a time, seed {how['seed']}, {how['minutes']} "
        f"minutes under a load of {how['load']}.",
        "",
        "## SIGKILL",
        "",
        "The phase is read from what the dead process left, not from where it was aimed.",
        "",
        markdown_table(("phase", *subjects, "survived"), _kill_rows(kills, subjects)),
        "",
        "## Others",
        "",
        markdown_table(
            ("fault", "what", "run", "survived"),
            [
                (row["kind"], row["phase"], row["subject"],
                 f"{row['survived']} of {row['injected']}")
                for row in others
            ],
        ),
    ]  # fmt: skip
    if found["problems"]:
        lines += ["", "## Not survived", ""]
        lines += [f"- {p['kind']}, {p['phase']}, {p['subject']}: {p['problem']}"
                  for p in found["problems"]]  # fmt: skip
    return "\n".join(lines) + "\n"


def _kill_rows(kills: list[dict], subjects: list[str]) -> list[tuple]:
    rows = []
    for phase in PHASES:
        hit = [row for row in kills if row["phase"] == phase]
        counts = [_total([r for r in hit if r["subject"] == s]) for s in subjects]
        rows.append((phase, *counts, f"{_survived(hit)} of {_total(hit)}"))
    return rows


def _total(rows) -> int:
    return sum(row["injected"] for row in rows)


def _survived(rows) -> int:
    return sum(row["survived"] for row in rows)
