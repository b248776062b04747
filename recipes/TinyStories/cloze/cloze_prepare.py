"""Prepare cloze items: spoken stories of others, and endings with prompts.

A flat folder of spoken StoryCloze, whole stories or prompts and endings (see
``speechbrain_slm/benchmarks/spoken_story_cloze.py``):

    python cloze_prepare.py read sSC --layout pairs --folders en=data/sSC \
        --output_folder results/sSC
    python cloze_prepare.py read sTC --layout triples \
        --folders en=data/en fr=data/fr --output_folder results/sTC \
        --max_seconds 20

Each prompt with each of its endings as one recording, for tokenizers whose
units depend on what was said before (``endings: together``):

    python cloze_prepare.py join results/mini/synthesis/cloze.parquet \
        results/mini/synthesis/items.parquet --output_folder results/joined

Topic items of any manifest, of your own recordings for example; text is not
needed:

    python cloze_prepare.py topics results/mini/spoken/valid.parquet \
        --output_folder results/topics

All write ``speech.parquet`` and ``items.parquet``: the units recipe turns
the first into a store, which the cloze recipe scores by the second.
"""

import argparse
import logging
from pathlib import Path

from speechbrain_slm.benchmarks.joined_endings import join_items
from speechbrain_slm.benchmarks.spoken_items import write_prepared
from speechbrain_slm.benchmarks.spoken_story_cloze import (
    PARTS,
    read_story_cloze,
)
from speechbrain_slm.benchmarks.topic_items import write_topic_items
from speechbrain_slm.utils.ranges import RANGES, check_value
from speechbrain_slm.utils.running import run_script, script_parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = script_parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    read = commands.add_parser("read", allow_abbrev=False)
    read.add_argument("benchmark", help="what the items are called")
    read.add_argument("--layout", choices=PARTS, required=True)
    several = {"nargs": "+", "metavar": "LANGUAGE=FOLDER"}
    read.add_argument("--folders", required=True, **several)
    read.add_argument("--speaker", default="unknown", help="who speaks")
    cropped = "crop each file to its first so many seconds"
    read.add_argument("--max_seconds", type=float, help=cropped)
    join = commands.add_parser("join", allow_abbrev=False)
    join.add_argument("manifest", type=Path)
    join.add_argument("items", type=Path)
    topics = commands.add_parser("topics", allow_abbrev=False)
    topics.add_argument("manifest", type=Path)
    topics.add_argument("--seed", type=int, default=1986)
    share = "share of the stories that may make no item"
    topics.add_argument("--max_left_out", type=float, default=0.2, help=share)
    for command in (read, join, topics):
        command.add_argument("--output_folder", type=Path, required=True)
    options = parser.parse_args(arguments)
    if options.command == "read":
        options.folders = _folders(options.folders, read)
    return options


def _folders(values, parser):
    folders = {}
    for value in values:
        language, sign, folder = value.partition("=")
        if not (language and sign and folder):
            parser.error(f"--folders: found '{value}'; expected en=FOLDER")
        if language in folders:
            parser.error(f"--folders: '{language}' stands twice")
        folders[language] = Path(folder)
    return folders


def main(arguments: list[str]) -> None:
    """Write a manifest and a table of items."""
    options = parse(arguments)
    for name in ("seed", "max_left_out", "max_seconds"):
        if (value := getattr(options, name, None)) is not None:
            check_value(name, value, RANGES[name])
    out = options.output_folder
    if options.command == "join":
        join_items(options.manifest, options.items, out)
    elif options.command == "topics":
        settings = (options.seed, options.max_left_out)
        write_topic_items(options.manifest, out, *settings)
    else:
        clips, items = read_story_cloze(
            options.folders, options.layout, options.benchmark, options.speaker
        )
        write_prepared(out, clips, items, options.max_seconds)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run_script(main)
