"""Tables and figure of the results of ``examples.decomposition``."""

from collections.abc import Mapping

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG  # no display, no global state
from matplotlib.figure import Figure

from gluon_asymmnet.utils.atomic import new_file
from tools.markdown import markdown_table


def layers_table(found: Mapping) -> str:
    """Return the rows of the layers' error on held-out images."""
    layers = found["layers"]
    rows = [
        (name, *(f"{error:.3f}" for error in errors["held_out"]))
        for name, errors in layers["methods"].items()
    ]
    return markdown_table(("m", *layers["multipliers"]), rows)


def nets_table(found: Mapping) -> str:
    """Return the rows of the whole nets with one depthwise filter per channel."""
    net, plain = found["net"], found["plain"]
    rows = [_row("regular, before", net, net)]
    rows += [_row(row["name"], row, net) for row in found["nets"] if row["multiplier"] == 1]
    rows.append(_row(f"plain, {plain['epochs']} epochs from scratch", plain, net))
    head = ("net", "parameters", "MMACs", "MACs saved", "top-1", "after tuning")
    return markdown_table(head, rows)


def _row(name: str, row: Mapping, net: Mapping) -> tuple[str, ...]:
    return (
        name, f"{row['parameters']:,}", f"{row['macs'] / 1e6:.2f}",
        f"{100 * (1 - row['macs'] / net['macs']):.0f} %", f"{100 * row['top1']:.2f} %",
        f"{100 * row['tuned']:.2f} %" if "tuned" in row else "",
    )  # fmt: skip


def accuracy_table(found: Mapping) -> str:
    """Return the rows of top-1 before tuning, by multiplier."""
    nets = [row for row in found["nets"] if row["name"] != "asymmetric, merged"]
    multipliers = sorted({row["multiplier"] for row in nets})
    top1 = {(row["name"], row["multiplier"]): row["top1"] for row in nets}
    rows = [
        (name, *(f"{100 * top1[name, m]:.1f} %" for m in multipliers))
        for name in dict.fromkeys(row["name"] for row in nets)
    ]
    return markdown_table(("m", *multipliers), rows)


def draw(found: Mapping, path) -> None:
    """Draw the error of layers, and the accuracy of nets before and after tuning, as SVG."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasSVG(figure)
    errors, accuracy, tuned = figure.subplots(1, 3)
    colours: dict[str, str] = {}

    def style(name: str) -> dict:
        asymmetric = "asymmetric" in name
        base = name.replace("-asymmetric", "").replace("asymmetric", "sequential")
        colour = colours.setdefault(base, f"C{len(colours)}")
        return {"color": colour, "linestyle": "--" if asymmetric else "-", "label": name,
                "marker": "x" if base == "channel" else "."}  # fmt: skip

    layers = found["layers"]
    for name, values in layers["methods"].items():
        errors.plot(layers["multipliers"], values["held_out"], **style(name))
    errors.set(title="error of a layer's responses, held-out images", xlabel="multiplier m",
               ylabel="relative error, mean of the layers")  # fmt: skip
    rows = [row for row in found["nets"] if row["name"] != "asymmetric, merged"]
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        accuracy.plot([r["multiplier"] for r in own], [r["top1"] for r in own], **style(name))
    accuracy.axhline(found["net"]["top1"], color="grey", linestyle=":", label="regular, before")
    accuracy.set(title="top-1 of the net, decomposed", xlabel="multiplier m")
    single = [row for row in found["nets"] if row["multiplier"] == 1]
    names = [row["name"] for row in single]
    tuned.barh(names, [row["tuned"] for row in single], color="C0", alpha=0.4, label="tuned")
    tuned.barh(names, [row["top1"] for row in single], color="C0", height=0.4, label="decomposed")
    tuned.axvline(found["net"]["tuned"], color="grey", linestyle=":", label="regular, tuned")
    tuned.invert_yaxis()
    tuned.set(title=f"top-1 at m = 1, after {found['net']['tuning_epochs']} epochs")
    for axes in (errors, accuracy, tuned):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    tuned.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.4, -0.1), ncol=3)
    for axes in (errors, accuracy):
        axes.set_xticks(layers["multipliers"])
    settings = {"svg.fonttype": "none", "svg.hashsalt": "decomposition"}
    with new_file(path) as scratch, matplotlib.rc_context(settings):
        figure.savefig(scratch, format="svg", metadata={"Date": None})
