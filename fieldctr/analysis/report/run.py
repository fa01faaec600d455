"""How one run went, on one picture."""

from pathlib import Path

from matplotlib.figure import Figure

from fieldctr.analysis.report import charts
from fieldctr.analysis.report.members import Member
from fieldctr.analysis.report.picture import sheet

SPLITS = {"valid": "t0", "test": "t1"}  # with their colours


def learned(member: Member, outputs: Path) -> Figure:
    """Train loss, valid AUC and LogLoss by step, the best step, and observed against predicted click rates."""
    curves = charts.learning({"": [member]}, {"": "t0"})
    found = [charts.reliability({split: [member]}, SPLITS, split, outputs) for split in SPLITS]
    calibrated = [chart for chart in found if chart]
    if calibrated:
        marks = tuple(mark for chart in calibrated for mark in chart.marks)
        curves.append(calibrated[0]._replace(title="calibration", marks=marks))
    return sheet(curves, f"{member.folder.name}; dots at step {member.result['best_step']:,}, whose weights it kept")
