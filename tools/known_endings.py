"""How many endings do training stories already join to a prompt?

python tools/known_endings.py results/evidence/synthesis

reads what the synthesis recipe wrote (text/train.parquet, text/cloze.parquet
and items.parquet) and prints, for each benchmark and over all directions, the
share of items whose right ending, and whose wrong one, stands behind the
prompt's last sentence in a training story told in those languages. Where all
right ones do and no wrong one does, pairs of sentences are the answer.
"""

from collections import Counter, defaultdict
from itertools import pairwise, product
from pathlib import Path

from speechbrain_slm.evaluation.cloze.items import read_items
from speechbrain_slm.utils.running import run_script, script_parser
from speechbrain_slm.utils.tables import (
    STORIES,
    STORIES_KEY,
    markdown_row,
    read_table,
)

SIDES = ("right", "wrong")


def _stories(path: Path) -> dict[str, list[dict]]:
    stories: dict[str, list[dict]] = defaultdict(list)
    for row in read_table(path, STORIES, STORIES_KEY).to_pylist():
        stories[row["story_id"]].append(row)
    for rows in stories.values():
        rows.sort(key=lambda row: row["sentence"])
    return stories


def known_endings(folder: Path) -> dict[str, Counter]:
    """Count a benchmark's items, and those whose endings are known."""
    told = _stories(folder / "text/cloze.parquet")
    items = read_items(folder / "items.parquet").to_pylist()
    languages = {one["ending_language"] for one in items}
    known = {
        (before, after, one[before], next_one[after])
        for story in _stories(folder / "text/train.parquet").values()
        for one, next_one in pairwise(story)
        for before, after in product(languages, repeat=2)
    }
    counts: dict[str, Counter] = defaultdict(Counter)
    for item in items:
        own = counts[item["benchmark"]]
        own["items"] += 1
        before, after = item["prompt_language"], item["ending_language"]
        last = told[item["prompt"]][-1][before]
        for side in SIDES:
            ending = told[item[side]][0][after]
            own[side] += (before, after, last, ending) in known
    return counts


def main(arguments: list[str]) -> None:
    """Print a row a benchmark."""
    parser = script_parser(__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    print(markdown_row(["benchmark", "items", "right known", "wrong known"]))
    print(markdown_row(["---", *["---:"] * 3]))
    for name, own in sorted(known_endings(folder).items()):
        shares = (f"{own[side] / own['items']:.1%}" for side in SIDES)
        print(markdown_row([name, str(own["items"]), *shares]))


if __name__ == "__main__":
    run_script(main)
