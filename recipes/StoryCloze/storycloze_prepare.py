"""Prepare cloze benchmarks from text.

Put the items of one or several languages into one stories table, which a
translation recipe can give further languages:

    python storycloze_prepare.py whole --files en=val.csv --output whole.parquet
"""

import logging
from pathlib import Path

from speechbrain_slm.benchmarks.cloze_files import load_natural, read_cloze
from speechbrain_slm.benchmarks.cloze_texts import whole_table, write_cloze
from speechbrain_slm.utils.ledger import write_ledger
from speechbrain_slm.utils.running import run_script, script_parser
from speechbrain_slm.utils.tables import write_table

NATURAL = ("en", "fr")


def prepare_natural(output_folder, languages, seed, speakers):
    """Write the natural items that come with the package.

    Arguments
    ---------
    output_folder : str or Path
        Gets ``text/cloze.parquet`` and ``items.parquet``.
    languages : list of str
        Of English and French.
    seed : int
        Another seed draws other speakers and off-topic endings.
    speakers : list of str
        Who may tell an item.

    Returns
    -------
    dict
        The stories table: ``{"cloze": path}``.

    Raises
    ------
    ValueError
        If there is another language.
    """
    unknown = [name for name in languages if name not in NATURAL]
    if unknown or not languages:
        raise ValueError(
            f"languages: found {list(languages)}; the natural items are in "
            f"{' and '.join(NATURAL)}"
        )
    return write_cloze(output_folder, load_natural(), languages, seed, speakers)


def prepare_cloze(output_folder, files, languages, seed, speakers):
    """Write a benchmark from its text files, or the natural items.

    Arguments
    ---------
    output_folder : str or Path
        Gets ``text/cloze.parquet``, ``text/cloze.left_out.jsonl`` and
        ``items.parquet``.
    files : dict or None
        Language -> file (see ``read_cloze``); none: the natural items.
    languages : list of str
        Those to write: the languages of the files.
    seed : int
        Another seed draws other speakers and off-topic endings.
    speakers : list of str
        Who may tell an item.

    Returns
    -------
    dict
        The stories table: ``{"cloze": path}``.

    Raises
    ------
    ValueError
        If a language has no file, or a file no language.
    """
    if not files:
        return prepare_natural(output_folder, languages, seed, speakers)
    lacking = [name for name in languages if name not in files]
    unknown = [name for name in files if name not in languages]
    if lacking or unknown or not languages:
        raise ValueError(
            f"languages: found {list(languages)}; there are files of "
            f"{', '.join(files)}. Each language needs a file, and each file a "
            "language: mend 'languages' or 'files'."
        )
    chosen = {name: files[name] for name in languages}
    items, ledger = read_cloze(chosen)
    return write_cloze(
        output_folder,
        items,
        languages,
        seed,
        speakers,
        ledger,
        sources=chosen.values(),
    )


def main(arguments):
    """Write the stories table that is translated.

    Arguments
    ---------
    arguments : list of str
        ``sys.argv[1:]``.
    """
    parser = script_parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    whole = commands.add_parser("whole", allow_abbrev=False)
    whole.add_argument(
        "--files", nargs="+", required=True, metavar="LANGUAGE=FILE"
    )
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
    logging.info(
        "%s: %d items; left out: %d (%s)",
        options.output,
        len(items),
        len(ledger),
        left_out.name,
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run_script(main)
