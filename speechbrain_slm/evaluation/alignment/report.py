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
_RETRIEVAL = {
    name: NUMBER
    for name in ("p1_forward", "p1_backward", "mexa")
    for name in (name, f"{name}_low", f"{name}_high")
}
_MEASURES = (
    *("cosine", "cosine_low", "cosine_high", "mismatched"),
    *("margin", "margin_low", "margin_high", "cka", "cka_mismatched"),
)
_SHAPE: dict = {
    "level": TEXT,
    "gallery": whole(2),
    "languages": [
        {
            **{"languages": [TEXT], "texts_known": FLAG, "voices": [TEXT]},
            **dict.fromkeys(("items", "paired", "left_out"), COUNT),
            **dict.fromkeys(("ambiguous", "shortened?"), COUNT),
        }
    ],
    "records": [
        {
            **dict.fromkeys(
                ("source_language", "target_language", "voice", "pooling"), TEXT
            ),
            "layer": COUNT,
            "n": COUNT,
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
    (first, expected), *others = runs.items()
    for name, results in others:
        lines = difference(
            {key: expected.get(key) for key in COMPARABLE},
            {key: results.get(key) for key in COMPARABLE},
        )
        if lines:
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
        f"({', '.join(summary['voices'])} voice)"
    )
    why = {k: text for k, text in _REASONS.items() if summary.get(k)}
    reasons = [f"{summary[key]} {text}" for key, text in why.items()]
    if not reasons:
        return f"{line}; none is left out"
    reasons[0] = reasons[0].replace(" ", " are left out ", 1)
    return f"{line}; {', '.join(reasons)}"


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
    asked = None if languages is None else list(languages)
    summaries = [
        s for s in first["languages"] if asked in (None, s["languages"])
    ]
    # A pair that there is not: select names those that there are.
    pairs = [one["languages"] for one in summaries] or [asked]
    chosen = [
        (number, record["voice"], record["layer"], place, name, record)
        for number, pair in enumerate(pairs)
        for place, (name, results) in enumerate(runs.items())
        for record in select(results, pair)
        if record["pooling"] == pooling
    ]
    if not chosen:
        raise ValueError(f"no records of pooling '{pooling}'")
    for number, *_, name, record in sorted(chosen, key=lambda row: row[:4]):
        pair = summaries[number]["languages"]
        lines.append(_row(" to ".join(pair), name, record))
    lines += ["", *(pairs_line(one, first["level"]) for one in summaries)]
    return "\n".join(lines)


def _row(languages: str, name: str, record: dict) -> str:
    values = {**record["retrieval_matched"], **record, "name": name}
    return markdown_row([languages, *(c.format(**values) for c in _CELLS)])


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
