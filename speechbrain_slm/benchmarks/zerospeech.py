"""sWUGGY and sBLIMP in the layout of the ZeroSpeech challenge 2021.

``lexical/{dev,test}`` (sWUGGY) and ``syntactic/{dev,test}`` (sBLIMP) each hold
WAV files and a ``gold.csv``; its columns, and how a score is made of them, are
those of ``lexical.py`` and ``syntactic.py`` in
https://github.com/zerospeech/zerospeech2021:

- sWUGGY: ``id, filename, voice, frequency, word, phones, length, correct``. A
  word is compared with the non-word of its ``id`` and ``voice``; the voices
  of an ``id`` are averaged first. ``frequency`` counts the word in
  LibriSpeech; the published *in-vocabulary* score leaves out the words of
  frequency 0.
- sBLIMP: ``id, filename, voice, type, subtype, transcription, correct``. The
  voices of a (``type``, ``subtype``, ``id``) are averaged first; ``type`` is
  the phenomenon.

The official code pairs the sentences of sBLIMP by their order in the file, and
drops a word that has no non-word of its voice. Here both are paired by their
keys, and what has no partner is an error.
"""

import math
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from speechbrain_slm.benchmarks.spoken_items import Clip, Item
from speechbrain_slm.utils.files import as_stored, files_in, nfc
from speechbrain_slm.utils.numbers import check_choice
from speechbrain_slm.utils.tables import read_table

GOLD = "gold.csv"
LANGUAGE = "en"
IN_VOCABULARY = "in-vocabulary"
OUT_OF_VOCABULARY = "out-of-vocabulary"
COLUMNS = ("id", "filename", "voice", "correct")


class _Layout(NamedTuple):
    columns: tuple[str, ...]  # those that a benchmark adds
    pair: tuple[str, ...]  # those that name a pair


LAYOUTS = {
    "sWUGGY": _Layout(("frequency",), ("id",)),
    # The ids of sBLIMP begin anew in each subtype.
    "sBLIMP": _Layout(("type", "subtype"), ("type", "subtype", "id")),
}


def read_zerospeech(
    folder: str | Path, benchmark: str
) -> tuple[list[Clip], list[Item]]:
    """Read a folder of ``gold.csv`` and WAV files.

    The items have no prompt. Their ``group`` is the pair, whose voices count
    once; ``subset`` says for sWUGGY whether the word is ``in-vocabulary`` or
    ``out-of-vocabulary`` (empty where the table has no frequency), and for
    sBLIMP the phenomenon.

    Arguments
    ---------
    folder : ``.../lexical/dev`` or the like.
    benchmark : ``sWUGGY`` or ``sBLIMP``.
    """
    check_choice("benchmark", benchmark, LAYOUTS)
    folder, layout = Path(folder), LAYOUTS[benchmark]
    gold = folder / GOLD
    rows = _read_gold(gold, layout)
    _refuse_surplus(folder, rows)
    clips = []
    # Pair and voice -> right and wrong rows, wherever they stand in the table.
    sides: dict[tuple, dict[str, list[dict]]] = {}
    for row in rows:
        path = as_stored(folder / f"{row['filename']}.wav")
        name = f"{benchmark}.{row['filename']}"
        clips.append(Clip(name, LANGUAGE, row["voice"], path))
        key = (*(row[name] for name in layout.pair), row["voice"])
        sides.setdefault(key, {"1": [], "0": []})[row["correct"]].append(row)
    items = []
    for key, side in sides.items():
        _refuse_single(gold, layout, key, side)
        # As a rule one each; the official score, too, compares each with each.
        items += [
            Item(
                f"{right['filename']}+{wrong['filename']}",
                benchmark,
                *(LANGUAGE, LANGUAGE),
                prompt="",
                right=f"{benchmark}.{right['filename']}",
                wrong=f"{benchmark}.{wrong['filename']}",
                group="/".join(key[:-1]),
                subset=_subset(benchmark, right),
            )
            for right in side["1"]
            for wrong in side["0"]
        ]
    return clips, items


def _read_gold(gold, layout):
    columns = (*COLUMNS, *layout.columns)
    schema = pa.schema([(name, pa.string()) for name in columns])
    advice = "It comes with the WAV files: name their folder, as lexical/dev"
    # Non-words have no frequency.
    empty = ("frequency",)
    table = read_table(gold, schema, ("filename",), empty, advice=advice)
    rows = table.select(columns).to_pylist()
    if not rows:
        raise ValueError(f"{gold} has no row; expected one for each WAV file")
    for number, row in enumerate(rows):
        if row["correct"] not in ("0", "1"):
            raise ValueError(
                f"{gold}, row {number}: correct is '{row['correct']}'; "
                "expected 1 (the right one) or 0 (the wrong one)"
            )
        if row.get("frequency") and not _is_count(row["frequency"]):
            raise ValueError(
                f"{gold}, row {number}: frequency is '{row['frequency']}'; "
                "expected 0 or more, or nothing"
            )
    return rows


def _is_count(text):
    # Pandas writes a column with holes as floats: 12.0.
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and value >= 0


def _refuse_surplus(folder, rows):
    named = {nfc(row["filename"]) for row in rows}
    surplus = [
        path.name
        for path in files_in(folder, "*.wav", deep=False)
        if nfc(path.stem) not in named
    ]
    # Of another split, as a rule, or the table is half of itself.
    if surplus:
        raise ValueError(
            f"{folder}: {surplus[0]} (and {len(surplus) - 1} other WAV "
            f"file(s)) stand in no row of {GOLD}. Unpack the benchmark again, "
            "or remove what is not of it."
        )


def _refuse_single(gold, layout, key, side):
    if side["1"] and side["0"]:
        return
    there, missing = ("right", "wrong") if side["1"] else ("wrong", "right")
    row = (side["1"] or side["0"])[0]
    named = zip((*layout.pair, "voice"), key, strict=True)
    pair = ", ".join(f"{name} '{value}'" for name, value in named)
    raise ValueError(
        f"{gold}: {pair} has a {there} file ({row['filename']}) and no "
        f"{missing} one. Unpack the benchmark again, or remove row and file."
    )


def _subset(benchmark, right):
    if benchmark == "sBLIMP":
        return right["type"]
    # The published in-vocabulary score counts words that LibriSpeech holds;
    # of a word without a frequency nobody knows.
    if not right["frequency"]:
        return ""
    known = float(right["frequency"]) > 0
    return IN_VOCABULARY if known else OUT_OF_VOCABULARY
