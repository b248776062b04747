"""Prepare sWUGGY, sBLIMP and the code-switched benchmark: manifest and items.

Made anew at each run: reading and hashing the audio takes seconds to minutes,
and what is written can then never be that of other folders.
"""

from collections.abc import Mapping
from pathlib import Path

from speechbrain_slm.benchmarks.spoken_items import write_prepared
from speechbrain_slm.benchmarks.utterance_pairs import read_utterance_pairs
from speechbrain_slm.benchmarks.zerospeech import LAYOUTS, read_zerospeech

CODE_SWITCHED = "CSZS"
BENCHMARKS = (*LAYOUTS, CODE_SWITCHED)


def prepare_zerospeech(
    benchmarks: Mapping[str, str | Path | None],
    output_folder: str | Path,
    code_switched_language: str = "fr-en",
) -> None:
    """Write one manifest and one table of items for several benchmarks.

    Arguments
    ---------
    benchmarks
        ``sWUGGY``, ``sBLIMP`` or ``CSZS`` -> its folder, such as
        ``lexical/dev``, ``syntactic/dev`` and ``fr_en/test``; for ``CSZS``
        also a table of pairs. None leaves a benchmark out.
    output_folder : Gets ``speech.parquet`` and ``items.parquet``.
    code_switched_language
        What the utterances of ``CSZS`` are called in the store.
    """
    known = ", ".join(BENCHMARKS)
    if unknown := ", ".join(b for b in benchmarks if b not in BENCHMARKS):
        raise ValueError(
            f"benchmarks: found {unknown}; expected some of {known}"
        )
    chosen = {name: folder for name, folder in benchmarks.items() if folder}
    if not chosen:
        raise ValueError(
            f"benchmarks: none has a folder; expected at least one of {known}"
        )
    clips, items = [], []
    for name, folder in chosen.items():
        if name == CODE_SWITCHED:
            found = read_utterance_pairs(folder, name, code_switched_language)
        else:
            found = read_zerospeech(folder, name)
        clips += found[0]
        items += found[1]
    write_prepared(Path(output_folder), clips, items)
