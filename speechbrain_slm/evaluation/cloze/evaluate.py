"""Spoken cloze: is the right ending of a story likelier than a wrong one?

The right ending's score against the wrong one's gives an item a credit of 1,
0 or, for a tie, what the convention says; the accuracy is the mean credit.
Chance is 50 %. Pairs of utterances without a prompt are items as well.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.evaluation.cloze import results as written
from speechbrain_slm.evaluation.cloze.accuracy import summarise
from speechbrain_slm.evaluation.cloze.conventions import (
    LIKELIHOODS,
    OF_ENDINGS_ALONE,
)
from speechbrain_slm.evaluation.cloze.items import (
    SIDES,
    make_pairs,
    name_of,
    read_items,
)
from speechbrain_slm.evaluation.cloze.likelihood import LikelihoodScorer
from speechbrain_slm.evaluation.cloze.results import (
    RESULTS_JSON,
    SCORES_PARQUET,
)
from speechbrain_slm.evaluation.cloze.scorer import Scorer
from speechbrain_slm.evaluation.inputs import examine, unchanged
from speechbrain_slm.models.export import load_speech_lm
from speechbrain_slm.utils.atomic import fsync_folder, read_json, write_json
from speechbrain_slm.utils.distributed import barrier, is_main
from speechbrain_slm.utils.hashing import identity_of, sha256_file
from speechbrain_slm.utils.jobs import PARTS, claim, missing, run
from speechbrain_slm.utils.numbers import check_choice
from speechbrain_slm.utils.ownership import remove_own
from speechbrain_slm.utils.pieces import find_piece, read_piece, write_piece
from speechbrain_slm.utils.tables import write_table

logger = logging.getLogger(__name__)

# Of two tables, only numbers of one convention may be compared.
DEFAULT_CONVENTION = {
    "scoring": "whole_mean",  # what tables show; all likelihoods are computed
    "start": "boundary",  # this and score_end: see LikelihoodScorer
    "score_end": False,
    "tie": 0.5,  # the credit of an item whose endings are equally likely
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
    """Evaluate a model on items; return the content of ``results.json``.

    Results that are there for the same request are returned as they are.

    Arguments
    ---------
    items, endings, too_long : See :func:`read_items` and :func:`make_pairs`.
    convention : What differs from ``DEFAULT_CONVENTION``.
    share_prompts, batch_tokens : See :class:`LikelihoodScorer`.
    pairs_per_shard : Sequences that a kill can lose.
    """
    convention = checked(convention or {})
    store = UnitStore(units_folder)
    model_identity, identities = examine(model_folder, store)

    def make_scorer(**how):
        model, units = load_speech_lm(model_folder, model_identity)
        return LikelihoodScorer(
            model.to(device),
            *(units["vocabulary_size"], units["boundary"], batch_tokens),
            language_tags=units["language_tags"],
            share_prompts=share_prompts,
            **how,
        )

    return evaluate_scorer(
        *(make_scorer, identities, store, items, output_folder, convention),
        *(endings, too_long, pairs_per_shard, seed),
    )


def evaluate_scorer(
    make_scorer: Callable[..., Scorer],
    identities: dict[str, str],
    store: UnitStore,
    items: str | Path,
    output_folder: str | Path,
    convention: dict,
    endings: str,
    too_long: str,
    pairs_per_shard: int,
    seed: int,
) -> dict:
    """Evaluate whatever scores; see :func:`evaluate_cloze`.

    Arguments
    ---------
    make_scorer
        Takes ``start``, ``score_end`` and ``endings_alone`` by name; called
        where there is something to score.
    identities : Of the scorer (``model``), and of the tokenizer and the units.
    convention : All of it; see :func:`checked`.
    """
    with unchanged(items) as items_identity:
        table = read_items(items)
    alone = _endings_alone(convention, endings, table)
    request = {"format": written.FORMAT, "version": written.VERSION}
    request |= {**convention, "endings": endings, "too_long": too_long}
    request |= {"seed": seed, **identities, "items": items_identity}
    folder = Path(output_folder)
    finished = _finished(folder, request)
    barrier()  # no rank writes before all have looked
    if finished is not None:
        return finished
    how = {name: convention[name] for name in ("start", "score_end")}
    scorer = make_scorer(**how, endings_alone=alone)
    pairs = make_pairs(table, store, scorer, endings, too_long)
    # A user's own folder "parts" may lie there, so that ours stands below it.
    parts = folder / PARTS / "cloze"
    # A recipe has locked its output folder already, a caller may not have.
    with claim(parts):
        named = pairs.pairs, pairs.names
        paths = score_parts(*named, scorer, parts, request, pairs_per_shard)
        if is_main():
            _write(folder, request, table, pairs, paths, scorer)
            remove_own(parts, "part-*.parquet", ".lock")
            with contextlib.suppress(OSError):  # it holds something else
                parts.parent.rmdir()
        barrier()
    return read_json(folder / RESULTS_JSON)


def checked(
    convention: dict, known: Collection[str] = LIKELIHOODS.keys()
) -> dict:
    """Complete what differs from ``DEFAULT_CONVENTION``, or refuse it.

    ``known`` are the names that ``scoring`` may have.
    """
    unknown = sorted(set(convention) - set(DEFAULT_CONVENTION))
    if unknown:
        raise ValueError(
            f"convention has no key {', '.join(unknown)}; expected "
            f"{', '.join(DEFAULT_CONVENTION)}"
        )
    convention = {**DEFAULT_CONVENTION, **convention}
    check_choice("scoring", convention["scoring"], known)
    if convention["tie"] not in (0, 0.5):
        raise ValueError(f"tie is {convention['tie']}; expected 0.5 or 0")
    return convention


def _endings_alone(convention, endings, items):
    """Say whether every ending has a likelihood alone; refuse to need it."""
    lacking = ""
    if convention["start"] != "boundary":
        lacking = f"start is '{convention['start']}', not 'boundary'"
    elif endings != "apart":
        lacking = f"endings is '{endings}', not 'apart'"
    elif (row := pc.index(items["prompt"], "").as_py()) >= 0:
        name = name_of(items.slice(row, 1).to_pylist()[0])
        lacking = f"{name} has no prompt"
    if not lacking:
        return True
    if (scoring := convention["scoring"]) in OF_ENDINGS_ALONE:
        raise ValueError(
            f"scoring is '{scoring}', which needs each ending alone behind a "
            f"boundary, but {lacking}; choose another scoring"
        )
    left_out = "', '".join(OF_ENDINGS_ALONE)
    logger.info("The scores have no column '%s': %s", left_out, lacking)
    return False


def _finished(folder, request):
    path, scores = folder / RESULTS_JSON, folder / SCORES_PARQUET
    results = read_json(path) if path.exists() else {"format": written.FORMAT}
    if not isinstance(results, dict) or results.get("format") != written.FORMAT:
        raise FileExistsError(
            f"{path} stands where the results are to be, and is of no cloze "
            "evaluation. Choose another output_folder, or move it away."
        )
    expected = {**request, "scores": scores.is_file() and sha256_file(scores)}
    if any(results.get(key) != expected[key] for key in expected):
        return None
    logger.info("%s is complete; nothing to do", path)
    # By its schema: what somebody has edited is named, not handed on.
    return written.read_info(folder)


def score_parts(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    names: Sequence[str],
    scorer: Scorer,
    folder: Path,
    request: dict,
    size: int,
) -> list[Path]:
    """Score what this rank has to, and list the pieces of all ranks.

    Arguments
    ---------
    folder : Where the pieces are; those that a kill has left are taken.
    request : All that decides the scores; JSON can hold it.
    size : Pairs a piece.
    """
    # All that fixes what a part of this number holds. A likelihood that is new
    # has no column in the parts of yesterday: they are not taken.
    told = {**request, "pairs_per_shard": size}
    told["likelihoods"] = scorer.likelihoods
    facts = {"made by": identity_of(told)}
    starts = range(0, len(pairs), size)
    paths = {folder / f"part-{start:08d}.parquet": start for start in starts}

    def is_done(path):
        piece = find_piece(path)
        return piece is not None and piece.facts == facts

    def score(path):
        part = slice(paths[path], paths[path] + size)
        write_piece(
            path, pa.table(scorer.score(pairs[part], names[part])), facts
        )

    run(missing(paths, is_done), score)
    return list(paths)


def _table_of_scores(items, pairs, likelihoods, scorer, tie):
    """Give every item its units, its scores and its credits."""
    prompts, endings = np.array(
        [[scorer.count_units(part) for part in pair] for pair in pairs.pairs]
    ).T
    sides = [pairs.index[side] for side in SIDES]
    columns = {name: items[name] for name in items.column_names}
    columns["prompt_units"] = prompts[sides[0]]
    columns |= {f"{s}_units": endings[pairs.index[s]] for s in SIDES}
    for convention in likelihoods.column_names:
        scores = likelihoods[convention].to_numpy()
        right, wrong = (scores[side] for side in sides)
        columns[f"right_{convention}"] = right
        columns[f"wrong_{convention}"] = wrong
        credit = np.where(right > wrong, 1.0, 0.0)
        columns[convention] = np.where(right == wrong, tie, credit)
    return pa.table(columns)


def _write(folder, request, items, pairs, parts, scorer):
    # scores.parquet first, then results.json, which holds its SHA-256: after
    # a kill there are both, or no results. Results of something else must not
    # stand beside the new scores.
    if (folder / RESULTS_JSON).exists():
        os.remove(folder / RESULTS_JSON)
        fsync_folder(folder)
    found = pa.concat_tables(read_piece(path).table for path in parts)
    scores = _table_of_scores(items, pairs, found, scorer, request["tie"])
    write_table(folder / SCORES_PARQUET, scores)
    results = {**request, "scores": sha256_file(folder / SCORES_PARQUET)}
    results["truncated"] = int(pairs.truncated.sum())
    results["prompts_changed"] = int(pairs.changed.sum())
    kinds = "records", "cross_lingual", "subsets"
    summaries = summarise(scores, request["seed"])
    results |= zip(kinds, summaries, strict=True)
    write_json(folder / RESULTS_JSON, results)
