"""The alignment of runs as a table; ``alignment_figure`` draws it."""

from collections.abc import Sequence
from pathlib import Path

from speechbrain_slm.utils.hashing import difference
from speechbrain_slm.utils.schema import (
    COUNT,
    FLAG,
    MAPPING,
    NUMBER,
    TEXT,
    check_shape,
    read_shaped,
    whole,
)
from speechbrain_slm.utils.tables import markdown_row

FORMAT = "speechbrain_slm.alignment"
VERSION = 1
ALIGNMENT_JSON = "alignment.json"
# Runs that differ in one of these do not belong in one table or figure.
COMPARABLE = (
    "tokenizer",
    "units",
    "pairs",
    "level",
    "max_retrieval",
    "gallery",
    "seed",
)
_RETRIEVAL = {
    name: NUMBER
    for name in ("p1_forward", "p1_backward", "mexa")
    for name in (name, f"{name}_low", f"{name}_high")
}
_SHAPE = {
    "level": TEXT,
    "gallery": whole(2),
    "languages": [
        {
            "languages": [TEXT],
            "texts_known": FLAG,
            "items": COUNT,
            "paired": COUNT,
            "voices": [TEXT],
            "left_out": COUNT,
            "ambiguous": COUNT,
            "shortened?": COUNT,
        }
    ],
    "records": [
        {
            **dict.fromkeys(
                ("source_language", "target_language", "voice", "pooling"), TEXT
            ),
            "layer": COUNT,
            "n": COUNT,
            **dict.fromkeys(
                (
                    *("cosine", "cosine_low", "cosine_high", "mismatched"),
                    *("margin", "margin_low", "margin_high"),
                    *("cka", "cka_mismatched"),
                ),
                NUMBER,
            ),
            "retrieval_matched": {**_RETRIEVAL, "chance": NUMBER},
        }
    ],
}


def read_alignment(folder: str | Path) -> dict:
    """Read the results of one evaluation.

    Arguments
    ---------
    folder : The output folder of the alignment recipe.

    Returns
    -------
    The content of ``alignment.json``.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    ValueError
        If it is damaged, or of another format, version or shape.
    """
    path = Path(folder) / ALIGNMENT_JSON
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; run the alignment recipe to its end first"
        )
    results = read_shaped(path, MAPPING)
    found = (results.get("format"), results.get("version"))
    if found != (FORMAT, VERSION):
        raise ValueError(
            f"{path}: format and version are {found}, expected "
            f"{(FORMAT, VERSION)}; evaluate again"
        )
    check_shape(results, _SHAPE, path)
    if not results["records"] or any(
        len(pair["languages"]) != 2 for pair in results["languages"]
    ):
        raise ValueError(
            f"{path} has {len(results['records'])} records of "
            f"{[pair['languages'] for pair in results['languages']]}; expected "
            "one or more, of pairs of languages. Evaluate again."
        )
    return results


def check_comparable(runs: dict) -> None:
    """Refuse runs that were not measured on the same pairs.

    Arguments
    ---------
    runs : Name -> content of ``alignment.json``.

    Raises
    ------
    ValueError
        Names the first run that differs from the first of all, and how.
    """
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

    Arguments
    ---------
    summary : Of :func:`parallel_pairs`.
    level : ``sentence`` or ``story``.

    Returns
    -------
    What was found, paired and left out, and why.

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
    reasons = [
        f"{summary.get(key, 0)} {why}"
        for key, why in (
            ("left_out", "because not every voice says them"),
            (
                "ambiguous",
                "because a text has another translation, too",
            ),
            (
                "shortened",
                "whole stories because they lack sentences",
            ),
        )
        if summary.get(key)
    ]
    if not reasons:
        return f"{line}; none is left out"
    return f"{line}; {reasons[0].replace(' ', ' are left out ', 1)}" + "".join(
        f", {reason}" for reason in reasons[1:]
    )


def alignment_table(
    runs: dict, pooling: str, languages: Sequence[str] | None = None
) -> str:
    """Lay out the alignment of runs in Markdown, layer by layer.

    Arguments
    ---------
    runs : Name -> content of ``alignment.json``.
    languages : Source and target; by default every pair that was evaluated.

    Returns
    -------
    P@1, its chance and MEXA are those of the matched galleries. Below the
    table, a line a pair of languages: see :func:`pairs_line`.

    Raises
    ------
    ValueError
        If the runs were not measured on the same pairs, or not with this
        pooling and these languages.
    """
    check_comparable(runs)
    lines = [
        "| languages | voice | layer | run | n | cosine | mismatched "
        "| margin [95 %] | P@1 to, from | chance | MEXA | CKA "
        "| CKA mismatched |",
        "| --- " * 13 + "|",
    ]
    first = next(iter(runs.values()))
    summaries = [
        summary
        for summary in first["languages"]
        if languages is None or summary["languages"] == list(languages)
    ]
    pairs = [summary["languages"] for summary in summaries]
    chosen = {
        (number, record["voice"], record["layer"], name): record
        for number, pair in enumerate(pairs or [languages])
        for name, results in runs.items()
        for record in select(results, pair)
        if record["pooling"] == pooling
    }
    if not chosen:
        raise ValueError(f"no records of pooling '{pooling}'")
    order = list(runs)
    for number, voice, layer, name in sorted(
        chosen, key=lambda key: (*key[:3], order.index(key[3]))
    ):
        record = chosen[number, voice, layer, name]
        found = record["retrieval_matched"]
        cells = (
            " to ".join(pairs[number]),
            voice,
            str(layer),
            name,
            str(record["n"]),
            f"{record['cosine']:.3f}",
            f"{record['mismatched']:.3f}",
            f"{record['margin']:.3f} [{record['margin_low']:.3f}, "
            f"{record['margin_high']:.3f}]",
            f"{found['p1_forward']:.2f}, {found['p1_backward']:.2f}",
            f"{found['chance']:.2f}",
            f"{found['mexa']:.2f}",
            f"{record['cka']:.2f}",
            f"{record['cka_mismatched']:.2f}",
        )
        lines.append(markdown_row(cells))
    lines += ["", *(pairs_line(one, first["level"]) for one in summaries)]
    return "\n".join(lines)


def select(results: dict, languages: Sequence[str] | None = None) -> list[dict]:
    """Return the records of a pair of languages.

    Arguments
    ---------
    results : The content of ``alignment.json``.
    languages : Source and target; by default the first two.

    Raises
    ------
    ValueError
        If there is none: names the pairs that there are.
    """
    pair = list(languages or results["languages"][0]["languages"])
    chosen = [
        record
        for record in results["records"]
        if [record["source_language"], record["target_language"]] == pair
    ]
    if not chosen:
        raise ValueError(
            f"no records of {' and '.join(pair)}; there are "
            + ", ".join(
                " and ".join(summary["languages"])
                for summary in results["languages"]
            )
        )
    return chosen
