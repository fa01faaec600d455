"""A comparison as Markdown, CSV and LaTeX (booktabs).

The files hold what the runs' numbers say and no measured second, so that the same runs made twice give the same bytes.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fieldctr.analysis.comparison.effects import METRICS
from fieldctr.analysis.comparison.sentences import decimals, percent, spelled_p
from fieldctr.analysis.scaling.report import Rows, as_csv, table
from fieldctr.data.describe import grid
from fieldctr.disk import in_json

Grid = tuple[Sequence[str], Sequence[Sequence[object]]]  # head and lines
ESCAPES = {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}"},
}
MARKUP = re.compile(r"<(?=[A-Za-z/!?])|&(?=#?\w+;)|\|")  # what Markdown takes for a tag, a sign, the end of a cell
PLAIN = {"<": "&lt;", "&": "&amp;", "|": r"\|"}


def heading(found: Mapping[str, Any]) -> str:
    """'coupon, test, against lr'."""
    within = "".join(f", {key} {value}" for key, value in found["within"].items())
    arms = f"arms by {', '.join(found['by'])}, against {found['against']}"
    return f"{found['dataset']}{within}, {found['split']}: {arms}"


def files_of(comparisons: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The text of each file that a comparison is left as."""
    return {
        "comparison.md": markdown(comparisons),
        "comparison.csv": as_csv(csv_rows(comparisons)),
        "comparison.tex": latex(comparisons),
        "comparison.json": in_json({"comparisons": list(comparisons)}),
    }


def markdown(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """The page: sentences, notes, the table of arms, the differences, slices."""
    return "\n\n".join(part for found in comparisons for part in _page(_as_text(found))) + "\n"


def _as_text(value: Any) -> Any:
    """The same values, in whose texts Markdown finds no tag and no end of a cell or a line."""
    if isinstance(value, str):
        return MARKUP.sub(lambda sign: PLAIN[sign[0]], " ".join(value.split()))
    if isinstance(value, Mapping):
        return {key: _as_text(own) for key, own in value.items()}
    return [_as_text(own) for own in value] if isinstance(value, list | tuple) else value


def _page(found: Mapping[str, Any]) -> list[str]:
    parts = [f"# {heading(found)}"]
    parts += [f"**{note}**" for note in grave(found)]
    parts.append("\n".join(f"- {one['sentence']}" for one in found["differences"]))
    if others := [f"- {note}" for note in found["notes"] if note not in grave(found)]:
        parts.append("\n".join(["What to know before believing it:", "", *others]))
    parts += ["## Arms", table(*arm_table(found, strong="**", measured=False))]
    parts += ["## Not told apart", "\n".join(group_lines(found))]
    parts += ["## Differences", table(*difference_table(found["differences"], found["level"])), how_to_read(found)]
    for one in found.get("slices", ()):
        parts += [f"## By {one['field']} (exploratory)", table(*slice_table(one, strong="**")), one["note"]]
    return parts


def arm_table(found: Mapping[str, Any], *, strong: str, measured: bool) -> Grid:
    """One line an arm, the best first; differences are those of the first metric, marked where they are sure.

    `measured` shows the seconds of a fit as well.
    """
    metrics, lead = found["metrics"], found["metrics"][0]
    gaps = {one["arm"]: one for one in found["differences"] if one["metric"] == lead}
    head = ["arm", f"{METRICS[lead].name} ± sd", f"minus {found['against']}", "p (Holm)", "RelaImpr"]
    head += [METRICS[metric].name for metric in metrics[1:]]
    head += ["valid AUC", "dense", "embedding", *(["seconds"] if measured else []), "seeds", "settings"]
    lines = []
    for arm in found["arms"]:
        gap = gaps.get(arm["name"])
        lines.append(
            [
                arm["name"],
                _spread(arm["metrics"][lead]),
                _gap(gap, strong) if gap else "-",
                spelled_p(gap["p_holm"]).removeprefix("p ").removeprefix("= ") if gap else "-",
                f"{arm['rela_impr']:+.1%}" if gap and arm["rela_impr"] is not None else "-",
                *(f"{arm['metrics'][metric]['mean']:.4f}" for metric in metrics[1:]),
                f"{arm['valid_auc']:.4f}",
                *(f"{arm['parameters'][key]:,}" if arm["parameters"] else "-" for key in ("dense", "embedding")),
                *([f"{arm['seconds']:.1f}"] if measured else []),
                len(arm["seeds"]),
                arm["settings"],
            ]
        )
    return head, lines


def difference_table(differences: Sequence[Mapping[str, Any]], level: float) -> Grid:
    """One line for each metric and pair."""
    head = ["metric", "arm", "difference", f"{percent(level)} interval", "p", "p (Holm)", "error of rows", "of seeds"]
    head += ["detectable", "no larger than", "verdict"]
    lines = []
    for one in differences:
        digits = decimals(one)
        seeds = one["error_seeds"]
        lines.append(
            [
                METRICS[one["metric"]].name,
                one["arm"],
                f"{one['difference']:+.{digits}f}",
                f"{one['low']:+.{digits}f} to {one['high']:+.{digits}f}",
                *(spelled_p(one[key]).removeprefix("p ").removeprefix("= ") for key in ("p", "p_holm")),
                f"{one['error_rows']:.{digits}f}",
                "-" if seeds is None else f"{seeds:.{digits}f}",
                f"{one['detectable']:.{digits}f}",
                f"{one['equivalence']:.{digits}f}",
                one["verdict"],
            ]
        )
    return head, lines


def group_lines(found: Mapping[str, Any]) -> list[str]:
    """'AUC: fat, deepfm | fm | lr', the best first."""
    return [
        f"- {METRICS[metric].name}: {' > '.join(', '.join(group) for group in grouped)}"
        for metric, grouped in found["groups"].items()
    ]


def how_to_read(found: Mapping[str, Any]) -> str:
    """What the columns mean."""
    return (
        f"Differences are arm minus {found['against']}, over the seeds that both have. Their intervals answer for "
        "another test sample and another seed: the errors of rows (clustered where rows have a user or a day) and of "
        "seeds (paired) are added. p is adjusted by Holm over the arms, within each metric; intervals are not. "
        "Detectable: the smallest true difference found with 80 % power. No larger than: the bound that two one-sided "
        f"tests hold (equivalence, {percent(found['level'])}). Groups: arms that are not told apart from the group's "
        "best."
    )


def slice_table(one: Mapping[str, Any], *, strong: str) -> Grid:
    """One line a slice, in the first metric."""
    lines = []
    for part in one["parts"]:
        for gap in part["differences"]:
            if gap["metric"] == one["metric"]:
                sd = [part["value"], f"{part['num_rows']:,}", f"{part['positive_rate']:.1%}", gap["arm"]]
                p = spelled_p(gap["p_holm"]).removeprefix("p ").removeprefix("= ")
                lines.append([*sd, f"{part['reference'][one['metric']]:.4f}", _gap(gap, strong), p])
    metric = METRICS[one["metric"]].name
    head = [one["field"], "rows", "clicks", "arm", f"{metric} of {one['against']}", "difference", "p (Holm)"]
    return head, lines


def csv_rows(comparisons: Sequence[Mapping[str, Any]]) -> Rows:
    """One row for each comparison, slice, metric and arm."""
    rows: Rows = []
    for found in comparisons:
        shared = {"dataset": found["dataset"], "within": _conditions(found), "split": found["split"]}
        for metric in found["metrics"]:
            gaps = {one["arm"]: one for one in found["differences"] if one["metric"] == metric}
            for arm in found["arms"]:
                own = arm["metrics"][metric]
                row = {**shared, "field": "", "value": "", "metric": metric, "arm": arm["name"]}
                row |= {"mean": own["mean"], "sd": own["sd"], "seeds": len(arm["seeds"]), "settings": arm["settings"]}
                rows.append(row | _numbers(gaps.get(arm["name"])))
        for one in found.get("slices", ()):
            for part in one["parts"]:
                for gap in part["differences"]:
                    row = {**shared, "field": one["field"], "value": part["value"], "metric": gap["metric"]}
                    rows.append(row | {"arm": gap["arm"]} | _numbers(gap))
    return rows


def latex(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """A booktabs table for each comparison; bold where an arm is better than the reference."""
    return "\n\n".join(_tabular(found) for found in comparisons) + "\n"


def _tabular(found: Mapping[str, Any]) -> str:
    metrics, lead = found["metrics"], found["metrics"][0]
    gaps = {(one["metric"], one["arm"]): one for one in found["differences"]}
    head = ["Arm", *(METRICS[metric].name for metric in metrics), rf"$\Delta$ {METRICS[lead].name}"]
    lines = []
    for arm in found["arms"]:
        cells = [tex(arm["name"])]
        for metric in metrics:
            own, gap = arm["metrics"][metric], gaps.get((metric, arm["name"]))
            text = f"{own['mean']:.4f}" + ("" if own["sd"] is None else rf" $\pm$ {own['sd']:.4f}")
            cells.append(rf"\textbf{{{text}}}" if gap and gap["verdict"] == "better" else text)
        gap = gaps.get((lead, arm["name"]))
        digits = decimals(gap) if gap else 0
        low_high = f"[{gap['low']:+.{digits}f}, {gap['high']:+.{digits}f}]" if gap else ""
        cells.append(f"${gap['difference']:+.{digits}f}$ ${low_high}$" if gap else "--")
        lines.append(" & ".join(cells) + r" \\")
    body = [r"\toprule", " & ".join(head) + r" \\", r"\midrule", *lines, r"\bottomrule"]
    comment = f"% {heading(found)}".replace("\n", " ")
    return "\n".join([comment, rf"\begin{{tabular}}{{l{'r' * len(metrics)}r}}", *body, r"\end{tabular}"])


def tex(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return re.sub(r"[\\&%$#_{}~^<>]", lambda found: ESCAPES.get(found[0], f"\\{found[0]}"), text)


def _numbers(gap: Mapping[str, Any] | None) -> dict[str, Any]:
    left_out = ("metric", "arm", "sentence")
    return {key: value for key, value in (gap or {}).items() if key not in left_out}


def _conditions(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in found["within"].items())


def _spread(own: Mapping[str, Any]) -> str:
    return f"{own['mean']:.4f}" + ("" if own["sd"] is None else f" ± {own['sd']:.4f}")


def _gap(gap: Mapping[str, Any], strong: str) -> str:
    digits = decimals(gap)
    text = f"{gap['difference']:+.{digits}f} [{gap['low']:+.{digits}f}, {gap['high']:+.{digits}f}]"
    return f"{strong}{text}{strong}" if gap["verdict"] in ("better", "worse") else text


def terminal(found: Mapping[str, Any]) -> str:
    """What a person reads first: sentences, notes, the table of arms."""
    lines = [heading(found), *grave(found), *(f"- {one['sentence']}" for one in found["differences"])]
    lines += ["", _grid(arm_table(found, strong="", measured=True)), "", *group_lines(found)]
    for one in found.get("slices", ()):
        lines += ["", f"By {one['field']} (exploratory):", _grid(slice_table(one, strong=""))]
    return "\n".join([*lines, "", *(f"note: {note}" for note in found["notes"] if note not in grave(found))])


def _grid(content: Grid) -> str:
    head, lines = content
    return grid([head, *([str(cell) for cell in line] for line in lines)])


def grave(found: Mapping[str, Any]) -> list[str]:
    """The notes that come before any number."""
    return [note for note in found["notes"] if note.startswith("UNEQUAL")]
