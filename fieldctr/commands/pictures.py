"""The pictures of a run: how it learned, whether its probabilities are true, and what the model says of its inside."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from fieldctr.data.batches import Batches
from fieldctr.data.dataset import Dataset
from fieldctr.models.ctr_model import CTRModel
from fieldctr.models.hooks import hook
from fieldctr.runs import Run
from fieldctr.schema import Field
from fieldctr.training.diagnostics import ROWS, diagnostics
from fieldctr.training.runtime import Runtime

LEARNING = "learning"
FEW = 0.25  # of all pairs: frames around more of them show nothing
WORDS = {  # of a heatmap: rows, columns, value
    "field_pairs": ("field", "with field", "learned weight of the pair"),
    "attention": ("field that attends", "field attended to", "mean attention"),
    "bases": ("field", "basis", "mean share of the field's matrices"),
}


def inside(dataset: Dataset, model: CTRModel, runtime: Runtime) -> dict[str, Tensor]:
    """The matrices that the backbone shows of itself, by name; says what is wrong with it."""
    matrices = {}
    if pair_weights := hook(model.backbone, "pair_weights"):
        matrices["field_pairs"] = pair_weights()
    found = diagnostics(model, next(Batches(dataset.valid, batch_size=ROWS, device=runtime.device).ordered()).inputs)
    if found:
        matrices |= found.matrices
        for text in found.warnings:
            warnings.warn(text, stacklevel=2)
    return matrices


def draw(
    run: Run, dataset: Dataset, matrices: Mapping[str, Tensor], known: Mapping[str, Any], fields: Sequence[Field]
) -> dict[str, Path]:
    """Leave the pictures in the run's folder, by name.

    `known` are entries of its result: seed, best step, table; the `fields` are the model's.
    """
    from fieldctr.analysis.plots import Words, heatmap, save  # half a second
    from fieldctr.analysis.report.members import Member
    from fieldctr.analysis.report.run import learned

    member = Member(run.folder, dict(known), dict(run.config), {})
    pictures = {LEARNING: save(learned(member, dataset.folder.parents[1]), run.folder / LEARNING)}
    names = [field.name for field in fields]
    planted = planted_pairs(dataset.facts.get("planted", []), names)
    for name, matrix in matrices.items():
        square, called = matrix.shape[0] == matrix.shape[1], name.replace("_", " ")
        words = Words(*WORDS.get(name, ("field", "with field" if square else "column", called)))
        framed, title = planted if square else [], f"{run.folder.name}: {called}"
        title += "\nframed: the pairs whose effect was planted" if framed else ""
        figure = heatmap(names, matrix.detach().float().cpu().numpy(), title, words, framed)
        pictures[name] = save(figure, run.folder / name)
    return pictures


def planted_pairs(planted: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[tuple[int, int]]:
    """Positions of the pairs of fields that a made-up table has effects of, both ways round; none where most have."""
    pairs = [one["fields"] for one in planted if len(one["fields"]) == 2 and set(one["fields"]) <= set(names)]
    found = {(names.index(one[i]), names.index(one[1 - i])) for one in pairs for i in (0, 1)}
    return sorted(found) if len(found) < len(names) * (len(names) - 1) * FEW else []
