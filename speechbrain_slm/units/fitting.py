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

from speechbrain_slm.units import manifest
from speechbrain_slm.units.audio import pad, read_clips
from speechbrain_slm.units.tokenizers import base, bpe, kmeans
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
    tokenizer: base.Tokenizer,
    manifests: dict[str, pa.Table] | None,
    folder: str | Path,
    seconds: float | None,
    seed: int | None,
    max_seconds: float = MAX_SECONDS,
) -> base.Tokenizer:
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
    if not tokenizer.fitted:
        fitted = cast(kmeans.KMeansTokenizer, tokenizer)
        if manifests is not None:
            _fit_kmeans(fitted, manifests, folder, seconds, seed, max_seconds)
        fitted.restore(folder)
    elif manifests is None:
        base.check_saved(tokenizer.config, folder, tokenizer.identity)
    else:
        plan = {"config": tokenizer.config, "identity": tokenizer.identity}
        if is_main() and _begin(folder / base.DESCRIPTION, plan):
            tokenizer.save(folder)
        barrier()
    return tokenizer


def _begin(path: Path, plan: dict[str, Any]) -> bool:
    """Pin what a folder will hold; tell whether it is still to be made."""
    pin(path.parent, plan, path.name)
    remove_temporary(path.parent)
    return not path.is_file()


def _training_split(manifests: dict[str, pa.Table]) -> pa.Table:
    if "train" not in manifests:
        raise ValueError(
            f"The manifests are those of {', '.join(manifests)}; expected one "
            "of train to fit on, or a finished tokenizer in tokenizer_folder"
        )
    return manifests["train"]


def _fit_kmeans(tokenizer, manifests, folder, seconds, seed, max_seconds):
    if seconds is None:
        raise ValueError(
            "fit_seconds is null; expected seconds: this tokenizer is fitted"
        )
    table, done = _training_split(manifests), folder / base.DESCRIPTION
    if is_main():
        told = ["sha256", "language", "speaker"]
        rows = manifest.distinct_utterances(table)["row"]
        speech = manifest.content_identity(table, told, rows)
        plan = {"config": tokenizer.config, "seconds": seconds, "seed": seed}
        # All splits: the extraction would find them out after the fit.
        for split in {} if done.is_file() else manifests.values():
            rows = manifest.distinct_utterances(split)["row"]
            manifest.refuse_missing_audio(split, rows)
        _begin(done, plan | {"speech": speech})
        remove_temporary(folder / FEATURES)
    barrier()
    if not done.is_file():
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


def _shards(tokenizer, table, folder, seconds, seed):
    """Return the language and the utterances of each shard of features."""
    drawn: dict[str, list] = {}
    joint = tokenizer.codebooks == "joint"
    for utterance in manifest.sample_utterances(table, seconds, seed):
        language = kmeans.JOINT if joint else utterance["language"]
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
    for batch in _batches(list(map(len, wavs)), limit):
        features = tokenizer.features(*pad([wavs[i] for i in batch]))
        for i, points in zip(batch, features, strict=True):
            if kmeans.is_finite(points):
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
    tokenizer: base.Tokenizer,
    manifests: dict[str, pa.Table] | None,
    utterances_folder: str | Path,
    folder: str | Path,
    **settings: Any,
) -> bpe.UnitBPE:
    """Fit unit BPE on the training split's utterances, or load it.

    Of more than ``BPE_UTTERANCES`` those whose SHA-256 come first are taken,
    a draw that depends on nothing but the audio. ``manifests`` and what is
    raised are as for :func:`fit_tokenizer`.

    Arguments
    ---------
    utterances_folder : What ``extract_utterances`` filled.
    **settings : ``vocabulary_size`` and more for ``UnitBPE.fit``.
    """
    path = Path(folder) / bpe.DESCRIPTION
    if manifests is not None:
        table = _training_split(manifests)
        _fit_bpe(tokenizer, table, utterances_folder, path, settings)
    # Also by the rank that has fitted it: all have the same then.
    fitted = bpe.UnitBPE.load(folder, base=tokenizer)
    found = {name: fitted.config["bpe"].get(name) for name in settings}
    if wrong := difference(settings, found):
        raise ValueError(
            f"{path}: not this BPE ({'; '.join(wrong)}). Set bpe as it was "
            "fitted, or choose another tokenizer_folder."
        )
    return fitted


def _fit_bpe(tokenizer, table, utterances_folder, path, settings):
    utterances, told = Utterances(utterances_folder), base.describe(tokenizer)
    rows = utterances.good_rows(table)[:BPE_UTTERANCES]
    identity = manifest.content_identity(utterances.table, ["sha256"], rows)
    plan = {"tokenizer": told, "settings": settings, "utterances": identity}
    if is_main() and _begin(path, plan):
        logger.info("Fitting BPE on %d utterances", len(rows))
        parts = (utterances.units(rows[part]) for part in blocks(len(rows)))
        sentences = itertools.chain.from_iterable(parts)
        fitted = bpe.UnitBPE.fit(told, sentences, **settings)
        drawn = utterances.units(rows[:_DRAWN])
        bpe.warn_of_rare_pieces(fitted, drawn, len(table))
        fitted.save(path.parent)
    barrier()
