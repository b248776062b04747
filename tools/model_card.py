#!/usr/bin/env python3
"""Complete an exported model before it is published: scores, vocoder, licence.

    python tools/model_card.py results/mini/LM/interleaved_ft/model \
        --cloze results/mini/cloze/interleaved_ft --license cc-by-4.0

Each option changes what it names, in the folder; the rest of the card stays
as you may have edited it. `--vocoder` copies one into the folder, in place of
the one that it may have. Publish it then with `SpeechLM.push_to_hub`.
"""

import re
from pathlib import Path

from speechbrain_slm.brains.model_card import (
    LICENCE,
    SCORES,
    SPEAKS,
    SPEECH,
    score_table,
    with_section,
)
from speechbrain_slm.evaluation.cloze.results import read_info
from speechbrain_slm.models.export import CARD, add_vocoder, examine_speech_lm
from speechbrain_slm.utils.atomic import write_atomic
from speechbrain_slm.utils.running import run_script, script_parser


def parse_arguments(arguments):
    """Read the command line."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("model", type=Path, help="the folder that the LM recipe exported")
    text = "folders of the cloze recipe, whose scores go into the card"
    add("--cloze", type=Path, nargs="+", default=[], help=text)
    text = "a folder that the vocoder recipe wrote"
    add("--vocoder", type=Path, help=text)
    add("--license", help="the hub's name, such as cc-by-4.0")
    return parser.parse_args(arguments)


def with_license(card, name):
    """Say it in the head of a card, which the hub reads."""
    found = re.match(r"(?sm)---\n(.*?)^---\n", card)
    head, rest = (found[1], card[found.end() :]) if found else ("", card)
    head = re.sub(r"(?m)^license: .*\n", "", head)
    return f"---\nlicense: {name}\n{head}---\n{rest}"


def scores_of(folders, model, identity):
    """Read results, and refuse those of another model."""
    found = []
    for folder in folders:
        results = read_info(folder)
        if any(results.get(key) != identity[key] for key in identity):
            raise ValueError(
                f"{folder} holds scores of another model than {model}, or of "
                "one that was read otherwise; evaluate this one"
            )
        found.append(results)
    return "\n\n".join(map(score_table, found))


def main(arguments=None):
    """Change the folder."""
    options = parse_arguments(arguments)
    _, identity = examine_speech_lm(options.model)
    path = options.model / CARD
    card = path.read_text(encoding="utf-8") if path.is_file() else ""
    if options.cloze:
        table = scores_of(options.cloze, options.model, identity)
        card = with_section(card, SCORES, table)
    if options.vocoder:
        add_vocoder(options.model, options.vocoder)
        card = with_section(card, SPEECH, SPEAKS)
    if options.license:
        card = with_license(card, options.license)
        card = with_section(card, LICENCE, f"{options.license}.")
    write_atomic(path, card)
    print(path)


if __name__ == "__main__":
    run_script(main)
