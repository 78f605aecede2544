"""Run the whole campaign: ``python -m tests.faults --help``."""

import argparse
import itertools
import json
import os
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gluon_asymmnet.data.boxes.digits import write_digits_voc
from gluon_asymmnet.data.digits import write_digits
from gluon_asymmnet.utils.atomic import write_text
from gluon_asymmnet.utils.doctor import environment
from tests.faults import others, report
from tests.faults.kills import Outcome, chain
from tests.faults.subject import ROOT, End, Subject, classifier, detector, read_end, write_records
from tests.faults.watch import PHASES

LINKS = 10  # kills of one run
# Share of the kills, by subject: the detector and ImageRecordIter cost more time each.
SHARES = {"classifier, opencv": 0.8, "classifier, mxnet": 0.1, "detector": 0.1}


def main(argv=None) -> int:
    """Run, write the report, and say what was not survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=220, help="how many (default: 220)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--only", help="only the other faults whose kind has this in it")
    parser.add_argument("--page", action="store_true", help="only make faults.md of faults.json")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks", help="for the report")
    args = parser.parse_args(argv)
    if args.page:
        found = json.loads((args.out / "faults.json").read_text())
        write_text(args.out / "faults.md", report.document(found))
        return 0
    begun = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        outcomes = campaign(args, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    minutes = round((time.monotonic() - begun) / 60)
    settings = {"kills": args.kills, "jobs": args.jobs, "seed": args.seed, "minutes": minutes,
                "load": round(os.getloadavg()[2])}  # fmt: skip
    found = report.summary(outcomes, environment(), settings)
    if not args.only:
        write_text(args.out / "faults.json", json.dumps(found, indent=1) + "\n")
        write_text(args.out / "faults.md", report.document(found))
    print(f"{len(outcomes)} faults, {len(found['problems'])} not survived, {minutes} minutes")
    return 1 if found["problems"] else 0


def campaign(args, work: Path) -> list[Outcome]:
    """Prepare the runs, disturb them, and return what became of each."""
    records = write_records(write_digits(work / "digits"), work / "records")
    boxes = write_digits_voc(work / "voc", images=(12, 5)).root
    subjects = [classifier(records), classifier(records, "mxnet"), detector(boxes)]
    with ThreadPoolExecutor(args.jobs) as pool:
        references = dict(zip(subjects, pool.map(lambda s: undisturbed(s, work), subjects)))
        tasks = _other_tasks(args, subjects, references, work)
        if not args.only:
            tasks += _kill_tasks(args, subjects, references, work)
        random.Random(args.seed).shuffle(tasks)
        return list(itertools.chain.from_iterable(pool.map(lambda task: _said(task()), tasks)))


def undisturbed(subject: Subject, work: Path) -> End:
    """Run without faults."""
    place = work / "undisturbed" / subject.name.replace(", ", "-")
    done = subject.finish(place)
    assert done.returncode == 0, done.stderr
    return read_end(place / subject.folder)


def _said(outcomes: list[Outcome]) -> list[Outcome]:
    for one in outcomes:
        print(f"{one.subject}: {one.kind}, {one.phase}: {one.problem or 'survived'}", flush=True)
    return outcomes


def _kill_tasks(args, subjects, references, work: Path) -> list:
    tasks = []
    for subject in subjects:
        count = round(args.kills * SHARES[subject.name])
        for number in range(0, count, LINKS):
            name = f"{args.seed} {subject.name} {number}"
            links = min(LINKS, count - number)
            tasks.append(_killing(subject, references[subject], links, work / "kills", name))
    return tasks


def _killing(subject: Subject, reference: End, count: int, work: Path, name: str):
    def task() -> list[Outcome]:
        rng, outcomes = random.Random(name), []
        while len(outcomes) < count:
            aims = [rng.choice(PHASES) for _ in range(count - len(outcomes))]
            place = work / f"{name} {len(outcomes)}"
            outcomes += chain(subject, reference, place, aims, rng)[0]
            shutil.rmtree(place)
        return outcomes

    return task


def _other_tasks(args, subjects, references, work: Path) -> list:
    chosen = [(subjects[0], case) for case in others.cases(others.may_mount(work / "mount"))]
    few = ("net.params cut", "training step", "in mid-run")
    chosen += [(subjects[2], case) for case in others.cases(False)[:12:4] if case[1] in few]
    chosen = [(s, c) for s, c in chosen if (args.only or "") in c[0]]
    templates = {}
    for subject in dict.fromkeys(s for s, _ in chosen):
        templates[subject] = work / "templates" / subject.name.replace(", ", "-")
        others.make_template(subject, templates[subject])
    return [
        _disturbing(subject, references[subject], templates[subject], case, work / f"case-{i}")
        for i, (subject, case) in enumerate(chosen)
    ]


def _disturbing(subject, reference, template, case, place: Path):
    def task() -> list[Outcome]:
        scene = others.Scene(subject, reference, template, place, random.Random(place.name))
        outcome = others.run_case(case, scene)
        shutil.rmtree(place, ignore_errors=True)
        return [outcome]

    return task


if __name__ == "__main__":
    sys.exit(main())
