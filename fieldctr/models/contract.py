"""What every backbone and enhancer promises, as checks that say in words which promise a class breaks.

`fieldctr check` runs them on a user's own class, the project's tests on every YAML of the project: it is the same code.
"""

import copy
import traceback
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.models.ctr_model import CTRModel
from fieldctr.models.hooks import hook
from fieldctr.schema import Field, Schema

ROWS = 24
STEPS, EVERY, BATCH, LEARNING_RATE = 400, 50, 256, 0.003  # of the training on a planted pair: at most, look, rows
FOUND, NOT_FOUND = 0.9, 0.56  # AUC
TOLERANCE = 1e-5

Make = Callable[[Schema, int], CTRModel]  # schema and seed -> the model as a command builds it
RAISES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class Contract(NamedTuple):
    """One promise: `broken` gives what is wrong with a model, or '' where it keeps the promise."""

    name: str
    promise: str
    broken: Callable[[Make], str]
    decides: bool = False  # where it is broken, the ones behind it cannot be looked at


def table() -> Schema:
    """A table with all that a model may meet: values, a number, several values, a history, two fields of one table."""
    plain = (Field("user", 9), Field("tags", 6, width=3), Field("price", 2, numeric=True), Field("item", 7))
    shared = (Field("past", 7, width=3, shares="item"), Field("last", 7, shares="item"))
    return Schema((*plain, Field("hour", 4), *shared))


def batch_of(schema: Schema, num_rows: int, seed: int = 3) -> Inputs:
    """Random inputs of a table."""
    generator = torch.Generator().manual_seed(seed)
    columns = {
        field.name: torch.randint(field.vocab_size, (num_rows, field.width), generator=generator, dtype=torch.int32)
        for field in schema.fields
    }
    values = torch.randn(num_rows, schema.num_values, generator=generator)
    present = [columns[field.name] for field in schema.fields if field.numeric]
    present += [(columns[field.name] > 0).expand(-1, field.vector) for field in schema.fields if field.vector]
    return Inputs(torch.cat(list(columns.values()), 1), values * torch.cat(present, 1) if present else None)


def check(make: Make) -> Iterator[tuple[Contract, str]]:
    """Each contract with what breaks it, or ''; after one that decides no more are looked at."""
    for contract in CONTRACTS:
        try:
            told = contract.broken(make)
        except UserError as error:
            told = str(error)
        except RAISES as error:
            told = raised(error)
        yield contract, told
        if told and contract.decides:
            return


def raised(error: BaseException) -> str:
    """An exception in one line, with the line of the code that is no library's: a user's, where there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in frames if "site-packages" not in frame.filename] or list(frames)
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first} (line {frames[-1].lineno} of {frames[-1].filename})"


def builds(make: Make) -> str:
    """Equal seeds give equal weights, whatever was drawn before."""
    schema = table()
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = make(schema, 1).state_dict()
    if not torch.equal(torch.get_rng_state(), state):
        return "building it sets torch's random numbers for all others. Take no torch.manual_seed inside it"
    torch.manual_seed(12)
    again, other = make(schema, 1).state_dict(), make(schema, 2)
    for name, value in first.items():
        if not torch.equal(value, again[name]):
            return f"weight {name} differs between two builds with one seed: draw it with torch's random numbers alone"
    drawn = [
        name for name, value in other.named_parameters() if value.numel() > 1 and value.ne(value.flatten()[0]).any()
    ]
    if drawn and all(torch.equal(first[name], other.state_dict()[name]) for name in drawn):
        return "two seeds give equal weights: draw them with torch's random numbers, without a seed of your own"
    return ""


def one_logit(make: Make) -> str:
    """Shapes of what backbone and enhancer give, in training and in evaluation, for many samples and for one."""
    schema = table()
    model = make(schema, 1)
    for training, rows in ((True, ROWS), (False, ROWS), (False, 1)):
        model.train(training)
        told, inputs = list[str](), batch_of(schema, rows)
        parts = [("model", model.backbone), *([("enhancer", model.enhancer)] if model.enhancer else [])]
        hooks = [part.register_forward_hook(_look(name, rows, told)) for name, part in parts]
        try:
            output = model(inputs)
        except RAISES as error:
            if not told:  # a wrong shape that was seen says more than the sum that fails of it
                raise
            return f"{told[0]} ({type(error).__name__} behind it)"
        finally:
            for one in hooks:
                one.remove()
        if told:
            return told[0]
        if not (output.logit.isfinite().all() and output.penalty.isfinite()):
            return (
                f"a logit or the penalty is no finite number, for ids and values of an ordinary table{_mode(training)}"
            )
    return ""


def _look(name: str, rows: int, told: list[str]) -> Callable[[nn.Module, object, object], None]:
    """A forward hook that tells of outputs of another shape than promised."""

    def look(part: nn.Module, given: object, output: object) -> None:
        where = f"{type(part).__name__}.forward"
        if name == "enhancer" and not (isinstance(output, tuple) and len(output) == 2):
            told.append(f"{where} gives {_kind(output)}: expected two, the extra logit (B,) and the penalty ()")
            return
        logit = output[0] if name == "enhancer" and isinstance(output, tuple) else output
        if not isinstance(logit, Tensor):
            told.append(f"{where} gives {_kind(logit)}: expected one tensor, a logit for each sample (B,)")
        elif tuple(logit.shape) != (rows,):
            cure = ". Add .squeeze(1)" if tuple(logit.shape) == (rows, 1) else ""
            told.append(f"{where} gives shape {tuple(logit.shape)} for {rows} samples: expected ({rows},){cure}")
        elif not logit.is_floating_point():
            told.append(f"{where} gives {logit.dtype}: expected a floating-point logit")
        if name == "enhancer" and isinstance(output, tuple):
            penalty = output[1]
            if not isinstance(penalty, Tensor) or penalty.shape != ():
                shape = f"shape {tuple(penalty.shape)}" if isinstance(penalty, Tensor) else _kind(penalty)
                told.append(f"{where}'s penalty is {shape}: expected a tensor (), one number for the whole batch")

    return look


def _kind(value: object) -> str:
    return f"{len(value)} values" if isinstance(value, tuple) else f"a {type(value).__name__}"


def _mode(training: bool) -> str:
    return " in training" if training else " in evaluation"


def gradients(make: Make) -> str:
    """The gradient of the loss with respect to every parameter."""
    schema = table()
    model = make(schema, 1).train()
    torch.manual_seed(5)
    frozen = {id(p) for part in model.modules() if hook(part, "frozen", False) for p in part.parameters()}
    for _ in range(4):  # dropout may hide a small part of a model from one batch
        output = model(batch_of(schema, 4 * ROWS))
        (output.logit @ torch.randn(4 * ROWS) + output.penalty).backward()
    for name, parameter in model.named_parameters():
        if id(parameter) in frozen or not parameter.requires_grad:
            continue
        if parameter.grad is None or not parameter.grad.abs().sum() > 0:
            what = "gets no gradient" if parameter.grad is None else "gets a gradient of zeros"
            return (
                f"parameter {name} {what}: it never learns. Use it in forward, without .detach() or .data, or drop it"
            )
    return ""


def saves(make: Make) -> str:
    """Saved weights, loaded into a model of another seed, give equal logits."""
    schema = table()
    inputs, model, other = batch_of(schema, ROWS), make(schema, 1).eval(), make(schema, 2).eval()
    with torch.no_grad():
        other(inputs)  # what a model remembers between evaluations must not survive the loading
        other.load_state_dict(copy.deepcopy(model.state_dict()))
        if not torch.equal(model(inputs).logit, other(inputs).logit):
            return (
                "saved weights, loaded into another model, give other logits: something that decides them is neither a "
                "parameter nor a buffer, or is drawn anew in evaluation"
            )
    return ""


def folds(make: Make) -> str:
    """The form that serves gives the same logits."""
    schema = table()
    inputs, model = batch_of(schema, ROWS), make(schema, 1).eval()
    with torch.no_grad():
        before = model(inputs).logit
        if not torch.allclose(model.fold()(inputs).logit, before, atol=1e-6, rtol=1e-6):
            return "after fold() the logits are others: it may only compute what is the same for all samples"
    return ""


def apart(make: Make) -> str:
    """A sample's logit in another order, and alone."""
    schema = table()
    inputs, model = batch_of(schema, ROWS), make(schema, 1).eval()
    scatter(model, 0.1)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))

    def rows(which: Tensor) -> Inputs:
        return Inputs(inputs.ids[which], None if inputs.values is None else inputs.values[which])

    with torch.no_grad():
        logit = model(inputs).logit
        for which, others in ((order, "in another order"), (torch.tensor([3]), "alone")):
            gap = float((model(rows(which)).logit - logit[which]).abs().max())
            if gap > TOLERANCE * (1 + float(logit.abs().max())):
                return (
                    f"a sample's logit depends on its batch: {others} it differs by {gap:.2g}. Look for a mean, a "
                    "softmax or a reshape over dimension 0, which is that of the samples"
                )
    return ""


def under_autocast(make: Make) -> str:
    """Logits under bfloat16 autocast keep the digits of single precision: else they tie in the AUC."""
    schema = table()
    inputs, model = batch_of(schema, ROWS), make(schema, 1).eval()
    scatter(model, 0.1)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logit = model(inputs).logit
    if logit.dtype != torch.float32:
        return (
            f"under autocast (trainer.precision=bf16) the logit is {logit.dtype}: make it with .float() before the sum"
        )
    if (logit == logit.bfloat16()).all():
        return "under autocast (trainer.precision=bf16) the logit has three digits: compute its last product in float32"
    return ""


def finds_pair(make: Make) -> str:
    """The click is the XOR of two fields' parities; no field alone says anything about it."""
    claims = hook(make(planted_table(), 1).backbone, "finds_pairs", True)
    found = planted_auc(make, STEPS if claims else 2 * EVERY)
    if claims and found <= FOUND:
        return (
            f"two fields decide the click together, and after {STEPS} steps the AUC is {found:.3f} (1 is all, "
            f"0.5 chance; {FOUND} expected). A model that is meant to see each field alone says so: its class has "
            "finds_pairs = False"
        )
    if not claims and found > NOT_FOUND:
        return f"its class says finds_pairs = False, and it found a planted pair with an AUC of {found:.3f}"
    return ""


def planted_table() -> Schema:
    plain = tuple(Field(name, 3) for name in ("a", "noise", "b", "more"))
    return Schema((*plain, Field("past", 3, width=2, shares="more")))


def planted_auc(make: Make, steps: int) -> float:
    """The AUC, on samples that it has not seen, of a model that is trained on the XOR of two fields' parities.

    Each batch is new, so that nothing can be learned by heart. It ends once the pair is found.
    """
    schema, generator = planted_table(), torch.Generator().manual_seed(7)
    model, found = make(schema, 1), 0.0
    adam = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)

    def draw(num_rows: int) -> tuple[Inputs, Tensor]:
        ids = torch.randint(1, 3, (num_rows, schema.num_columns), generator=generator, dtype=torch.int32)
        return Inputs(ids), ((ids[:, 0] + ids[:, 2]) % 2).float()

    fresh, clicks = draw(2 * BATCH)
    torch.manual_seed(1)
    for step in range(1, steps + 1):
        inputs, label = draw(BATCH)
        adam.zero_grad()
        output = model.train()(inputs)
        (binary_cross_entropy_with_logits(output.logit, label) + output.penalty).backward()
        adam.step()
        if step % EVERY == 0:
            with torch.no_grad():
                found = auc(model.eval()(fresh).logit, clicks)
            if found > FOUND:
                break
    return found


def auc(logit: Tensor, label: Tensor) -> float:
    """Share of (click, no click) pairs in the right order, ties half."""
    gap = logit[label == 1].unsqueeze(1) - logit[label == 0].unsqueeze(0)
    return float(((gap > 0).double() + 0.5 * (gap == 0).double()).mean())


def scatter(model: nn.Module, std: float) -> None:
    """Add noise to all weights, so that no term hides behind a start at zero."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * std)


CONTRACTS = (
    Contract("builds", "it is built of schema and dim; equal seeds give equal weights", builds, decides=True),
    Contract("one logit per sample", "finite, of shape (B,); an enhancer's penalty is ()", one_logit, decides=True),
    Contract("gradients everywhere", "every parameter gets a gradient", gradients),
    Contract("saves and loads", "saved weights give the same logits", saves),
    Contract("folds", "the form that serves gives the same logits", folds),
    Contract("samples apart", "a sample's logit does not depend on its batch", apart),
    Contract("autocast", "under bfloat16 autocast the logit keeps single precision", under_autocast),
    Contract("finds a planted pair", "two fields that decide the click together are found", finds_pair),
)
