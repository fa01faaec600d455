"""The end of a study: its runs compared, and reported."""

from fieldctr.disk import write_text
from fieldctr.studies.record import ANSWER
from fieldctr.studies.schedule import Schedule


def conclude(schedule: Schedule) -> None:
    lines = [
        f"{name}: {one.valid['auc']:.4f}" for name, one in sorted(schedule.results.items()) if name.startswith("runs/")
    ]
    write_text(schedule.folder / ANSWER, "\n".join(lines) + "\n")
