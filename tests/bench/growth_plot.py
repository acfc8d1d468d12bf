"""docs/scale.png: how each cost grows."""

import math
from pathlib import Path

from matplotlib.figure import Figure

from tests.bench.growth import CPU, SECONDS, Report
from tests.bench.plot import INK

COLOURS = ("#2563eb", "#f0b46c", "#7fb08c", "#b45309", "#7c3aed", "#0e7490", "#be185d", "#64748b", "#65a30d", "#dc2626",
           "#38bdf8", "#a16207", "#111827")  # fmt: skip
TITLES = {SECONDS: "until it is done, seconds", CPU: "work, CPU seconds"}


def draw(report: Report, target: Path) -> None:
    """Draw a panel for each unit, with both axes logarithmic: what is linear is as steep as the grey lines.

    The background is white and not transparent: so it can be read on a dark page, too.
    """
    figure = Figure(figsize=(12, 5), dpi=160, facecolor="white", layout="constrained")
    figure.suptitle("What each costs, by the number of containers and clients", color=INK, fontsize=13,
                    fontweight="bold")  # fmt: skip
    sizes = report.sizes
    colours = dict(zip(dict.fromkeys(what for what, unit in report.subjects if unit in TITLES), COLOURS, strict=False))
    shown = {}
    for axes, (unit, title) in zip(figure.subplots(1, 2).flat, TITLES.items(), strict=True):
        curves = {what: [report.median((what, unit), size) or math.nan for size in sizes]
                  for what, of in report.subjects if of == unit}  # fmt: skip
        there = [value for curve in curves.values() for value in curve if value > 0]
        for decade in range(-6, 4):
            axes.plot(sizes, [10**decade * size / sizes[0] for size in sizes], color="#e5e7eb", linewidth=1, zorder=0)
        for what, curve in curves.items():
            (shown[what],) = axes.plot(sizes, curve, color=colours[what], marker="o", markersize=4)
        axes.set(xscale="log", yscale="log", xlim=(sizes[0] * 0.9, sizes[-1] * 1.1))
        axes.set_ylim(min(there) / 1.5, max(there) * 1.5)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_title(title, loc="left", color=INK, fontsize=10)
        axes.tick_params(labelcolor=INK, labelsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(list(shown.values()), list(shown), loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(target, metadata={"Software": None})
