"""`fieldctr COMMAND ...`: find the command, import it, turn what goes wrong into a sentence.

Nothing heavy is imported before the command is known, so that `fieldctr --help` and completion answer at once.
"""

import contextlib
import importlib
import os
import sys
from typing import NoReturn

from fieldctr import signals
from fieldctr.disk import sentence
from fieldctr.errors import UserError
from fieldctr.trust import take_trust

COMMANDS = {
    "prepare": "turn a raw table into id matrices and say what became of every row",
    "lint": "say what is wrong with a table before a model hides it",
    "baseline": "fit what a model must beat and what it cannot reach: floors and ceilings of a table",
    "train": "fit a model, evaluate it, leave a run folder that can be traced",
    "ssft": "tune a language model on the field names (ssft list | show | verify: what is there)",
    "evaluate": "compute the metrics of a finished run's model on a split",
    "parity": "check a public benchmark against what was published of it: files, vocabularies, counts, losses, AUC",
    "scaling": "fit scaling laws to finished runs (scaling bound: the capacity term of a table)",
    "predict": "score new raw rows with a finished run's model",
    "verify": "read what is stored below outputs and say what is damaged",
    "clean": "remove tables, field vectors and shards that nothing refers to; never a run",
    "list": "show models, datasets, enhancers, ... with a line on each",
    "bench": "measure preparation (bench data) or training (bench train) on this machine",
    "doctor": "say what this machine has and what is missing",
    "completion": "print the line that switches on tab completion (bash, zsh or fish)",
}
HYDRA = (
    "prepare",
    "lint",
    "baseline",
    "ssft",
    "train",
    "evaluate",
    "parity",
    "scaling",
    "predict",
    "verify",
    "clean",
    "bench",
)
PARTS = {"bench": ("data", "train"), "scaling": ("bound",)}  # words that may follow a command; bench needs one
INSPECTIONS = ("list", "show", "verify")  # of ssft

USAGE = f"""fieldctr: click-through-rate experiments around the field, with results one can believe

usage: fieldctr COMMAND [--multirun] [KEY=VALUE ...]

{chr(10).join(f"  {name:11}{text}" for name, text in COMMANDS.items())}

  fieldctr train                                    the default model on a synthetic table
  fieldctr train model=fat dataset=kuairand seed=2  another model, table and seed
  fieldctr train enhancer=llactr dataset=kuairand   field names read by a language model
  fieldctr train -m model=lr,fm,fat seed=1,2,3      all combinations, one after the other
  fieldctr train --cfg job                          the configuration of a run, without running it

--config-dir DIR adds your own YAML; trust=PACKAGE lets it name code of that package; --debug shows the traceback behind
an error; --version."""


def main() -> None:
    """The console script. Exit codes: 0 done, 1 what the machine lacks, or a defect, 2 a mistake in the call.

    128 and the number of the signal that stopped it: 143 SIGTERM, 130 SIGINT (Ctrl-C), 129 SIGHUP.
    """
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        with signals.handled():
            run(*take_trust(argument for argument in arguments if argument != "--debug"))
    except signals.Interrupted as stop:
        with contextlib.suppress(OSError):  # of a terminal that was closed
            print(f"fieldctr: {stop.sentence(arguments)}", file=sys.stderr, flush=True)
            sys.stdout.flush()
        os._exit(128 + stop.signum)  # no library may hold the process at its exit, or crash there
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone (| head): no complaint
    except UserError as error:
        if debug:
            raise
        fail(str(error), 2)
    except OSError as error:
        if debug:
            raise
        fail(sentence(error), 1)
    except MemoryError as error:
        if debug:
            raise
        fail(
            f"the memory is full{f': {error}' if str(error) else ''}. Give the process more, or other processes less", 1
        )


def run(command: str = "--help", *arguments: str) -> None:
    """Dispatch one call."""
    if command in ("--help", "-h", "help"):
        print(USAGE)
    elif command == "--version":
        print(importlib.import_module("fieldctr").__version__)
    elif command not in COMMANDS:
        raise UserError(unknown("command", command, tuple(COMMANDS)))
    elif command == "ssft" and arguments[:1] and arguments[0] in INSPECTIONS:
        importlib.import_module("fieldctr.commands.ssft_cache").main(*arguments)
    elif command in HYDRA:
        _hydra(command, arguments)
    else:
        importlib.import_module(f"fieldctr.commands.{command}").main(*arguments)


def _hydra(command: str, arguments: tuple[str, ...]) -> None:
    word = arguments[0] if arguments and "=" not in arguments[0] and not arguments[0].startswith("-") else ""
    if command in PARTS and (word or command == "bench"):
        if word not in PARTS[command]:
            raise UserError(unknown(f"part of {command}", word, PARTS[command]))
        command, arguments = f"{command}_{word}", arguments[1:]
    if command == "predict":
        arguments = tuple("json=true" if argument == "--json" else argument for argument in arguments)
    importlib.import_module("fieldctr.commands.launch").launch(command, arguments)


def unknown(kind: str, word: str, known: tuple[str, ...]) -> str:
    """The message for a word that is not among the known ones."""
    from fieldctr.config import nearest  # costs 20 ms, and only a mistake needs it

    return f"no {kind} '{word}'. {nearest(word, known)}All: {', '.join(known)}"


def fail(text: str, code: int) -> NoReturn:
    print(f"fieldctr: {text}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
