"""Prepare spoken benchmarks of pairs: manifest and items.

Made anew at each run: reading and hashing the audio takes seconds to minutes,
and what is written can then never be that of other folders.
"""

from collections.abc import Mapping
from pathlib import Path

from speechbrain_slm.benchmarks.pair_rows import PairRows, read_pair_rows
from speechbrain_slm.benchmarks.spoken_items import write_prepared
from speechbrain_slm.benchmarks.utterance_pairs import read_utterance_pairs
from speechbrain_slm.benchmarks.zerospeech import LAYOUTS, read_zerospeech

CODE_SWITCHED = "CSZS"
BENCHMARKS = (*LAYOUTS, CODE_SWITCHED)


def prepare_zerospeech(
    benchmarks: Mapping[str, str | Path | Mapping | None],
    output_folder: str | Path,
    code_switched_language: str = "fr-en",
) -> None:
    """Write one manifest and one table of items for several benchmarks.

    Arguments
    ---------
    benchmarks
        ``sWUGGY``, ``sBLIMP`` or ``CSZS`` -> its folder, such as
        ``lexical/dev``, ``syntactic/dev`` and ``fr_en/test``; for ``CSZS``
        also a table of pairs. Of any other name: where its rows are and
        which columns they have (``PairRows``). None leaves a benchmark out.
    output_folder
        Gets ``speech.parquet`` and ``items.parquet``, and ``audio/`` for what
        comes as bytes.
    code_switched_language
        What the utterances of ``CSZS`` are called in the store.
    """
    chosen = {name: told for name, told in benchmarks.items() if told}
    known = ", ".join(BENCHMARKS)
    unknown = [
        name
        for name, told in chosen.items()
        if name not in BENCHMARKS and not isinstance(told, Mapping)
    ]
    if unknown:
        raise ValueError(
            f"benchmarks: found {', '.join(unknown)}; expected some of "
            f"{known}, or a mapping that says which columns hold what"
        )
    if not chosen:
        raise ValueError(
            f"benchmarks: none has a folder; expected at least one of {known}"
        )
    clips, items = [], []
    for name, told in chosen.items():
        if isinstance(told, Mapping):
            rows = PairRows.told(name, told)
            found = read_pair_rows(name, rows, output_folder)
        elif name == CODE_SWITCHED:
            found = read_utterance_pairs(told, name, code_switched_language)
        else:
            found = read_zerospeech(told, name)
        clips += found[0]
        items += found[1]
    write_prepared(Path(output_folder), clips, items)
