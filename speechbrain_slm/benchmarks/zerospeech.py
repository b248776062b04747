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
# Benchmark -> the columns that it adds, and those that name a pair. The ids
# of sBLIMP begin anew in each subtype.
LAYOUTS = {
    "sWUGGY": (("frequency",), ("id",)),
    "sBLIMP": (("type", "subtype"), ("type", "subtype", "id")),
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
    folder, (further, pair) = Path(folder), LAYOUTS[benchmark]
    gold, clips = folder / GOLD, []
    rows = _read_gold(gold, (*COLUMNS, *further))
    _refuse_surplus(folder, rows)
    # Pair and voice -> wrong and right rows, wherever they stand in the table.
    sides: dict[tuple, tuple[list, list]] = {}
    for row in rows:
        path = as_stored(folder / f"{row['filename']}.wav")
        row["story"] = f"{benchmark}.{row['filename']}"
        clips.append(Clip(row["story"], LANGUAGE, row["voice"], path))
        key = (*(row[name] for name in pair), row["voice"])
        sides.setdefault(key, ([], []))[int(row["correct"])].append(row)
    items = []
    for key, (wrongs, rights) in sides.items():
        if not (wrongs and rights):
            told = zip((*pair, "voice"), key, strict=True)
            named = ", ".join(f"{name} '{value}'" for name, value in told)
            has, lacks = ("right", "wrong") if rights else ("wrong", "right")
            file = (rights or wrongs)[0]["filename"]
            raise ValueError(
                f"{gold}: {named} has a {has} file ({file}) and no {lacks} "
                "one. Unpack the benchmark again, or remove row and file."
            )
        # As a rule one each; the official score, too, compares each with each.
        for right in rights:
            for wrong in wrongs:
                names = "", right["story"], wrong["story"]
                kinds = "/".join(key[:-1]), _subset(benchmark, right)
                item = f"{right['filename']}+{wrong['filename']}"
                ends = LANGUAGE, LANGUAGE, *names, *kinds
                items.append(Item(item, benchmark, *ends))
    return clips, items


def _read_gold(gold, columns):
    schema = pa.schema([(name, pa.string()) for name in columns])
    advice = "It comes with the WAV files: name their folder, as lexical/dev"
    # Non-words have no frequency.
    empty = ("frequency",)
    table = read_table(gold, schema, ("filename",), empty, advice=advice)
    rows = table.select(columns).to_pylist()
    if not rows:
        raise ValueError(f"{gold} has no row; expected one for each WAV file")
    for number, row in enumerate(rows):
        for name, good, expected in (
            ("correct", row["correct"] in ("0", "1"), "1 (right) or 0 (wrong)"),
            ("frequency", _is_count(row), "0 or more, or nothing"),
        ):
            if not good:
                raise ValueError(
                    f"{gold}, row {number}: {name} is '{row[name]}'; expected "
                    f"{expected}"
                )
    return rows


def _is_count(row):
    # Pandas writes a column with holes as floats: 12.0.
    try:
        value = float(row.get("frequency") or 0)
    except ValueError:
        return False
    return math.isfinite(value) and value >= 0


def _refuse_surplus(folder, rows):
    named = {nfc(row["filename"]) for row in rows}
    files = files_in(folder, "*.wav", deep=False)
    surplus = [path.name for path in files if nfc(path.stem) not in named]
    # Of another split, as a rule, or the table is half of itself.
    if surplus:
        raise ValueError(
            f"{folder}: {surplus[0]} (and {len(surplus) - 1} other WAV "
            f"file(s)) stand in no row of {GOLD}. Unpack the benchmark again, "
            "or remove what is not of it."
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
