"""Tables and plot of docs/evidence.md, from the JSON of the runs; unfinished plans, too."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

from benchmarks.evidence.harness import PLACE, chosen_rate, nets_of
from benchmarks.evidence.plan import RATES_OF_LEARNING, SEEDS, Net, is_tuned, make_runs
from benchmarks.evidence.statistics import POWER, Summary, detectable, holm, summarize
from tools.markdown import markdown_table

TEST_IMAGES = 10_000
EQUAL_COST, EQUAL_WIDTH, RATE_2, ABLATION = "equal cost", "equal width", "rate 2", "ablation"
QUESTIONS = (EQUAL_COST, EQUAL_WIDTH, RATE_2, ABLATION)


class Pair(NamedTuple):
    """A comparison: is ``net`` better than ``against``?"""

    question: str
    net: Net
    against: Net


def progress(data: dict) -> str:
    """Return how many of the planned runs are finished, and the time that they took."""
    runs = make_runs(nets_of(data))
    hours = sum(row.get("cpu_seconds", 0) for row in data["rows"]) / 3600
    tuning = sum(run.tunes for run in runs)
    tuned = sum(row["run"].startswith("tune/") for row in data["rows"])
    repeats = [one for row in data["rows"] for one in row.get("repeated", ())]
    equal = sum(one["equal"] for one in repeats)
    commits = ", ".join(sorted({row["commit"] for row in data["rows"]}))
    parts = [
        f"{tuned} of {tuning} runs for the learning rate and "
        f"{len(data['rows']) - tuned} of {len(runs) - tuning} scored runs are finished, in "
        f"{hours:.1f} core-hours.",
        f"Commit of the package: {commits}." if commits else "",
        f"Repeated runs: {len(repeats)}, equal bit for bit: {equal}." if repeats else "",
    ]
    return " ".join(filter(None, parts))


def document(data: dict) -> str:
    """Return everything as text."""
    tables = {
        "Learning rates": rates_table(data), "Nets": accuracy_table(data),
        **{f"Pairs: {question}": pairs_table(data, question) for question in QUESTIONS},
    }  # fmt: skip
    parts = (f"## {title}\n\n{table}" for title, table in tables.items())
    return "\n\n".join((progress(data), *parts))


def rates_table(data: dict) -> str:
    """Return the accuracies on the held-out images, from which the learning rates were chosen."""
    rows = []
    for net in nets_of(data):
        runs = {r["lr"]: r for r in data["rows"] if r["run"].startswith(f"tune/{net.name}/")}
        if is_tuned(net):
            cells = [_tuned_cell(runs.get(lr)) for lr in RATES_OF_LEARNING]
            rows.append((net.name, *cells, chosen_rate(net, data) or "open"))
    return markdown_table(("net", *map(str, RATES_OF_LEARNING), "chosen"), rows)


def _tuned_cell(row: Optional[dict]) -> str:
    if row is None:
        return ""
    return f"{row['correct'] / row['images']:.2%}" if "correct" in row else "diverged"


def accuracy_table(data: dict) -> str:
    """Return the nets with their costs and accuracies."""
    costs = {row["name"]: row for row in data["nets"]}
    latency = data.get("latency", {})
    rows = []
    for net in nets_of(data):
        correct, losses = accuracies(data, net.name), _values(data, net.name, "loss")
        found = summarize(list(correct.values())) if correct else None
        cost = costs[net.name]
        rows.append((
            net.name, f"{cost['parameters']:,}", f"{cost['macs'] / 1e6:.2f}M",
            f"{latency[net.name]:.3f}" if net.name in latency else "",
            f"{len(correct)} of {SEEDS[net.study]}",
            _interval(found) if found else "",
            f"{summarize(list(losses.values())).mean:.4f}" if losses else "",
        ))  # fmt: skip
    head = ("net", "parameters", "multiply-adds", "latency, ms", "seeds", "top-1, %", "loss")
    return markdown_table(head, rows)


def accuracies(data: dict, name: str) -> dict[int, float]:
    """Return percent of the test images by seed."""
    correct = _values(data, name, "correct")
    return {seed: 100 * value / TEST_IMAGES for seed, value in correct.items()}


def _values(data: dict, name: str, key: str) -> dict[int, float]:
    return {
        row["seed"]: row[key] for row in data["rows"]
        if row["net"] == name and not row["run"].startswith("tune/") and key in row
    }  # fmt: skip


def _interval(found: Summary, sign: str = "") -> str:
    mean = f"{found.mean:{sign}.2f}"
    return mean if found.half is None else f"{mean} \N{PLUS-MINUS SIGN} {found.half:.2f}"


def pairs(data: dict) -> list[Pair]:
    """Return all comparisons."""
    nets = {net.name: net for net in nets_of(data)}
    return [*_pairs_of_rates(nets), *_pairs_of_ablations(nets)]


def _pairs_of_rates(nets: dict[str, Net]) -> Iterator[Pair]:
    for name, net in nets.items():
        base = name.removesuffix("-r1")
        if base != name:
            zero = nets[f"{base}-r0"]
            yield Pair(EQUAL_COST, net, nets.get(f"{base}-r0-matched", zero))
            if zero.study == "width":
                yield Pair(EQUAL_WIDTH, net, zero)
        if net.study == "rate 2":
            yield Pair(RATE_2, net, nets[f"{name.removesuffix('2')}1"])


def _pairs_of_ablations(nets: dict[str, Net]) -> Iterator[Pair]:
    for name, net in nets.items():
        if net.study == "ablation":
            yield Pair(ABLATION, net, nets["-".join(name.split("-")[:3])])


def pairs_table(data: dict, question: str) -> str:
    """Return the differences of the comparisons of one kind, tested and corrected together."""
    chosen = [pair for pair in pairs(data) if pair.question == question]
    differences = [_differences(data, pair) for pair in chosen]
    found = [summarize(list(values.values())) if values else None for values in differences]
    tested = [i for i, one in enumerate(found) if one and one.p is not None]
    corrected = dict(zip(tested, holm([found[i].p for i in tested])))
    costs = {row["name"]: row["macs"] for row in data["nets"]}
    rows, planned = [], [min(SEEDS[net.study] for net in pair[1:]) for pair in chosen]
    for i, (pair, one) in enumerate(zip(chosen, found)):
        more = costs[pair.net.name] / costs[pair.against.name] - 1
        rows.append([
            pair.net.name, pair.against.name, f"{more:+.1%}",
            f"{one.count if one else 0} of {planned[i]}",
            *(_tested(one, corrected.get(i), len(chosen)) if one else ()),
        ])  # fmt: skip
    if question != ABLATION:
        rows.append(_pooled_row(differences, min(planned)))
    head = ("net", "against", "multiply-adds", "seeds", "difference, points", "p", "p, corrected",
            f"found with {POWER:.0%}")  # fmt: skip
    return markdown_table(head, rows)


def _differences(data: dict, pair: Pair) -> dict[int, float]:
    """Return the differences of the seeds that both nets have, percentage points.

    Of one seed both must come from the same commit and kind of processor.
    """
    first, second = (accuracies(data, net.name) for net in (pair.net, pair.against))
    places = [{key: _values(data, net.name, key) for key in PLACE} for net in pair[1:]]
    seeds = sorted(first.keys() & second.keys())
    return {
        seed: first[seed] - second[seed] for seed in seeds
        if all(places[0][key][seed] == places[1][key][seed] for key in PLACE)
    }  # fmt: skip


def _pooled_row(differences: Sequence[dict[int, float]], planned: int) -> list[str]:
    """Return the mean over all pairs, seed by seed, of the seeds that all pairs have."""
    seeds = sorted(set.intersection(*map(set, differences)))
    cells = [f"all {len(differences)}, mean", "", "", f"{len(seeds)} of {planned}"]
    if seeds:
        means = [sum(one[seed] for one in differences) / len(differences) for seed in seeds]
        cells += _tested(summarize(means))
    return cells


def _tested(found: Summary, corrected: Optional[float] = None, comparisons: int = 1) -> list[str]:
    cells = [_interval(found, "+")]
    if found.p is not None:
        power = detectable(found.deviation, found.count, comparisons)
        cells += [f"{found.p:.3f}", "" if corrected is None else f"{corrected:.3f}", f"{power:.2f}"]
    return cells


def draw(data: dict, path) -> None:
    """Draw accuracy against multiply-adds to an SVG file; nets without a run are left out."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    settings = {"svg.fonttype": "none", "svg.hashsalt": "evidence"}
    kinds = {"r0": ("rate 0", "o", "C0"), "r1": ("rate 1", "s", "C1"), "r2": ("rate 2", "^", "C2"),
             "r0-matched": ("rate 0, at the cost of rate 1", "x", "C0")}  # fmt: skip
    families = {"small": "Small", "large": "Large", "v2": "MobileNetV2"}
    costs = {row["name"]: row["macs"] / 1e6 for row in data["nets"]}
    with matplotlib.rc_context(settings):
        figure, axes = pyplot.subplots(1, 3, figsize=(10, 4), layout="constrained")
        for axis, (family, title) in zip(axes, families.items()):
            for kind, (label, marker, colour) in kinds.items():
                for net in nets_of(data):
                    values = accuracies(data, net.name)
                    if net.family != family or "-".join(net.name.split("-")[2:]) != kind:
                        continue
                    if values:
                        found = summarize(list(values.values()))
                        axis.errorbar(
                            costs[net.name], found.mean, yerr=found.half, label=label,
                            marker=marker, color=colour, linestyle="", capsize=3, fillstyle="none",
                        )  # fmt: skip
            axis.set(title=title, xlabel="multiply-adds, millions")
            axis.grid(alpha=0.3)
        axes[0].set_ylabel("top-1, %")
        by_label = {}
        for axis in axes:
            by_label.update(dict(zip(*axis.get_legend_handles_labels()[::-1])))
        if by_label:
            figure.legend(by_label.values(), by_label.keys(), loc="outside lower center", ncols=4)
        figure.savefig(path, format="svg", metadata={"Date": None})
        pyplot.close(figure)
