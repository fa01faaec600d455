"""From YAML to typed objects: the closed nodes as frozen dataclasses, and the two functions that read a node.

YAML is the only place where a value is set, a dataclass the only place where its type and range are stated.
"""

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from fieldctr.errors import UserError, nearest
from fieldctr.targets import Kind, locate

T = TypeVar("T")


class Between(NamedTuple):
    """The closed range of a number, as annotation."""

    low: float
    high: float = float("inf")


Positive = Annotated[int, Between(1)]
Count = Annotated[int, Between(0)]
Weight = Annotated[float, Between(0)]
Share = Annotated[float, Between(0, 1)]
Template = Literal["short", "long"]  # of an encoder's prompts


@dataclass(frozen=True)
class TrainerConfig:
    """How a model is fitted. Node `trainer`."""

    max_epochs: Positive
    batch_size: Positive | Literal["auto"]
    eval_batch_size: Positive
    evals_per_epoch: Positive | Literal["auto"]
    monitor: Literal["auc", "logloss", "auc-logloss"]  # on the validation split
    patience: Positive  # evaluations in a row without a gain before the run stops
    min_delta: Weight  # what counts as a gain
    lr_decay: Share  # factor after each lr_patience evaluations in a row without a gain
    min_lr: Weight
    clip_norm: Weight | None
    ema_decay: Share | None  # per step; null trains and evaluates the raw weights
    precision: Literal["fp32", "tf32", "bf16"]
    activation_checkpointing: bool  # of the backbone's `layers`
    compile: bool | Literal["graphs"]  # of the backbone; graphs: as CUDA graphs as well
    deterministic: bool
    checkpoint_every_s: Weight  # besides the one at each evaluation
    dry_run: bool  # counts and measures instead of training
    extra_metrics: list[str]  # import paths of torchmetrics classes, computed on the whole split
    # Of what follows the default is what was done before there was such a key, for runs of then.
    grace_steps: Annotated[int, Between(0)] = 100
    patience_steps: Annotated[int, Between(0)] = 0  # without a gain, before patience may stop the run
    lr_patience: Positive = 1
    gain: Literal["monitor", "either"] = "monitor"  # either: a lower LogLoss than any before is a gain too
    first_bias: Literal["drawn", "log_odds"] = "drawn"


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam with coupled L2, or another rule for some weights. Node `optimizer`."""

    lr: Weight
    beta1: Share
    beta2: Share
    eps: Weight
    embedding_l2: Weight
    dense_l2: Weight
    embedding_update: Literal["dense", "lazy"]  # lazy: the same Adam, computed only for rows that a batch touches
    base_width: Positive = 16  # as before there was such a key, for runs of then; so are the next
    sample_eps: Weight = 0.0  # over the batch size, added to eps
    embedding_rule: Literal["adam", "rowwise_adagrad"] = "adam"
    embedding_lr_scale: Weight = 1.0  # times lr, for embedding tables
    matrix_rule: Literal["adam", "muon"] = "adam"
    matrix_width: Positive = 64  # rows and columns, at least, of a matrix that muon moves
    momentum: Share = 0.95  # of muon


@dataclass(frozen=True)
class EmbeddingConfig:
    """How embedding tables are held while a model is fitted. Node `embedding`, which runs of before it lack."""

    engine: Literal["torch", "torchrec"] = "torch"
    sharding: Literal["auto", "table_wise", "row_wise", "column_wise"] = "auto"  # of torchrec


@dataclass(frozen=True)
class RuntimeConfig:
    """The machine. Node `runtime`."""

    device: str  # auto | cpu | cuda | cuda:N
    threads: Positive | Literal["auto"]
    matmul: Literal["auto", "mkl", "onednn"]
    ranks: Positive | Literal["auto"] = "auto"  # processes that train together, which torchrun says


@dataclass(frozen=True)
class TrackerConfig:
    """Where metrics are mirrored; metrics.jsonl is always written. Node `tracker`."""

    name: Literal["none", "wandb", "tensorboard"]
    project: str
    mode: Literal["offline", "online"]
    group: str | None
    tags: list[str]


@dataclass(frozen=True)
class TuningConfig:
    """SSFT: how an encoder's LoRA weights are tuned. Node `encoder.tuning`."""

    epochs: Annotated[int, Between(0)]  # 0 leaves the encoder as it is
    loss: Literal["contrastive", "generative"]  # generative: -log P(field name | prompt), of a decoder
    temperature: Weight  # of contrastive
    lr: Weight
    warmup_steps: Annotated[int, Between(0)]
    clip_norm: Weight
    batch_size: Positive  # prompts of an optimizer step
    micro_batch: Positive  # prompts at a time: memory and speed, not the result
    lora_rank: Positive
    lora_alpha: Positive
    lora_dropout: Share
    lora_targets: list[str]  # names of linear layers


@dataclass(frozen=True)
class EncoderConfig:
    """A language model that turns texts into vectors, and the texts it is tuned on. Node `encoder`."""

    kind: Literal[
        "pretrained", "tiny_llama", "random"
    ]  # tiny_llama: random weights; random: no model, Gaussian vectors
    model: str  # of kind pretrained: a folder, a GGUF file, a hub id, or package:NAME/PATH for one in a package
    origin: str  # how to get it, for whom it is not there
    width: Positive  # of the vectors of kind random
    pooling: Literal["mean", "last", "cls"]
    attention: Literal["eager", "sdpa"]
    dtype: Literal["auto", "fp32", "bf16", "4bit"]  # of the base; LoRA weights are fp32. auto: bf16 if native
    max_tokens: Positive
    template: Template  # long lists all field names in every prompt, as the paper does
    values_per_field: Positive
    sampling: Literal["uniform", "weighted"]  # weighted by their counts in train
    shared_values: Literal["all", "last"]  # a value that two fields have: a prompt for each, or for the last alone
    seed: Annotated[int, Between(0, 2**32 - 1)]
    tuning: TuningConfig
    weights: Literal["published", "random"] = "published"  # random: the model's architecture, with nothing learned


@dataclass(frozen=True)
class TrainConfig:
    """The root of `fieldctr train`. The open nodes stay mappings: their owner checks them."""

    data_root: str
    outputs: str
    seed: Annotated[int, Between(0, 2**32 - 1)]
    embedding_dim: Positive
    resume: bool
    dataset: dict[str, Any]
    schema: dict[str, Any] | None
    encoder: dict[str, Any]  # empty unless the model or the enhancer brings one
    model: dict[str, Any]
    enhancer: dict[str, Any] | None
    trainer: TrainerConfig
    optimizer: OptimizerConfig
    runtime: RuntimeConfig
    tracker: TrackerConfig
    warm_start: str | None = None  # folder of a finished run; runs of earlier versions have neither key
    train_rows: Positive | Literal["all"] = "all"
    id_dropout: dict[str, Any] | None = None  # by field name a probability
    knowledge: dict[str, Any] | None = None  # empty where nothing is written
    evaluate_test: bool = True  # False in a trial of a search
    choices: dict[str, Any] | None = None  # by group the option that was taken: names to say, not what is computed
    embedding: EmbeddingConfig = EmbeddingConfig()

    def choice(self, group: str) -> str:
        """The name of the option that was taken of a group: fat for model=fat."""
        return choice(self.choices, group)


CLOSED = {  # nodes whose keys are known whatever is chosen, and what reads them
    "trainer": TrainerConfig,
    "optimizer": OptimizerConfig,
    "embedding": EmbeddingConfig,
    "runtime": RuntimeConfig,
    "tracker": TrackerConfig,
    "encoder": EncoderConfig,
}


def choice(choices: Mapping[str, Any] | None, group: str) -> str:
    """The name of the option that was taken of a group; UserError where the configuration does not say it."""
    if group not in (choices or {}):
        raise UserError(f"key 'choices.{group}' is missing: the name that was chosen of {group}. compose(...) sets it")
    return str((choices or {})[group])


def listed(value: Any) -> list[Any]:
    """A value that may stand alone or in a list, as a list."""
    return list(value) if isinstance(value, list) else [value]


def later(kind: Any) -> dict[str, Any]:
    """The keys of a node that earlier versions lacked, with what those did."""
    return {one.name: one.default for one in fields(kind) if one.default is not MISSING}


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings by dotted key. An empty mapping is a leaf: a field without keys is a field."""
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        nested = isinstance(value, Mapping) and value
        leaves |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return leaves


def parse(kind: Callable[..., T], node: Mapping[str, Any], name: str) -> T:
    """The frozen dataclass `kind` from a plain mapping; a UserError names the key, what is expected and what came."""
    hints, prefix = get_type_hints(kind, include_extras=True), f"{name}." if name else ""
    for key in node:
        if key not in hints:
            raise UserError(f"no key '{prefix}{key}'. {nearest(key, hints)}All: {', '.join(hints)}")
    for key, hint in hints.items():
        if key not in node and not hasattr(kind, key):  # a dataclass keeps its defaults as attributes
            raise UserError(f"key '{prefix}{key}' is missing: expected {spell(hint)}")
    return kind(**{key: checked(value, hints[key], f"{prefix}{key}") for key, value in node.items()})


def build(node: Mapping[str, Any], name: str, *runtime: Any, kind: Kind) -> Any:
    """Call the node's `_target_` with `runtime` and then the node's other keys.

    A stray or missing key is named, and so is a value that the target's annotation does not allow.
    """
    target, keywords = locate(node, name, kind), {key: value for key, value in node.items() if key != "_target_"}
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    known = [p.name for p in inspect.signature(target).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for key in keywords:
        if key not in known:
            raise UserError(f"no key '{name}.{key}'. {nearest(key, known)}All: {', '.join(known) or 'none'}")
    for p in inspect.signature(target).parameters.values():
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name not in keywords:
            raise UserError(f"key '{name}.{p.name}' is missing: {node['_target_']} needs it")
    typed = {key: checked(value, hints.get(key, Any), f"{name}.{key}") for key, value in keywords.items()}
    return target(*runtime, **typed)


def checked(value: Any, hint: Any, key: str) -> Any:
    """`value` if it is of type `hint` (a whole number passes for a float); else a UserError that names `key`."""
    if is_dataclass(hint) and isinstance(value, Mapping):
        return parse(hint, value, key)
    if _accepts(value, hint):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and _accepts(float(value), hint):
        return float(value)  # YAML writes 1 for 1.0
    raise UserError(f"{key}={yaml(value)} is not allowed: expected {spell(hint)}{_quoted(value, hint)}")


def yaml(value: Any) -> str:
    """A value as YAML writes it."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def as_name(value: Any, key: str) -> str:
    """A column's or field's name: a text, or a whole number for its digits; UserError for what YAML took otherwise."""
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise UserError(f'{key}: {yaml(value)} is no name. Quote it, if a text is meant: "{yaml(value)}"')


def with_names(node: Mapping[str, Any]) -> dict[str, Any]:
    """A `dataset` node with texts where YAML read a column's name as a number."""
    names = {key: as_name(node[key], f"dataset.{key}") for key in ("group", "weight") if node.get(key) is not None}
    given = checked(node.get("fields") or {}, dict, "dataset.fields")
    fields = {as_name(name, "dataset.fields"): field for name, field in given.items()}
    return {**node, **names, "fields": fields}


def _quoted(value: Any, hint: Any) -> str:
    """What to do where YAML read yes, no, null or a number, and a text is expected."""
    texts = _accepts("", hint) or _accepts([""], hint)
    unquoted = [one for one in (value if isinstance(value, list) else [value]) if not isinstance(one, str)]
    if texts and unquoted and isinstance(unquoted[0], bool | int | float):
        return f'. Quote it, if a text is meant: "{yaml(unquoted[0])}"'
    return ""


def _accepts(value: Any, hint: Any) -> bool:
    origin, options = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _accepts(value, options[0]) and options[1].low <= value <= options[1].high
    if origin is Literal:
        return value in options
    if origin in (Union, types.UnionType):
        return any(_accepts(value, option) for option in options)
    if origin is list:
        return isinstance(value, list) and all(_accepts(item, options[0]) for item in value)
    kind = origin or hint
    if not inspect.isclass(kind) or kind is Any:  # a hint that isinstance cannot test, in a package's own target
        return True
    return isinstance(value, kind) and not (isinstance(value, bool) and hint not in (bool, object))


def spell(hint: Any) -> str:
    """A type in the words of an error message: 'float from 0 to 1', 'none | wandb'."""
    origin, options = get_origin(hint), get_args(hint)
    if origin is Annotated:
        low, high = options[1]
        return f"{spell(options[0])} {f'from {low} to {high}' if high < float('inf') else f'>= {low}'}"
    if origin is Literal:
        return " | ".join(map(str, options))
    if origin in (Union, types.UnionType):
        return " | ".join(map(spell, options))
    if origin is list:
        return f"list of {spell(options[0])}"
    return {type(None): "null", dict: "mapping", Mapping: "mapping"}.get(origin or hint, hint.__name__)
