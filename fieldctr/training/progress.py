"""What a user sees of a fit: a live bar on a terminal, plain lines where stderr goes to a file."""

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

BAR_INTERVAL_S, LINE_INTERVAL_S = 0.3, 30.0


class Progress:
    """A context manager; `tick` is called every step and reads the loss (a device sync) only when it shows it.

    What has no loss calls `show`.
    """

    unit = "step"  # what a step is called

    def __init__(self, *, total_steps: int, step: int, batch_size: int) -> None:
        self.total, self.first, self.batch_size = total_steps, step, batch_size
        self.began = self.shown = time.monotonic()
        self.bar = _bar() if sys.stderr.isatty() else None
        self.interval = BAR_INTERVAL_S if self.bar else LINE_INTERVAL_S

    def __enter__(self) -> Self:
        if self.bar:
            self.bar.start()
            self.bar.add_task("", total=self.total, completed=self.first, status="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()

    def tick(self, step: int, epoch: float, loss: Callable[[], float]) -> None:
        """Show the step and its loss if it is time to."""

        def status(rate: float) -> str:
            return f"epoch {epoch:.2f}  loss {loss():.4f}  {rate * self.batch_size:,.0f} samples/s"

        self.show(step, status)

    def show(self, step: int, status: Callable[[float], str]) -> None:
        """Show the step if it is time to, and what `status` says of the steps per second."""
        now = time.monotonic()
        if now - self.shown < self.interval:
            return
        self.shown = now
        rate = (step - self.first) / (now - self.began)
        if self.bar:
            self.bar.update(self.bar.task_ids[0], completed=step, status=status(rate))
        else:
            self.say(
                f"{self.unit} {step}/{self.total}  {status(rate)}  at most {(self.total - step) / rate:,.0f} s left"
            )

    def evaluated(self, record: Mapping[str, float], *, better: bool) -> None:
        """One line for an evaluation; * marks the best so far."""
        parts = [f"epoch {record['epoch']:.2f}", f"step {record['step']}", f"loss {record['train_loss']:.4f}"]
        parts += [f"valid {name} {record[f'valid/{name}']:.4f}" for name in ("auc", "logloss")]
        self.say("  ".join(parts) + (" *" if better else ""))

    def say(self, line: str) -> None:
        """Print above the bar, or just print."""
        if self.bar:
            self.bar.console.print(line, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)


def _bar() -> "rich.progress.Progress":  # noqa: F821  # ty: ignore
    from rich.console import Console  # 0.1 s, and only a terminal needs it
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[status]}"), TimeRemainingColumn())
    return Bar(*columns, console=Console(stderr=True), refresh_per_second=4)
