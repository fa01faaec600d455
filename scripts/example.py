"""fieldctr from Python in one page: a frame in, two models compared, new rows scored. Takes seconds; needs no files."""

import numpy as np
import polars as pl

from fieldctr import compose, load_run, train

rng = np.random.default_rng(1)
rows = 10_000
user, ad, hour = rng.integers(0, 20, rows), rng.integers(0, 10, rows), rng.integers(0, 24, rows)
likes = rng.random((20, 10)) < 0.5  # who likes which ad: no field says it, a pair of fields does
click = rng.random(rows) < 0.2 + 0.5 * likes[user, ad]
frame = pl.DataFrame({"user": user, "ad": ad, "hour": hour, "click": click.astype(int)})

table = ["dataset=tidy", "dataset.source.label.column=click", *(f"+dataset.fields.{n}={{}}" for n in frame.columns[:3])]
settings = ["tracker=none", "trainer.batch_size=256", "trainer.max_epochs=5", "optimizer.lr=0.01"]

runs = {}
for model in ("lr", "fm"):
    runs[model] = train(compose("train", [f"model={model}", *table, *settings]), frame)

auc = {"model": list(runs), "test auc": [run.metrics["test"]["auc"] for run in runs.values()]}
print(pl.DataFrame(auc))
print(runs["fm"].history.select("step", "lr", "train_loss", "valid/auc"))

run = load_run(runs["fm"].folder)  # in another process, on another day
new = pl.DataFrame({"user": [3, 3, 99], "ad": [1, 2, 2], "hour": [12, 12, 0]})  # nobody knows user 99
print(run.predict(new))
