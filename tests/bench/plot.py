"""docs/speed.png: what one TCP stream reaches on each path."""

from pathlib import Path

from matplotlib.figure import Figure

from tests.bench.measurements import DOWN, LIMIT, OURS, RATE, RAW, RECIPE, UP, WIREGUARD, Report, Subject

COLOURS = {OURS: "#2563eb", LIMIT: "#93c5fd", RECIPE: "#f0b46c", WIREGUARD: "#7fb08c", RAW: "#e2e6eb"}
INK = "#1f2937"
PANELS = [(direction, mtu) for mtu in (1500, 9000) for direction in (UP, DOWN)]


def draw(report: Report, target: Path) -> None:
    """Draw bars, four panels with one scale; the raw path, which is far beyond, is cut and says how far it goes.

    The background is white and not transparent: so it can be read on a dark page, too.
    """
    values = {
        panel: {path: report.median(Subject(panel[0], RATE, panel[1], 1), path) or 0 for path in report.paths}
        for panel in PANELS
    }
    end = max(value for bars in values.values() for path, value in bars.items() if path != RAW) * 1.3
    figure = Figure(figsize=(9, 4.4), dpi=160, facecolor="white", layout="constrained")
    figure.suptitle("One TCP stream to a container, Mbit/s", color=INK, fontsize=13, fontweight="bold")
    for axes, (direction, mtu) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        bars = values[direction, mtu]
        axes.barh(list(bars), [min(value, end) for value in bars.values()], color=[COLOURS[path] for path in bars])
        for place, (path, value) in enumerate(bars.items()):
            cut = value > end
            axes.text(
                end * 0.99 if cut else value + end * 0.012, place, f"{value:,.0f}{' →' if cut else ''}",
                va="center", ha="right" if cut else "left", color=INK, fontsize=9,
                fontweight="bold" if path == OURS else "normal",
            )  # fmt: skip
        axes.set_title(f"{direction}, containers' MTU {mtu}", loc="left", color=INK, fontsize=10)
        axes.set_xlim(0, end)
        axes.invert_yaxis()
        axes.set_xticks([])
        axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=9)
        axes.spines[:].set_visible(False)
    figure.savefig(target, metadata={"Software": None})
