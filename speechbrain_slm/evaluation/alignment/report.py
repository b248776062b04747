"""The alignment of runs, read and laid out as a table."""

from collections.abc import Sequence
from pathlib import Path

from speechbrain_slm.evaluation.inputs import read_report
from speechbrain_slm.utils.hashing import difference
from speechbrain_slm.utils.schema import COUNT, FLAG, NUMBER, TEXT, whole
from speechbrain_slm.utils.tables import markdown_row

FORMAT = "speechbrain_slm.alignment"
VERSION = 1
ALIGNMENT_JSON = "alignment.json"
# Runs that differ in one of these do not belong in one table or figure.
COMPARABLE = (
    *("tokenizer", "units", "pairs", "level"),
    *("max_retrieval", "gallery", "seed"),
)
_RATES = ("p1_forward", "p1_backward", "mexa")
_ENDS = ("", "_low", "_high")
_MEASURES = [f"{m}{end}" for m in ("cosine", "margin") for end in _ENDS]
_MEASURES += ["mismatched", "cka", "cka_mismatched"]
_NAMES = ("source_language", "target_language", "voice", "pooling")
_COUNTS = ("items", "paired", "left_out", "ambiguous", "shortened?")
_RETRIEVAL = {f"{rate}{end}": NUMBER for rate in _RATES for end in _ENDS}
_SHAPE: dict = {
    "level": TEXT,
    "gallery": whole(2),
    "languages": [
        {
            **{"languages": [TEXT], "texts_known": FLAG, "voices": [TEXT]},
            **dict.fromkeys(_COUNTS, COUNT),
        }
    ],
    "records": [
        {
            **dict.fromkeys(_NAMES, TEXT),
            **dict.fromkeys(("layer", "n"), COUNT),
            **dict.fromkeys(_MEASURES, NUMBER),
            "retrieval_matched": {**_RETRIEVAL, "chance": NUMBER},
        }
    ],
}
# Of a row of a table, behind its languages.
_CELLS = (
    *("{voice}", "{layer}", "{name}", "{n}", "{cosine:.3f}"),
    *("{mismatched:.3f}", "{margin:.3f} [{margin_low:.3f}, {margin_high:.3f}]"),
    *("{p1_forward:.2f}, {p1_backward:.2f}", "{chance:.2f}", "{mexa:.2f}"),
    *("{cka:.2f}", "{cka_mismatched:.2f}"),
)
_REASONS = {
    "left_out": "because not every voice says them",
    "ambiguous": "because a text has another translation, too",
    "shortened": "whole stories because they lack sentences",
}


def read_alignment(folder: str | Path) -> dict:
    """Return the content of ``alignment.json`` in a recipe's folder."""
    path = Path(folder) / ALIGNMENT_JSON
    results = read_report(path, FORMAT, VERSION, _SHAPE, "alignment")
    pairs = [pair["languages"] for pair in results["languages"]]
    if not results["records"] or any(len(pair) != 2 for pair in pairs):
        raise ValueError(
            f"{path} has {len(results['records'])} records of {pairs}; "
            "expected one or more, of pairs of languages. Evaluate again."
        )
    return results


def check_comparable(runs: dict[str, dict]) -> None:
    """Refuse runs (name -> content) not measured on the same pairs."""
    what = [{key: run.get(key) for key in COMPARABLE} for run in runs.values()]
    first, *others = runs
    for name, found in zip(others, what[1:], strict=True):
        if lines := difference(what[0], found):
            raise ValueError(
                f"{name} cannot stand beside {first}: {'; '.join(lines)}. "
                "Evaluate both on the same units, pairs and settings."
            )


def pairs_line(summary: dict, level: str) -> str:
    """Say how much of a store two languages are compared on.

    Example
    -------
    >>> pairs_line({"languages": ["en", "fr"], "items": 9, "paired": 4,
    ...     "voices": ["same", "different"], "left_out": 5, "ambiguous": 1,
    ...     "shortened": 0}, "story")
    'en and fr: 4 of 9 parallel stories are paired (same, different voice); 5 \
are left out because not every voice says them, 1 because a text has another \
translation, too'
    """
    what = {"sentence": "sentences", "story": "stories"}.get(level, level)
    line = (
        f"{' and '.join(summary['languages'])}: {summary['paired']} of "
        f"{summary['items']} parallel {what} are paired "
        f"({', '.join(summary['voices'])} voice); "
    )
    why = {k: text for k, text in _REASONS.items() if summary.get(k)}
    reasons = [f"{summary[key]} {text}" for key, text in why.items()]
    told = ", ".join(reasons).replace(" ", " are left out ", 1)
    return line + (told or "none is left out")


def alignment_table(
    runs: dict[str, dict], pooling: str, languages: Sequence[str] | None = None
) -> str:
    """Lay out the alignment of runs in Markdown, layer by layer.

    P@1, its chance and MEXA are those of the matched galleries. Below the
    table, a line a pair of languages: see :func:`pairs_line`.

    Arguments
    ---------
    runs : Name -> content of ``alignment.json``.
    languages : Source and target; by default every pair that was evaluated.
    """
    check_comparable(runs)
    lines = [
        "| languages | voice | layer | run | n | cosine | mismatched "
        "| margin [95 %] | P@1 to, from | chance | MEXA | CKA "
        "| CKA mismatched |",
        "| --- " * 13 + "|",
    ]
    first = next(iter(runs.values()))
    pairs = [summary["languages"] for summary in first["languages"]]
    pairs = pairs if languages is None else [list(languages)]
    for pair in pairs:
        rows = [
            (record["voice"], record["layer"], place, name, record)
            for place, (name, results) in enumerate(runs.items())
            for record in select(results, pair)
            if record["pooling"] == pooling
        ]
        if not rows:
            raise ValueError(f"no records of pooling '{pooling}'")
        for *_, name, record in sorted(rows, key=lambda row: row[:3]):
            values = {**record["retrieval_matched"], **record, "name": name}
            cells = [cell.format(**values) for cell in _CELLS]
            lines.append(markdown_row([" to ".join(pair), *cells]))
    told = [one for one in first["languages"] if one["languages"] in pairs]
    lines += ["", *(pairs_line(one, first["level"]) for one in told)]
    return "\n".join(lines)


def select(results: dict, languages: Sequence[str] | None = None) -> list[dict]:
    """Return the records of a pair of languages; by default the first."""
    pairs = [summary["languages"] for summary in results["languages"]]
    pair = list(languages or pairs[0])
    chosen = [
        record
        for record in results["records"]
        if [record["source_language"], record["target_language"]] == pair
    ]
    if not chosen:
        raise ValueError(
            f"no records of {' and '.join(pair)}; there are "
            + ", ".join(map(" and ".join, pairs))
        )
    return chosen
