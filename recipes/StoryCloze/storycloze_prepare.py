"""Prepare cloze benchmarks from text.

Put the items of one or several languages into one stories table, which a
translation recipe can give further languages:

    python storycloze_prepare.py whole --files en=val.csv --output whole.parquet
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from speechbrain_slm.benchmarks.cloze_files import load_natural, read_cloze
from speechbrain_slm.benchmarks.cloze_texts import whole_table, write_cloze
from speechbrain_slm.utils.ledger import write_ledger
from speechbrain_slm.utils.running import run_script, script_parser
from speechbrain_slm.utils.tables import write_table

NATURAL = ("en", "fr")


def prepare_cloze(
    output_folder: str | Path,
    files: Mapping[str, str | Path] | None,
    languages: Sequence[str],
    seed: int,
    speakers: Sequence[str],
) -> dict[str, Path]:
    """Write a benchmark from its text files, or the natural items.

    Arguments
    ---------
    output_folder
        Gets ``text/cloze.parquet``, ``text/cloze.left_out.jsonl`` and
        ``items.parquet``.
    files : Language -> file (see ``read_cloze``); None: the natural items.
    languages : Those to write: of English and French, or all of the files.
    seed : Another seed draws other speakers and off-topic endings.
    speakers : Who may tell an item.
    """
    lacking = [name for name in languages if name not in (files or NATURAL)]
    unknown = [name for name in files or () if name not in languages]
    if lacking or unknown or not languages:
        there = f"the natural items are in {' and '.join(NATURAL)}"
        if files:
            there = (
                f"there are files of {', '.join(files)}. Each language needs a "
                "file, and each file a language: mend 'languages' or 'files'."
            )
        raise ValueError(f"languages: found {list(languages)}; {there}")
    # In the order of ``languages``: the first one's is that of the items.
    files = {name: files[name] for name in languages} if files else {}
    items, ledger = read_cloze(files) if files else (load_natural(), [])
    settings = (languages, seed, speakers, ledger, files.values())
    return write_cloze(output_folder, items, *settings)


def main(arguments: list[str]) -> None:
    """Write the stories table that is translated."""
    parser = script_parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    whole = commands.add_parser("whole", allow_abbrev=False)
    several = {"nargs": "+", "metavar": "LANGUAGE=FILE"}
    whole.add_argument("--files", required=True, **several)
    whole.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    pairs = [value.partition("=") for value in options.files]
    if not all(language and path for language, _, path in pairs):
        parser.error(f"--files: found {options.files}; expected en=FILE")
    files = {language: Path(path) for language, _, path in pairs}
    items, ledger = read_cloze(files)
    write_table(options.output, whole_table(items, list(files)))
    left_out = options.output.with_suffix(".left_out.jsonl")
    write_ledger(left_out, ledger)
    gone = f"left out: {len(ledger)} ({left_out.name})"
    logging.info(f"{options.output}: {len(items)} items; {gone}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run_script(main)
