"""Fitting tokenizers on the training split, once.

Every rank makes features of its share of the speech, in shards that a rerun
finds again; the main one fits k-means on them.
"""

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from speechbrain_slm.units.audio import pad, read_clips
from speechbrain_slm.units.manifest import (
    content_identity,
    distinct_utterances,
    refuse_missing_audio,
    sample_utterances,
)
from speechbrain_slm.units.rows import parts
from speechbrain_slm.units.tokenizers import bpe as unit_bpe
from speechbrain_slm.units.tokenizers.base import (
    DESCRIPTION,
    Tokenizer,
    check_saved,
    describe,
)
from speechbrain_slm.units.tokenizers.kmeans import (
    JOINT,
    KMeansTokenizer,
    is_finite,
)
from speechbrain_slm.units.utterances import Utterances
from speechbrain_slm.utils.atomic import atomic_path, remove_temporary
from speechbrain_slm.utils.audio import MAX_SECONDS
from speechbrain_slm.utils.distributed import barrier, is_main
from speechbrain_slm.utils.hashing import difference
from speechbrain_slm.utils.jobs import missing, pin, run
from speechbrain_slm.utils.ownership import remove_own
from speechbrain_slm.utils.scratch import blocks
from speechbrain_slm.utils.sealing import is_sealed, seal_file

logger = logging.getLogger(__name__)

# Features of the drawn speech; removed when the codebook is there.
FEATURES = "features"
UTTERANCES_PER_SHARD = 500
NUM_WORKERS = 2  # threads that read audio
BATCH_SECONDS = 60  # of speech at once, with padding
_DRAWN = 2000  # utterances by which the pieces are judged
# That BPE is fitted on, at most: sentencepiece holds all of them in memory.
BPE_UTTERANCES = 1_000_000


def fit_tokenizer(
    tokenizer: Tokenizer,
    manifests: dict[str, pa.Table] | None,
    folder: str | Path,
    seconds: float | None,
    seed: int | None,
    max_seconds: float = MAX_SECONDS,
) -> Tokenizer:
    """Fit a k-means tokenizer on frames of a manifest, or restore it.

    A tokenizer that needs no fit (a codec, or a codebook from a file) is
    written down in the folder, and refused where another stands.

    Arguments
    ---------
    manifests
        By split; ``train`` is what it is fitted on. None: the folder must
        hold a finished one.
    seconds : Speech to fit on, the same amount of each (language, speaker).
    seed : Of the draw and of k-means.
    max_seconds : A longer audio file is bad.

    Raises
    ------
    FileNotFoundError
        If an audio file of any split, or the finished one, does not exist.
    ValueError
        If the folder's tokenizer is another or was fitted otherwise (the
        message names the field), or if there is no training split.
    """
    folder = Path(folder)
    if tokenizer.fitted:
        if manifests is None:
            check_saved(tokenizer.config, folder, tokenizer.identity)
        else:
            _keep(tokenizer, folder)
        return tokenizer
    kmeans = cast(KMeansTokenizer, tokenizer)
    if manifests is not None:
        _fit_kmeans(kmeans, manifests, folder, seconds, seed, max_seconds)
    kmeans.restore(folder)
    return tokenizer


def _fit_kmeans(tokenizer, manifests, folder, seconds, seed, max_seconds):
    if seconds is None:
        raise ValueError(
            "fit_seconds is null; expected seconds: this tokenizer is fitted"
        )
    table = _training_split(manifests)
    if is_main():
        _pin_fit(tokenizer, manifests, folder, seconds, seed)
    barrier()
    if not (folder / DESCRIPTION).is_file():
        shards = _shards(tokenizer, table, folder, seconds, seed)

        how = (tokenizer.sample_rate, NUM_WORKERS, max_seconds)

        def write(path):
            clips = read_clips(shards[path][1], *how)
            _write_features(path, clips, tokenizer)

        run(missing(shards, is_sealed), write, "shards of features")
        if is_main():
            _fit(tokenizer, shards, folder, seed)
    # The others wait here, however long a fit takes (utils.distributed).
    barrier()


def _training_split(manifests: dict[str, pa.Table]) -> pa.Table:
    if "train" not in manifests:
        raise ValueError(
            f"The manifests are those of {', '.join(manifests)}; expected one "
            "of train to fit on, or a finished tokenizer in tokenizer_folder"
        )
    return manifests["train"]


def _pin_fit(tokenizer, manifests, folder, seconds, seed):
    table, columns = manifests["train"], ["sha256", "language", "speaker"]
    speech = content_identity(table, columns, distinct_utterances(table)["row"])
    plan = {"config": tokenizer.config, "seconds": seconds, "seed": seed}
    plan["speech"] = speech
    if not (folder / DESCRIPTION).is_file():
        # All splits: the extraction would find them out after the fit.
        for split in manifests.values():
            rows = distinct_utterances(split)["row"]
            for _, batch in parts(split, ["audio"], rows):
                refuse_missing_audio(batch["audio"].to_pylist())
    pin(folder, plan, DESCRIPTION)
    for place in (folder, folder / FEATURES):
        remove_temporary(place)


def _keep(tokenizer: Tokenizer, folder: Path) -> None:
    """Write down a tokenizer that needs no fit."""
    if is_main():
        plan = {"config": tokenizer.config, "identity": tokenizer.identity}
        pin(folder, plan, DESCRIPTION)
        remove_temporary(folder)
        if not (folder / DESCRIPTION).is_file():
            tokenizer.save(folder)
    barrier()


def _shards(tokenizer, table, folder, seconds, seed):
    """Return the language and the utterances of each shard of features."""
    drawn: dict[str, list] = {}
    for utterance in sample_utterances(table, seconds, seed):
        joint = tokenizer.codebooks == "joint"
        language = JOINT if joint else utterance["language"]
        drawn.setdefault(language, []).append(utterance)
    return {
        folder / FEATURES / f"{language or 'all'}-{start:08d}.npy": (
            language,
            utterances[start : start + UTTERANCES_PER_SHARD],
        )
        for language, utterances in drawn.items()
        for start in range(0, len(utterances), UTTERANCES_PER_SHARD)
    }


def _write_features(path, clips, tokenizer):
    # Bad audio is told when the utterances are extracted, and likewise
    # features that are not finite.
    wavs = [clip.wav for clip in clips if clip.wav is not None]
    empty = np.zeros((0, tokenizer.feature_size), dtype=np.float32)
    rows, limit = [empty] * len(wavs), BATCH_SECONDS * tokenizer.sample_rate
    for batch in _batches([len(wav) for wav in wavs], limit):
        features = tokenizer.features(*pad([wavs[i] for i in batch]))
        for i, points in zip(batch, features, strict=True):
            if is_finite(points):
                rows[i] = points.cpu().numpy()
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, np.concatenate([empty, *rows]))
        seal_file(temporary)


def _batches(lengths: list[int], limit: float) -> Iterator[list[int]]:
    """Yield the numbers of the utterances that are batched, by length."""
    batch: list[int] = []
    # The shortest first: each one that comes is the longest of its batch.
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[i] * (len(batch) + 1) > limit:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _fit(tokenizer, shards, folder, seed):
    frames: dict[str, list] = {}
    for path, (language, _) in shards.items():
        if not is_sealed(path):
            raise ValueError(
                f"{path} is damaged: it has not the SHA-256 that it was "
                "written with. Run again; it is made anew."
            )
        frames.setdefault(language, []).append(np.load(path, mmap_mode="r"))
    # Together they stand in one file while k-means reads them.
    tokenizer.fit(frames, seed, folder / FEATURES / "frames.f32")
    tokenizer.save(folder)
    del frames  # which are mapped: their room is free when nobody has them
    remove_own(folder / FEATURES, f"*-{'[0-9]' * 8}.npy", "frames.f32")


def fit_bpe(
    tokenizer: Tokenizer,
    manifests: dict[str, pa.Table] | None,
    utterances_folder: str | Path,
    folder: str | Path,
    **settings: Any,
) -> unit_bpe.UnitBPE:
    """Fit unit BPE on the training split's utterances, or load it.

    Of more than ``BPE_UTTERANCES`` those whose SHA-256 come first are taken,
    a draw that depends on nothing but the audio. ``manifests`` and what is
    raised are as for :func:`fit_tokenizer`.

    Arguments
    ---------
    utterances_folder : What ``extract_utterances`` filled.
    **settings : ``vocabulary_size`` and more for ``UnitBPE.fit``.
    """
    path = Path(folder) / unit_bpe.DESCRIPTION
    if manifests is not None:
        table = _training_split(manifests)
        _fit_bpe(tokenizer, table, utterances_folder, path, settings)
    # Also by the rank that has fitted it: all have the same then.
    bpe = unit_bpe.UnitBPE.load(folder, base=tokenizer)
    found = {name: bpe.config["bpe"].get(name) for name in settings}
    if wrong := difference(settings, found):
        raise ValueError(
            f"{path}: not this BPE ({'; '.join(wrong)}). Set bpe as it was "
            "fitted, or choose another tokenizer_folder."
        )
    return bpe


def _fit_bpe(tokenizer, table, utterances_folder, path, settings):
    utterances, base = Utterances(utterances_folder), describe(tokenizer)
    rows = utterances.good_rows(table)[:BPE_UTTERANCES]
    plan = {
        "tokenizer": base,
        "settings": settings,
        "utterances": content_identity(utterances.table, ["sha256"], rows),
    }
    if is_main():
        pin(path.parent, plan, path.name)
        remove_temporary(path.parent)
        if not path.is_file():
            logger.info("Fitting BPE on %d utterances", len(rows))
            sentences = itertools.chain.from_iterable(
                utterances.units(rows[part]) for part in blocks(len(rows))
            )
            bpe = unit_bpe.UnitBPE.fit(base, sentences, **settings)
            drawn = utterances.units(rows[:_DRAWN])
            unit_bpe.warn_of_rare_pieces(bpe, drawn, len(table))
            bpe.save(path.parent)
    barrier()
