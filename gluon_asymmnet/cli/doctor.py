"""``asymmnet doctor``."""

import argparse
import json

from gluon_asymmnet.utils import doctor


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``doctor``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Print versions, CPU features, threads, engines and optional packages, and how "
        "to install what is missing. Exit status 1 if a required package is missing.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead")
    parser.set_defaults(run=run)
    return parser


def run(args) -> int:
    """Print the findings; 1 if a required package is missing."""
    facts, findings = doctor.environment(), doctor.diagnose()
    needed = [f for f in findings if f.needed and not f.ok]
    if args.json:
        print(json.dumps({**facts, "findings": [f._asdict() for f in findings]}, indent=1))
        return 1 if needed else 0
    print(
        f"gluon_asymmnet {facts['gluon_asymmnet']}, Python {facts['python']}, {facts['platform']}"
    )
    print(f"CPU: {facts['cpu']}; {', '.join(facts['cpu_features']) or 'features unknown'}")
    threads = facts["omp_num_threads"] or "unset, so one per processor in training and evaluation"
    print(f"processors: {facts['processors']}; OMP_NUM_THREADS: {threads}")
    for finding in findings:
        mark = "ok " if finding.ok else "BAD" if finding.needed else "-- "
        print(f"{mark} {finding.what}" + ("" if finding.ok else f"\n    mend: {finding.mend}"))
    return 1 if needed else 0
