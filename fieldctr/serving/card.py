"""What a bundle says of itself: card.json for programs, README.md for people."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fieldctr.artifacts import file_digest
from fieldctr.disk import in_json
from fieldctr.serving.graph import FILES

CARD, README = "card.json", "README.md"
EXAMPLES = 3  # columns that an example names
OF_TORCH = ("numpy", "torch")
PACKAGES = {"pt2": OF_TORCH, "aoti": OF_TORCH, "onnx": ("numpy", "onnxruntime")}  # by format what scoring needs
PAGE = """# {model} on {dataset}, seed {seed}

Raw rows go in, click probabilities come out. Needs Python 3.11 or newer with {needs}; fieldctr is not needed.

    python scorer.py rows.csv      # or rows.jsonl: a pCTR per row, called in this folder

    import sys; sys.path.insert(0, "PATH OF THIS FOLDER")
    from scorer import Scorer
    Scorer().pctr([{example}])

A row has these columns, as `fieldctr predict` takes them: {columns}. Null or blank is missing, and a value that
train never saw has id 0. Columns that the run's source joins or makes (`dataset.source`) must be there: the bundle
has no side tables. What cannot be scored, such as a row without a column or a text where a number is expected, raises
ValueError with a sentence.
{history}{compiled}
## Measured

{measured}

`bundle.json` has the vocabularies and, by field, the rules that make values of cells: each is a pattern and what is put
in the place of what it finds. `arrays.npz` has scales and what statistics and histories look up, `{graph}` the folded
model. `card.json` has the sha256 of each file.

## By HTTP

An example, not a server for production: no queue, no batching, no limit.

    import json
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from scorer import Scorer

    scorer = Scorer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                status, answer = 200, scorer.pctr(rows).tolist()
            except ValueError as error:
                status, answer = 400, {{"error": str(error)}}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

    HTTPServer(("127.0.0.1", 8000), Handler).serve_forever()

    curl -d '[{json_example}]' http://127.0.0.1:8000
"""
HISTORY = """
Histories end with the events of the prepared table: what a user did since is not in the bundle.
"""
COMPILED = """
The model is compiled for processors like that of the export ({processor}): for others, export again there.
"""


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write both into a bundle whose other files are there."""
    (folder / README).write_text(page(card), encoding="utf-8")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    (folder / CARD).write_text(in_json({**card, "files": {name: file_digest(folder / name) for name in names}}))


def needs(kind: str) -> dict[str, str]:
    """The packages that scoring needs, in the versions of this process."""
    return {name: version(name) for name in PACKAGES[kind]}


def page(card: Mapping[str, Any]) -> str:
    """README.md of a bundle."""
    shown, more = card["columns"][:EXAMPLES], len(card["columns"]) > EXAMPLES
    example = ", ".join([f'"{column}": ...' for column in shown] + ["..."] * more)
    return PAGE.format(
        **{key: card[key] for key in ("model", "dataset", "seed", "format")},
        needs=" and ".join(f"{name} {number}" for name, number in card["needs"].items()),
        columns=", ".join(f"`{column}`" for column in card["columns"]),
        example="{" + example + "}",
        json_example="{" + example + "}",
        graph=FILES[card["format"]],
        history=HISTORY if card["histories"] else "",
        compiled=COMPILED.format(processor=card["compiled_for"]) if card["compiled_for"] else "",
        measured="\n".join(f"- {line}" for line in in_words(card)),
    )


def in_words(card: Mapping[str, Any]) -> list[str]:
    """What was measured, a sentence each."""
    gap, metrics, small = card["parity"], card["metrics"], card["int8"]
    lines = [
        f"largest difference of pCTR from `fieldctr predict` on {gap['rows']:,} rows of valid: {gap['largest']:.1e}, "
        f"{gap['limit']:.0e} is allowed"
    ]
    lines += [f"{split} AUC {own['auc']:.6f} when the run ended" for split, own in metrics.items()]
    if small:
        lines.append(
            f"tables of 8 bits: {small['table_bytes_before']:,} bytes became {small['table_bytes']:,}; valid AUC "
            f"{small['valid_auc_before']:.6f} became {small['valid_auc']:.6f}, a loss of {small['loss_of_auc']:z.6f}"
        )
    return lines
