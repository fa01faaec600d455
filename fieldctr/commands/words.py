"""The words of the command line: what can stand behind `fieldctr`. Importing them costs nothing."""

COMMANDS = {
    "prepare": "turn a raw table into id matrices and say what became of every row",
    "lint": "say what is wrong with a table before a model hides it",
    "baseline": "fit what a model must beat and what it cannot reach: floors and ceilings of a table",
    "train": "fit a model, evaluate it, leave a run folder that can be traced",
    "search": "search settings of one model on validation; `train` then takes them",
    "study": "search, train seeds, compare and report: from a question to a table (study status: how far it is)",
    "ssft": "tune a language model on the field names (ssft list | show | verify: what is there)",
    "evaluate": "compute the metrics of a finished run's model on a split",
    "parity": "check a public benchmark against what was published of it: files, vocabularies, counts, losses, AUC",
    "compare": "say which arm is better, by how much and how surely, over seeds and over test rows",
    "scaling": "fit scaling laws to finished runs (scaling bound: the capacity term of a table)",
    "report": "compare finished runs, and leave a page, tables and pictures",
    "sync": "make the W&B runs of finished runs anew from their folders",
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
    "search",
    "study",
    "evaluate",
    "parity",
    "compare",
    "scaling",
    "report",
    "sync",
    "predict",
    "verify",
    "clean",
    "bench",
)
PARTS = {
    "bench": ("data", "train"),
    "scaling": ("bound",),
    "study": ("status",),
}  # words that may follow a command; bench needs one
INSPECTIONS = ("list", "show", "verify")  # of ssft
