"""`fieldctr COMMAND ...`: find the command, import it, turn what goes wrong into a sentence.

Nothing heavy is imported before the command is known, so that `fieldctr --help` and completion answer at once.
"""

import contextlib
import importlib
import os
import sys
from typing import NoReturn

from fieldctr import signals
from fieldctr.commands.words import COMMANDS, HYDRA, INSPECTIONS, PARTS
from fieldctr.disk import sentence
from fieldctr.errors import UserError, unknown
from fieldctr.launched import LostRankError, launched, refuse_many
from fieldctr.trust import take_trust

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
            if not launched().rank:  # all stop together
                print(f"fieldctr: {stop.sentence(arguments)}", file=sys.stderr, flush=True)
            sys.stdout.flush()
        os._exit(128 + stop.signum)  # no library may hold the process at its exit, or crash there
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone (| head): no complaint
    except UserError as error:
        if debug:
            raise
        fail(str(error), 2, alike=True)
    except OSError as error:
        if debug:
            raise
        fail(sentence(error), 1, alike=isinstance(error, LostRankError))
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
    elif command in HYDRA and {"--help", "-h"} & {*arguments} and not {*arguments[:1]} & {*INSPECTIONS}:
        _help(command, arguments)
    elif command == "ssft" and arguments[:1] and arguments[0] in INSPECTIONS:
        importlib.import_module("fieldctr.commands.ssft_cache").main(*arguments)
    elif command == "train":
        _hydra(command, arguments)
    elif command in HYDRA:
        refuse_many(f"fieldctr {command}")
        _hydra(command, arguments)
    else:
        refuse_many(f"fieldctr {command}")
        importlib.import_module(f"fieldctr.commands.{command}").main(*arguments)


def _help(command: str, arguments: tuple[str, ...]) -> None:
    """The help of a command of the configuration, without Hydra."""
    pages = importlib.import_module("fieldctr.commands.help")
    part = next((word for word in arguments if word in PARTS.get(command, ())), "")
    if command == "bench" and not part:
        pages.parts(command)
    else:
        pages.main(f"{command}_{part}" if part else command, *(word for word in arguments if word != part))


def _hydra(command: str, arguments: tuple[str, ...]) -> None:
    word = arguments[0] if arguments and "=" not in arguments[0] and not arguments[0].startswith("-") else ""
    if command in PARTS and (word or command == "bench"):
        if not word:
            raise UserError(
                f"{command} takes one of its parts, as in fieldctr {command} train: {', '.join(PARTS[command])}"
            )
        if word not in PARTS[command]:
            raise UserError(unknown(f"part of {command}", word, PARTS[command]))
        command, arguments = f"{command}_{word}", arguments[1:]
    if command == "predict":
        arguments = tuple("json=true" if argument == "--json" else argument for argument in arguments)
    importlib.import_module("fieldctr.commands.launch").launch(command, arguments)


def fail(text: str, code: int, *, alike: bool = False) -> NoReturn:
    """End with a sentence. What is alike in all processes of torchrun, one of each machine says."""
    here = launched()
    if not (alike and here.local_rank):
        print(f"fieldctr: {f'rank {here.rank}: ' if here.rank else ''}{text}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
