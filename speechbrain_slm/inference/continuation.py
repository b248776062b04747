"""Continuations of prompts in every direction, and what they are worth.

The prompts are cut into shards; whichever rank a shard falls to draws its
units, speaks them and has them written down, and publishes them as one file.
Then the main process judges all of them. What is drawn is a function of (seed,
story, direction, sample): the same on any number of processes, after a kill,
and for whatever else is asked.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.evaluation.generation import results as written
from speechbrain_slm.evaluation.generation.known_stories import StoryJudge
from speechbrain_slm.evaluation.generation.recognizer import Recognizer
from speechbrain_slm.evaluation.generation.results import (
    CONTINUATIONS,
    RESULTS_JSON,
    summarise,
)
from speechbrain_slm.evaluation.generation.text_lm import (
    TextLM,
    text_lm_identity,
)
from speechbrain_slm.evaluation.generation.unit_language import (
    TooFewSentences,
    UnitLanguage,
)
from speechbrain_slm.evaluation.inputs import examine
from speechbrain_slm.inference.continuation_maker import (
    AUDIO,
    SCHEMA,
    ContinuationMaker,
)
from speechbrain_slm.inference.prompts import drawing
from speechbrain_slm.inference.speech_lm import SpeechLM
from speechbrain_slm.inference.story_prompts import story_prompts
from speechbrain_slm.utils.atomic import read_json, write_json
from speechbrain_slm.utils.distributed import barrier, is_main
from speechbrain_slm.utils.hashing import identity_of, sha256_file
from speechbrain_slm.utils.jobs import PARTS, claim, missing, run
from speechbrain_slm.utils.numbers import check_number
from speechbrain_slm.utils.ownership import remove_own
from speechbrain_slm.utils.pieces import find_piece, read_piece, write_piece
from speechbrain_slm.utils.tables import write_table

logger = logging.getLogger(__name__)


def continue_prompts(
    model_folder: str | Path,
    units_folder: str | Path,
    train_units_folder: str | Path,
    output_folder: str | Path,
    prompts: dict,
    sampling: dict,
    items: str | Path | None = None,
    manifest: str | Path | None = None,
    train_manifest: str | Path | None = None,
    samples: int = 1,
    vocoder_folder: str | Path | None = None,
    tokenizer_source: str | Path | None = None,
    num_spoken: int | None = None,
    recognizer: str | None = None,
    text_lm: str | None = None,
    prompts_per_shard: int = 50,
    seed: int = 1986,
    device: str = "cpu",
) -> dict:
    """Continue prompts, and return the content of ``results.json``.

    Results that are there for the same request are returned as they are.

    Arguments
    ---------
    units_folder, items, manifest, prompts
        Where prompts come from, and which; see :func:`story_prompts`.
    train_units_folder
        A store from which a classifier learns languages. If it cannot, what
        hangs on the language of units is not measured, and
        ``unit_classifier`` in the results says why.
    sampling : For :func:`generate_units`: ``max_units``, ``top_k``, ...
    train_manifest
        Of the training store, if it is of the mini corpus: what its sentences
        say, of which the nearest to a continuation is found.
    samples : Continuations of each prompt.
    vocoder_folder : None: the model's own; if it has none, nothing is spoken.
    tokenizer_source : Of the tokenizer's pretrained model, if it was moved.
    num_spoken : Stories of each direction that are spoken; None: all.
    recognizer : See :class:`Recognizer`; None: no transcripts.
    text_lm : See :class:`TextLM`; None: GenPPL is not measured.
    prompts_per_shard : Continued in one batch; what a kill can lose.
    """
    check_number("samples", samples, at_least=1, whole=True)
    check_number("prompts_per_shard", prompts_per_shard, at_least=1, whole=True)
    store, taught = UnitStore(units_folder), UnitStore(train_units_folder)
    _, identities = examine(model_folder, store)
    where = {"vocoder": vocoder_folder, "encoder": tokenizer_source}
    slm = SpeechLM.from_pretrained(model_folder, device, **where)
    _check_chain(slm, recognizer, text_lm)
    ear = Recognizer(recognizer) if recognizer else None
    spoken = slm.hparams.vocoder is not None
    request = {"format": written.FORMAT, "version": written.VERSION}
    request |= {**identities, "prompts": prompts, "sampling": sampling}
    files: dict[str, Any] = {"items": items, "manifest": manifest}
    for name, path in {**files, "train_manifest": train_manifest}.items():
        request[name] = None if path is None else sha256_file(path)
    request |= {"train_units": taught.info["identity"], "samples": samples}
    request["vocoder"] = slm.vocoder.identity if spoken else None
    request["recognizer"] = ear.identity if ear else None
    request |= {"num_spoken": num_spoken, "text_lm": text_lm, "seed": seed}
    if text_lm:
        request["text_lm_identity"] = text_lm_identity(text_lm)
    folder = Path(output_folder)
    finished = _finished(folder, request)
    barrier()  # no rank writes before all have looked
    if finished is not None:
        return finished
    made = story_prompts(
        store,
        tags=slm.facts["language_tags"],
        codebooks=slm.encoder.codebooks,
        seed=seed,
        **files,
        **prompts,
    )
    judge = StoryJudge(taught, train_manifest) if train_manifest else None
    languages, told = _unit_language(taught, seed)
    how = drawing(slm.encoder, slm.facts["boundary"], sampling)
    maker = ContinuationMaker(
        slm, languages, ear, how, seed, bool(text_lm), folder
    )
    work = _work(made, samples, num_spoken)
    found = {**request, "unit_classifier": told}
    _continue(work, maker, judge, request, found, prompts_per_shard, device)
    return read_json(folder / RESULTS_JSON)


def _unit_language(store, seed):
    """Return a classifier, or None, and what the results say of it."""
    try:
        found = UnitLanguage(store, seed=seed)
    except TooFewSentences as error:
        if is_main():
            logger.warning("No language of units is measured: %s", error)
        return None, {"n": 0, "absent": str(error)}
    return found, {"accuracy": found.accuracy, "n": found.num_held_out}


def _continue(work, maker, judge, request, found, size, device):
    """Make what is missing; the main process judges and writes."""
    folder = maker.folder
    parts, text_lm = folder / PARTS / "continuation", request["text_lm"]
    # A recipe has locked its output folder already, a caller may not have.
    with claim(parts):
        told = {**request, "prompts_per_shard": size}
        paths = _make_parts(work, maker, parts, told, size)
        if is_main():
            rows = [r for p in paths for r in read_piece(p).table.to_pylist()]
            _judge(rows, judge, TextLM(text_lm, device) if text_lm else None)
            _write(folder, found, rows)
            remove_own(parts, "part-*.parquet", ".lock")
        barrier()


def _check_chain(slm, recognizer, text_lm):
    if recognizer and slm.hparams.vocoder is None:
        raise ValueError(
            f"recognizer is '{recognizer}', but nothing is spoken: the model "
            "has no vocoder; expected a vocoder_folder, or recognizer: null"
        )
    if text_lm and not recognizer:
        raise ValueError(
            f"text_lm is '{text_lm}', but nothing is written down; expected a "
            "recognizer, or text_lm: null"
        )


def _finished(folder, request):
    path = folder / RESULTS_JSON
    found = read_json(path) if path.exists() else {"format": written.FORMAT}
    if not isinstance(found, dict) or found.get("format") != written.FORMAT:
        raise FileExistsError(
            f"{path} stands where the results are to be, and is of no "
            "continuation. Choose another output_folder, or move it away."
        )
    rows = folder / CONTINUATIONS
    expected = {"continuations": rows.is_file() and sha256_file(rows)}
    expected |= request
    if any(found.get(key, path) != value for key, value in expected.items()):
        return None
    logger.info("%s is complete; nothing to do", path)
    return written.read_results(folder)[0]


def _work(prompts, samples, num_spoken):
    """List (prompt, sample, whether it is spoken)."""
    places: dict[str, int] = {}
    work = []
    for prompt in prompts:
        place = places.get(prompt.direction, 0)
        places[prompt.direction] = place + 1
        spoken = num_spoken is None or place < num_spoken
        work += [(prompt, sample, spoken) for sample in range(samples)]
    return work


def _make_parts(work, maker, folder, told, size):
    """Make what this rank has to, and list the files of all ranks."""
    facts = {"made by": identity_of(told)}
    starts = range(0, len(work), size)
    paths = {folder / f"part-{start:08d}.parquet": start for start in starts}

    def is_done(path):
        piece = find_piece(path)
        return piece is not None and piece.facts == facts

    def make(path):
        rows = maker.rows(work[paths[path] :][:size])
        write_piece(path, pa.Table.from_pylist(rows, schema=SCHEMA), facts)

    run(missing(paths, is_done), make)
    return list(paths)


def _judge(rows, judge, text_lm):
    """Say of each row what it is worth, in further columns."""
    others = _other_stories(rows)
    for row in rows:
        heard = row["heard_language"]
        row["language"] = row["unit_language"] if heard is None else heard
        for name, end in (("unit_language", ""), ("heard_language", "_heard")):
            same = None if row[name] is None else row[name] == row["asked"]
            row[f"in_language{end}"] = same
        row["nll"] = None
        text = row["whole_transcript"]
        if text_lm is not None and text is not None:
            (row["nll"],) = text_lm.negative_log_likelihoods([text])
        if judge is not None:
            texts = row["prompt_texts"], others[row["story_id"]]
            row |= judge.judge(np.array(row["units"]), *texts)
            if row["transcript"] is not None:
                told = judge.judge(row["transcript"], *texts)
                row |= {f"{name}_heard": value for name, value in told.items()}


def _other_stories(rows):
    """Give each story the texts of the next one, for comparison."""
    texts = {row["story_id"]: row["prompt_texts"] for row in rows}
    names = list(texts)
    if len(names) == 1:
        return {names[0]: [""]}  # which no story is known to have
    return {
        name: texts[names[(number + 1) % len(names)]]
        for number, name in enumerate(names)
    }


def _write(folder, found, rows):
    # The rows first, then results.json, which holds their SHA-256.
    (folder / RESULTS_JSON).unlink(missing_ok=True)
    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.table(
        {
            name: pa.array(
                [row.get(name) for row in rows],
                SCHEMA.field(name).type if name in SCHEMA.names else None,
            )
            for name in names
        }
    )
    write_table(folder / CONTINUATIONS, table)
    kept = {row["audio"] for row in rows}
    for path in (folder / AUDIO).glob("*.flac"):
        # Of another request, which was begun here before.
        if f"{AUDIO}/{path.name}" not in kept and len(path.stem) == 16:
            path.unlink()
    results = {**found, "continuations": sha256_file(folder / CONTINUATIONS)}
    results["records"] = summarise(rows, found["seed"])
    write_json(folder / RESULTS_JSON, results)
