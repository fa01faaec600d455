"""How often a law would be supported where size decides nothing: the same study of runs whose sizes were dealt anew."""

from collections.abc import Sequence

import numpy as np

from fieldctr.analysis.scaling.laws import Better, Cells, Study, change_for_the_better, fit, null_models, resampled
from fieldctr.analysis.scaling.trials import Size, Trial, cells_of

PERMUTATIONS = 100
RESAMPLES = 200  # of the few permutations whose law predicts the held-out sizes best; others need no interval


def shuffled(trials: Sequence[Trial], values: np.ndarray, size: Size, *, seed: int, shift: float = 0.0) -> list[Cells]:
    """The cells of runs as they are when the sizes are dealt out anew among them, PERMUTATIONS times."""
    rng = np.random.default_rng(seed)
    return [cells_of(trials, rng.permutation(values), size, shift=shift)[0] for _ in range(PERMUTATIONS)]


def supported_by_chance(study: Study, tables: Sequence[Cells], *, better: Better, seed: int) -> int:
    """Of tables with the study's sizes and other values, how many would support the law, by what `judged` asks."""
    if not study.fits:
        return 0  # too few sizes to judge by, whatever the values
    fitted, held = study.cells.take(study.inner), study.cells.sizes[study.outer]
    means = np.stack([table.mean for table in tables])
    law, *nulls = (
        _misses(fit(form, fitted, means[:, study.inner]).at(held) - means[:, study.outer])
        for form in (study.form, *null_models(study.form))
    )
    rng = np.random.default_rng(seed)
    count = 0
    for i in np.flatnonzero(law < np.min(nulls, axis=0)):
        inner = tables[i].take(study.inner)
        change = change_for_the_better(resampled(study.form, inner, resamples=RESAMPLES, rng=rng), inner, better)
        count += change.low > 0
    return count


def _misses(errors: np.ndarray) -> np.ndarray:
    """(P, m) -> (P,) root mean squares."""
    return np.sqrt((errors**2).mean(1))
