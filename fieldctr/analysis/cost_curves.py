"""Pictures of what methods cost against the size of a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fieldctr.analysis.plots import drawing, save

AXES = {"rows": "rows", "fields": "fields", "values": "values a field"}


def draw(points: Sequence[Mapping[str, Any]], methods: Sequence[str], clock: str, stem: Path) -> Path:
    """Seconds, on a logarithmic axis, above memory, against each size; hollow where a number is extrapolated.

    A point has method, against, size, seconds, peak_mb and measured. Gives the path of the PNG.
    """
    with drawing():
        figure = Figure(figsize=(9, 5.2), layout="constrained")
        FigureCanvasAgg(figure)
        for column, (against, label) in enumerate(AXES.items()):
            for row, (key, unit) in enumerate((("seconds", clock), ("peak_mb", "MB"))):
                axes = figure.add_subplot(2, 3, 1 + 3 * row + column)
                for k, method in enumerate(methods):
                    own = [p for p in points if (p["method"], p["against"]) == (method, against)]
                    own.sort(key=lambda point: point["size"])
                    sizes, numbers = [p["size"] for p in own], [max(p[key], 1e-3) for p in own]
                    axes.plot(sizes, numbers, color=f"C{k}", label=method)
                    for p, number in zip(own, numbers, strict=True):
                        face = f"C{k}" if p["measured"] else "white"
                        axes.plot([p["size"]], [number], "o", color=f"C{k}", markerfacecolor=face, markersize=4)
                axes.set_xscale("log")
                sizes = sorted({p["size"] for p in points if p["against"] == against})
                axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
                axes.minorticks_off()
                if key == "seconds":
                    axes.set_yscale("log")
                else:
                    axes.set_ylim(bottom=0)
                axes.set_xlabel(label)
                axes.set_ylabel(unit)
        figure.axes[0].legend(frameon=False)
    return save(figure, stem)
