"""The natural cloze items that come with the package."""

from pathlib import Path

import yaml

from speechbrain_slm.benchmarks.cloze_texts import ClozeItem

ITEMS_FILE = Path(__file__).parent / "natural_items" / "items.yaml"


def load_natural() -> list[ClozeItem]:
    """Load the natural items.

    Returns
    -------
    The items, in English and French.

    Example
    -------
    >>> items = load_natural()
    >>> len(items), items[0].item_id
    (120, 'natural-001-toothache')
    """
    text = ITEMS_FILE.read_text(encoding="utf-8")
    items = []
    for number, entry in enumerate(yaml.safe_load(text), start=1):
        prompt = {
            language: tuple(sentence[language] for sentence in entry["prompt"])
            for language in entry["right"]
        }
        items.append(
            ClozeItem(
                f"natural-{number:03d}-{entry['item']}",
                prompt,
                entry["right"],
                entry["wrong"],
            )
        )
    return items
