"""FuxiCTR's side of compare_fuxictr.py, which calls this by the Python of an environment that has fuxictr.

    peer/bin/python scripts/fuxictr_side.py fit MODEL mkl|onednn SHAPE    SHAPE: JSON of compare_fuxictr.Shape
    peer/bin/python scripts/fuxictr_side.py prepare FOLDER FIELDS         train.csv, valid.csv and test.csv of a folder

FuxiCTR's own BaseModel trains and evaluates, with its layers; the models are put together here as its model zoo does,
because of that only the models for long histories are in its package. The last line is JSON.
"""

import json
import statistics
import sys
import tempfile
import time
from itertools import chain, repeat
from pathlib import Path
from typing import Any

LR = 1e-3


def fit(model: str, library: str, shape: dict[str, Any]) -> dict[str, float]:
    """Median CPU seconds of a training step, and those of an evaluation; the loader is left out."""
    import numpy as np
    import torch
    from fuxictr.features import FeatureMap

    torch.set_num_threads(1)
    if library == "onednn":
        torch.set_float32_matmul_precision("medium")
    fields, batch, rows = shape["fields"], shape["batch"], shape["eval_rows"]
    sizes = [max(2, shape["table_rows"] // fields)] * fields
    with tempfile.TemporaryDirectory() as folder:
        features = FeatureMap("bench", folder)
        features.labels = ["label"]
        features.features = {
            f"f{i}": {"type": "categorical", "source": "", "vocab_size": size, "padding_idx": 0}
            for i, size in enumerate(sizes)
        }
        features.num_fields, features.total_features, features.input_length = fields, sum(sizes), fields
        network = assembled(model, features, folder, shape)
        rng = np.random.default_rng(1)
        ids = np.minimum((rng.zipf(1.2, (rows, fields)) - 1) % sizes[0] + 1, sizes[0] - 1)
        label = (rng.random(rows) < 0.25).astype(np.float32)
        parts = [slice(at, at + batch) for at in range(0, rows, batch)]
        columns = [{f"f{i}": torch.from_numpy(ids[part, i].copy()) for i in range(fields)} for part in parts]
        batches = [{**c, "label": torch.from_numpy(label[part])} for c, part in zip(columns, parts, strict=True)]
        network._max_gradient_norm = 10.0
        network.train()
        stream = chain.from_iterable(repeat(batches))
        seconds = []
        for _ in range(shape["warm_up"] + shape["steps"]):
            begin = time.process_time()
            network.train_step(next(stream)).item()
            seconds.append(time.process_time() - begin)
        begin = time.process_time()
        network.evaluate(batches, metrics=["AUC", "logloss"])
        return {"step": statistics.median(seconds[shape["warm_up"] :]), "evaluation": time.process_time() - begin}


def assembled(model: str, features: Any, folder: str, shape: dict[str, Any]) -> Any:
    """DeepFM, parallel DCNv2, FinalMLP or AutoInt without a network, trained by BaseModel."""
    import torch
    from fuxictr.pytorch.layers import FeatureEmbedding
    from fuxictr.pytorch.models import BaseModel

    class Peer(BaseModel):
        def __init__(self) -> None:
            super().__init__(features, model, gpu=-1, verbose=0, model_root=folder, metrics=["AUC", "logloss"])
            self.embedding_layer = FeatureEmbedding(features, shape["dim"])
            self.head = globals()[f"{model}_head"](features, shape)
            self.compile("adam", "binary_crossentropy", LR)
            self.reset_parameters()

        def forward(self, inputs: Any) -> dict[str, Any]:
            taken = self.get_inputs(inputs)
            return {"y_pred": self.output_activation(self.head(taken, self.embedding_layer(taken)))}

    torch.manual_seed(1)
    return Peer()


def deepfm_head(features: Any, shape: dict[str, Any]) -> Any:
    from fuxictr.pytorch.layers import FactorizationMachine, MLP_Block
    from torch import nn

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fm = FactorizationMachine(features)
            self.mlp = MLP_Block(width(shape), output_dim=1, hidden_units=shape["hidden"], hidden_activations="ReLU")

        def forward(self, taken: Any, emb: Any) -> Any:
            return self.fm(taken, emb) + self.mlp(emb.flatten(1))

    return Head()


def dcnv2_head(features: Any, shape: dict[str, Any]) -> Any:
    import torch
    from fuxictr.pytorch.layers import CrossNetV2, MLP_Block
    from torch import nn

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            hidden = shape["hidden"]
            self.cross = CrossNetV2(width(shape), shape["layers"])
            self.mlp = MLP_Block(width(shape), output_dim=None, hidden_units=hidden, hidden_activations="ReLU")
            self.last = nn.Linear(width(shape) + hidden[-1], 1)

        def forward(self, taken: Any, emb: Any) -> Any:
            flat = emb.flatten(1)
            return self.last(torch.cat([self.cross(flat), self.mlp(flat)], dim=-1))

    return Head()


def finalmlp_head(features: Any, shape: dict[str, Any]) -> Any:
    from fuxictr.pytorch.layers import MLP_Block
    from model_zoo.LongCTR.FinalMLP.FinalMLP import FeatureSelection, InteractionAggregation
    from torch import nn

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            hidden = shape["hidden"]
            self.streams = nn.ModuleList(
                MLP_Block(width(shape), output_dim=None, hidden_units=hidden, hidden_activations="ReLU")
                for _ in range(2)
            )
            self.gates = FeatureSelection(features, width(shape), shape["dim"], shape["gate"])
            self.fusion = InteractionAggregation(hidden[-1], hidden[-1], num_heads=shape["heads"])

        def forward(self, taken: Any, emb: Any) -> Any:
            gated = self.gates(taken, emb.flatten(1))
            return self.fusion(*(stream(one) for stream, one in zip(self.streams, gated, strict=True)))

    return Head()


def autoint_head(features: Any, shape: dict[str, Any]) -> Any:
    from fuxictr.pytorch.layers import ScaledDotProductAttention
    from torch import nn

    heads, wide = shape["heads"], shape["heads"] * shape["head_dim"]

    class Layer(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.project = nn.ModuleList(nn.Linear(dim, wide, bias=False) for _ in range(3))
            self.residual = nn.Linear(dim, wide, bias=False) if dim != wide else nn.Identity()
            self.attention = ScaledDotProductAttention()

        def forward(self, emb: Any) -> Any:
            apart = (project(emb).unflatten(2, (heads, -1)).transpose(1, 2) for project in self.project)
            mixed = self.attention(*apart)[0].transpose(1, 2).flatten(2)
            return (mixed + self.residual(emb)).relu()

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*(Layer(wide if i else shape["dim"]) for i in range(shape["layers"])))
            self.last = nn.Linear(shape["fields"] * wide, 1)

        def forward(self, taken: Any, emb: Any) -> Any:
            return self.last(self.layers(emb).flatten(1))

    return Head()


def width(shape: dict[str, Any]) -> int:
    return shape["fields"] * shape["dim"]


def prepare(folder: Path, fields: int) -> dict[str, float]:
    """CPU seconds of this process and of the helpers of Ray that transform, without the imports."""
    import psutil
    from fuxictr.preprocess import FeatureProcessor, build_dataset

    begin = time.process_time()
    columns = {"name": [f"f{i}" for i in range(fields)], "active": True, "dtype": "str", "type": "categorical"}
    label = {"name": "label", "dtype": "float"}
    with tempfile.TemporaryDirectory() as root:
        processor = FeatureProcessor(feature_cols=[columns], label_col=label, dataset_id="prepared", data_root=root)
        files = {f"{split}_data": str(folder / f"{split}.csv") for split in ("train", "valid", "test")}
        build_dataset(processor, **files, min_categr_count=2)
        own = time.process_time() - begin
        helpers = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
        return {"prepare": own + sum(sum(times[:4]) for times in helpers)}


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    found = (
        prepare(Path(words[0]), int(words[1])) if what == "prepare" else fit(words[0], words[1], json.loads(words[2]))
    )
    print(json.dumps(found))
