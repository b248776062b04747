"""Spoken cloze: is the right ending of a story likelier than a wrong one?

The right ending's score against the wrong one's gives an item a credit of 1,
0 or, for a tie, what the convention says; the accuracy is the mean credit.
Chance is 50 %. Pairs of utterances without a prompt are items as well.
"""

import logging
import os
from pathlib import Path

import numpy as np
import pyarrow as pa

from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.evaluation.cloze.accuracy import summarise
from speechbrain_slm.evaluation.cloze.conventions import (
    LIKELIHOODS,
    check_convention,
)
from speechbrain_slm.evaluation.cloze.items import SIDES, make_pairs, read_items
from speechbrain_slm.evaluation.cloze.likelihood import LikelihoodScorer
from speechbrain_slm.evaluation.cloze.results import (
    FORMAT,
    RESULTS_JSON,
    SCORES_PARQUET,
    VERSION,
    read_info,
)
from speechbrain_slm.evaluation.inputs import check_tokenizer, unchanged
from speechbrain_slm.models.export import (
    examine_speech_lm,
    load_speech_lm,
)
from speechbrain_slm.utils.atomic import (
    fsync_folder,
    read_json,
    write_json,
)
from speechbrain_slm.utils.distributed import barrier, is_main
from speechbrain_slm.utils.hashing import identity_of, sha256_file
from speechbrain_slm.utils.jobs import PLAN_JSON, claim, missing, run
from speechbrain_slm.utils.ownership import remove_own
from speechbrain_slm.utils.pieces import find_piece, read_piece, write_piece
from speechbrain_slm.utils.tables import write_table

logger = logging.getLogger(__name__)

PARTS = "parts"

# Of two tables, only numbers of one convention may be compared.
DEFAULT_CONVENTION = {
    "scoring": "whole_mean",
    "start": "boundary",
    "score_end": False,
    "tie": 0.5,
}


def evaluate_cloze(
    model_folder: str | Path,
    units_folder: str | Path,
    items: str | Path,
    output_folder: str | Path,
    convention: dict | None = None,
    endings: str = "apart",
    too_long: str = "refuse",
    share_prompts: bool = True,
    batch_tokens: int = 4096,
    pairs_per_shard: int = 1000,
    seed: int = 1986,
    device: str = "cpu",
) -> dict:
    """Evaluate a model on items and write its results.

    All ranks score, a shard of the pairs at a time; a run that was stopped
    goes on where it was, with any number of ranks, and the results are the
    same. ``scores.parquet`` (per item) is written first, then
    ``results.json``, each whole or not at all. Where both are there for the
    same model, units, items and options, they are returned as they are.

    Arguments
    ---------
    units_folder : The unit store that the items name.
    items : See :func:`speechbrain_slm.evaluation.cloze.items.read_items`.
    convention
        ``scoring``: the likelihood that tables show, of ``LIKELIHOODS`` (all
        are computed); ``start`` and ``score_end``: see
        :class:`LikelihoodScorer`; ``tie``: the credit of a tie. The defaults
        are those of ``DEFAULT_CONVENTION``.
    endings, too_long
        See :func:`speechbrain_slm.evaluation.cloze.items.make_pairs`.
    share_prompts
        Compute a prompt once for all its endings; changes no result.
    batch_tokens : Positions a batch; bounds the memory, changes no result.
    pairs_per_shard
        Sequences that a rank scores at a time, and a kill can lose.

    Returns
    -------
    The content of ``results.json``.

    Raises
    ------
    ValueError
        If the model was trained on units of another tokenizer, or an option
        has no such value; see also :func:`make_pairs` and
        :class:`LikelihoodScorer`.
    FolderInUse
        If another run writes to ``output_folder``.
    """
    convention = _checked(convention or {})
    store = UnitStore(units_folder)
    with unchanged(items) as items_identity:
        table = read_items(items)
    units, model_identity = examine_speech_lm(model_folder)
    check_tokenizer(units, store, model_folder)
    request = {
        "format": FORMAT,
        "version": VERSION,
        **convention,
        "endings": endings,
        "too_long": too_long,
        "seed": seed,
        **model_identity,
        "tokenizer": store.identity,
        "units": store.info["identity"],
        "items": items_identity,
    }
    folder = Path(output_folder)
    finished = _finished(folder, request)
    # No rank writes before all have looked.
    barrier()
    if finished is not None:
        logger.info("%s is complete; nothing to do", folder / RESULTS_JSON)
        return finished
    model, units = load_speech_lm(model_folder, model_identity)
    scorer = LikelihoodScorer(
        model.to(device),
        units["vocabulary_size"],
        units["boundary"],
        batch_tokens=batch_tokens,
        start=convention["start"],
        score_end=convention["score_end"],
        language_tags=units["language_tags"],
        share_prompts=share_prompts,
    )
    pairs = make_pairs(table, store, scorer, endings, too_long)
    # A recipe has locked its output folder already, a caller may not have.
    with claim(folder / PARTS):
        parts = _score_parts(pairs, scorer, folder, request, pairs_per_shard)
        if is_main():
            likelihoods = pa.concat_tables(
                read_piece(path).table for path in parts
            )
            scores = table_of_scores(
                table, pairs, likelihoods, scorer, convention["tie"]
            )
            _write(folder, request, scores, pairs)
            _remove_parts(folder / PARTS)
            remove_own(folder / PARTS, ".lock")
        barrier()
    return read_json(folder / RESULTS_JSON)


def _checked(convention):
    unknown = sorted(set(convention) - set(DEFAULT_CONVENTION))
    if unknown:
        raise ValueError(
            f"convention has no key {', '.join(unknown)}; expected "
            f"{', '.join(DEFAULT_CONVENTION)}"
        )
    convention = {**DEFAULT_CONVENTION, **convention}
    check_convention(convention["scoring"])
    if convention["tie"] not in (0, 0.5):
        raise ValueError(
            f"tie is {convention['tie']}; expected 0.5 or 0, the credit of an "
            "item whose endings are equally likely"
        )
    return convention


def _finished(folder, request):
    paths = folder / RESULTS_JSON, folder / SCORES_PARQUET
    if not paths[0].exists():
        return None
    results = read_json(paths[0])
    if not isinstance(results, dict) or results.get("format") != FORMAT:
        raise FileExistsError(
            f"{paths[0]} stands where the results are to be, and is of no "
            "cloze evaluation. It stays as it is: choose another "
            "output_folder, or move it out of the way."
        )
    if not paths[1].is_file():
        return None
    expected = {**request, "scores": sha256_file(paths[1])}
    same = all(results.get(key) == expected[key] for key in expected)
    # By its schema: what somebody has edited is named, not handed on.
    return read_info(folder) if same else None


def _score_parts(pairs, scorer, folder, request, pairs_per_shard):
    """Score what this rank has to, and list the files of all ranks.

    What a part holds is fixed by the request, its number, and the likelihoods
    that there are.
    """
    plan = {
        **request,
        "pairs_per_shard": pairs_per_shard,
        "likelihoods": list(LIKELIHOODS),
    }
    here = folder / PARTS / identity_of(plan)[:16]
    if is_main():
        # Of another model, or of other items.
        _remove_parts(folder / PARTS, but=here)
        write_json(here / PLAN_JSON, plan)
    barrier()
    begins = range(0, len(pairs.pairs), pairs_per_shard)
    paths = [here / f"part-{begin:08d}.parquet" for begin in begins]

    def score(number):
        part = slice(begins[number], begins[number] + pairs_per_shard)
        found = scorer.score(pairs.pairs[part], pairs.names[part])
        write_piece(paths[number], pa.table(found), {})

    left = missing(
        range(len(paths)), lambda n: find_piece(paths[n]) is not None
    )
    run(left, score, "parts")
    return paths


def _remove_parts(folder, but=None):
    """Remove what this module put there: each folder is named by its plan."""
    for other in sorted(folder.iterdir()):
        try:
            name = identity_of(read_json(other / PLAN_JSON))[:16]
        except (OSError, ValueError):
            continue
        if name == other.name and other != but:
            remove_own(other, "part-*.parquet", PLAN_JSON)


def table_of_scores(
    items: pa.Table,
    pairs,
    likelihoods: pa.Table,
    scorer: LikelihoodScorer,
    tie: float,
) -> pa.Table:
    """Give every item its scores and its credit.

    Arguments
    ---------
    items : See :func:`speechbrain_slm.evaluation.cloze.items.read_items`.
    pairs : Pairs
        Of these items.
    likelihoods : Of these pairs, a column for each of ``LIKELIHOODS``.
    scorer : Counts their units.
    tie : The credit of an item whose endings are equally likely.

    Returns
    -------
    The items in their order, with ``prompt_units``; for each side
    ``<side>_units`` and its log-likelihood ``<side>_<convention>`` under
    each convention; and the item's credit ``<convention>``.
    """
    lengths = np.array(
        [[scorer.count_units(part) for part in pair] for pair in pairs.pairs]
    )
    columns = {name: items[name] for name in items.column_names}
    columns["prompt_units"] = lengths[pairs.index["right"], 0]
    for side in SIDES:
        columns[f"{side}_units"] = lengths[pairs.index[side], 1]
    for convention in LIKELIHOODS:
        scores = likelihoods[convention].to_numpy()
        right, wrong = (scores[pairs.index[side]] for side in SIDES)
        columns[f"right_{convention}"] = right
        columns[f"wrong_{convention}"] = wrong
        credit = np.where(right > wrong, 1.0, 0.0)
        columns[convention] = np.where(right == wrong, tie, credit)
    return pa.table(columns)


def _write(folder, request, scores, pairs):
    # Results of something else must not stand beside the new scores.
    if (folder / RESULTS_JSON).exists():
        os.remove(folder / RESULTS_JSON)
        fsync_folder(folder)
    write_table(folder / SCORES_PARQUET, scores)
    records, cross_lingual, subsets = summarise(scores, request["seed"])
    results = {
        **request,
        "scores": sha256_file(folder / SCORES_PARQUET),
        "truncated": int(pairs.truncated.sum()),
        "prompts_changed": int(pairs.changed.sum()),
        "records": records,
        "cross_lingual": cross_lingual,
        "subsets": subsets,
    }
    write_json(folder / RESULTS_JSON, results)
