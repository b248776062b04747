"""Spoken cloze: is the right ending of a story likelier than a wrong one?

An item is a prompt and two endings, each a story of a unit store looked up in
its language. The right ending's score against the wrong one's gives a credit
of 1, 0.5 (a tie) or 0; the accuracy is the mean credit. Chance is 50 %.
"""

import logging
import os
from pathlib import Path

import numpy as np
import pyarrow as pa

from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.evaluation.accuracy import direction_of, summarise
from speechbrain_slm.evaluation.identity import (
    check_tokenizer,
    weights_identity,
)
from speechbrain_slm.evaluation.likelihood import (
    CONVENTIONS,
    LikelihoodScorer,
    check_convention,
)
from speechbrain_slm.models.export import load_speech_lm
from speechbrain_slm.utils.atomic import (
    fsync_folder,
    read_json,
    write_json,
)
from speechbrain_slm.utils.hashing import sha256_file
from speechbrain_slm.utils.store_format import LEDGER
from speechbrain_slm.utils.tables import (
    ITEMS,
    ITEMS_KEY,
    read_table,
    write_table,
)

logger = logging.getLogger(__name__)

FORMAT = "speechbrain_slm.cloze"
VERSION = 1
RESULTS_JSON = "results.json"
SCORES_PARQUET = "scores.parquet"
SIDES = ("right", "wrong")


def score_items(items, store, scorer):
    """Score both endings of every item.

    Equal (prompt, ending) unit sequences are scored once, whatever their
    items are called; so the right ending, which stands in several items,
    costs one pass, and endings of equal units tie exactly.

    Arguments
    ---------
    items : pyarrow.Table
        With the columns of ``utils.tables.ITEMS``.
    store : UnitStore
        Holds the prompts and the endings.
    scorer : LikelihoodScorer
        Of a model over the same units.

    Returns
    -------
    pyarrow.Table
        The items in their order, with ``prompt_units``; for each side
        ``<side>_units`` and its log-likelihood ``<side>_<convention>`` under
        each convention; and the item's credit ``<convention>``.

    Raises
    ------
    ValueError
        If there are no items, a prompt or an ending is not in the store, the
        two endings are one and the same, or the model has tags but none for
        a language. The message names the item.
    """
    if not len(items):
        raise ValueError("the table of items is empty; expected at least one")
    rows = items.to_pylist()
    sequences, index = {}, {side: [] for side in SIDES}
    for row in rows:
        if row["right"] == row["wrong"]:
            raise ValueError(
                f"{_name(row)}: its right and its wrong ending are both "
                f"'{row['right']}'; expected two different stories"
            )
        languages = row["prompt_language"], row["ending_language"]
        prompt = _units(row, "prompt", languages[0], store)
        prompt = _tagged(row, prompt, languages[0], scorer.language_tags)
        for side in SIDES:
            ending = _units(row, side, languages[1], store)
            if languages[0] != languages[1]:
                ending = _tagged(
                    row, ending, languages[1], scorer.language_tags
                )
            pair = (prompt, ending)
            key = tuple(units.tobytes() for units in pair)
            number, *_ = sequences.setdefault(
                key, (len(sequences), pair, f"{_name(row)}, {side} ending")
            )
            index[side].append(number)
    _, pairs, names = zip(*sequences.values(), strict=True)
    likelihoods = scorer.score(pairs, names)
    logger.info("Scored %d items by %d sequences", len(rows), len(pairs))

    columns = {name: items[name] for name in ITEMS.names}
    lengths = np.array(
        [[scorer.count_units(part) for part in pair] for pair in pairs]
    )
    columns["prompt_units"] = lengths[index["right"], 0]
    for side in SIDES:
        columns[f"{side}_units"] = lengths[index[side], 1]
    for convention in CONVENTIONS:
        scores = likelihoods.score(convention)
        right, wrong = (scores[index[side]] for side in SIDES)
        columns[f"right_{convention}"] = right
        columns[f"wrong_{convention}"] = wrong
        columns[convention] = (np.sign(right - wrong) + 1) / 2
    return pa.table(columns)


def _name(row):
    return (
        f"item '{row['item_id']}' ({row['benchmark']}, "
        f"{direction_of(row['prompt_language'], row['ending_language'])})"
    )


def _units(row, role, language, store):
    try:
        return np.concatenate(store.story(row[role], language))
    except KeyError as error:
        ledger = Path(store.folder).parent / LEDGER
        raise ValueError(
            f"{_name(row)}: its {role} is missing: {error.args[0]}. If its "
            f"audio was rejected, {ledger} says why; else extract the units "
            "of every story that the items name."
        ) from error


def _tagged(row, units, language, tags):
    """Put a tag where training has one: where a language begins."""
    if not tags:
        return units
    if language not in tags:
        raise ValueError(
            f"{_name(row)}: the model has no tag for '{language}', only for "
            f"{', '.join(tags)}; it was not trained on that language"
        )
    return np.concatenate([[tags[language]], units])


def evaluate_cloze(
    model_folder,
    units_folder,
    items,
    output_folder,
    scoring="whole_mean",
    score_end=False,
    batch_tokens=4096,
    device="cpu",
):
    """Evaluate a model on cloze items and write its results.

    ``scores.parquet`` (per item) is written first, then ``results.json``,
    each whole or not at all. Where both are there for the same model, units,
    items and conventions, they are returned as they are.

    Arguments
    ---------
    model_folder : str or Path
        An exported speech LM.
    units_folder : str or Path
        The unit store that the items name.
    items : str or Path
        A table with the columns of ``utils.tables.ITEMS``.
    output_folder : str or Path
        For the two files.
    scoring : str
        The convention that tables show; all three are computed.
    score_end : bool
        Whether the closing boundary is a part of the ending.
    batch_tokens : int
        Positions a batch; bounds the memory, changes no result.
    device : str
        Where the model runs.

    Returns
    -------
    dict
        The content of ``results.json``.

    Raises
    ------
    ValueError
        If the model was trained on units of another tokenizer; see also
        :func:`score_items` and :class:`LikelihoodScorer`.
    """
    check_convention(scoring)
    store = UnitStore(units_folder)
    table = read_table(items, ITEMS, ITEMS_KEY)
    request = {
        "format": FORMAT,
        "version": VERSION,
        "scoring": scoring,
        "score_end": score_end,
        "model": weights_identity(model_folder),
        "tokenizer": store.identity,
        "units": store.info["identity"],
        "items": sha256_file(items),
    }
    folder = Path(output_folder)
    finished = _finished(folder, request)
    if finished is not None:
        logger.info("%s is complete; nothing to do", folder / RESULTS_JSON)
        return finished
    model, units = load_speech_lm(model_folder)
    check_tokenizer(units, store, model_folder)
    scorer = LikelihoodScorer(
        model.to(device),
        units["vocabulary_size"],
        units["boundary"],
        batch_tokens=batch_tokens,
        score_end=score_end,
        language_tags=units["language_tags"],
    )
    scores = score_items(table, store, scorer)
    return _write(folder, request, scores)


def _finished(folder, request):
    paths = folder / RESULTS_JSON, folder / SCORES_PARQUET
    if not all(path.is_file() for path in paths):
        return None
    try:
        results = read_json(paths[0])
    except ValueError:
        # Not written by us (ours are whole): as good as none.
        return None
    expected = {**request, "scores": sha256_file(paths[1])}
    same = all(results.get(key) == expected[key] for key in expected)
    return results if same else None


def _write(folder, request, scores):
    folder.mkdir(parents=True, exist_ok=True)
    # Results of something else must not stand beside the new scores.
    if (folder / RESULTS_JSON).exists():
        os.remove(folder / RESULTS_JSON)
        fsync_folder(folder)
    write_table(folder / SCORES_PARQUET, scores)
    records, cross_lingual = summarise(scores)
    results = {
        **request,
        "scores": sha256_file(folder / SCORES_PARQUET),
        "records": records,
        "cross_lingual": cross_lingual,
    }
    write_json(folder / RESULTS_JSON, results)
    return results
