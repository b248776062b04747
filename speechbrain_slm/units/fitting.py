"""Fitting tokenizers on the training split, once.

One rank fits while the others wait for it in a barrier, so under ``torchrun``
a fit that takes longer than ``utils.distributed.TIMEOUT`` (30 minutes) ends
the run. Fit with one process then; any number of ranks goes on from there.
"""

import logging
from pathlib import Path

import pyarrow.compute as pc

from speechbrain_slm.units import bpe as unit_bpe
from speechbrain_slm.units import mel_kmeans
from speechbrain_slm.units.audio import read_clips
from speechbrain_slm.units.extraction import read_utterances
from speechbrain_slm.units.manifest import (
    content_identity,
    refuse_missing_audio,
    sample_utterances,
)
from speechbrain_slm.units.tokenizer import describe
from speechbrain_slm.utils.atomic import remove_temporary
from speechbrain_slm.utils.distributed import barrier, is_main
from speechbrain_slm.utils.plans import pin_plan

logger = logging.getLogger(__name__)


def fit_tokenizer(tokenizer, manifests, folder, seconds, seed, num_workers=2):
    """Fit a k-means tokenizer on frames of a manifest, or load it.

    Arguments
    ---------
    tokenizer : MelKMeans
        Not fitted yet: its configuration.
    manifests : dict
        A manifest (pyarrow.Table) for each split; ``train`` is what it is
        fitted on.
    folder : str or Path
        Where the tokenizer is kept.
    seconds : float
        Speech to fit on, the same amount of each (language, speaker).
    seed : int
        Of the draw and of k-means.
    num_workers : int
        Threads that read audio ahead.

    Returns
    -------
    MelKMeans
        The fitted tokenizer.

    Raises
    ------
    FileNotFoundError
        If it is to be fitted and an audio file of any split does not exist.
    ValueError
        If the folder's tokenizer was fitted otherwise: the message names the
        field.
    """
    table = manifests["train"]
    columns = ["sha256", "language", "speaker"]
    spoken = table.group_by(columns).aggregate([])
    spoken = spoken.sort_by([(name, "ascending") for name in columns])
    plan = {
        "config": tokenizer.config,
        "seconds": seconds,
        "seed": seed,
        "speech": content_identity(spoken, columns),
    }
    if is_main():
        fitted = (Path(folder) / mel_kmeans.DESCRIPTION).is_file()
        if not fitted:
            # All splits: the extraction would find them out after the fit.
            columns = [split["audio"] for split in manifests.values()]
            audio = set().union(*(column.to_pylist() for column in columns))
            refuse_missing_audio(sorted(audio))
        pin_plan(folder, plan, mel_kmeans.DESCRIPTION)
        remove_temporary(folder)
        if not fitted:
            drawn = sample_utterances(table, seconds, seed)
            clips = read_clips(drawn, tokenizer.sample_rate, num_workers)
            # Bad audio is told when the utterances are extracted.
            wavs = (clip.wav for clip in clips if not clip.reason)
            logger.info("Fitting k-means on %d utterances", len(drawn))
            tokenizer.fit(wavs, seed)
            tokenizer.save(folder)
    barrier()
    return type(tokenizer).load(folder)


def fit_bpe(tokenizer, table, utterances_folder, folder, **settings):
    """Fit unit BPE on the training split's utterances, or load it.

    Arguments
    ---------
    tokenizer : Tokenizer
        Made the units.
    table : pyarrow.Table
        The training split's manifest.
    utterances_folder : str or Path
        What ``extract_utterances`` filled.
    folder : str or Path
        Where the BPE is kept.
    **settings : dict
        ``vocabulary_size`` and more for ``UnitBPE.fit``.

    Returns
    -------
    UnitBPE
        The fitted encoder.

    Raises
    ------
    ValueError
        If the folder's BPE was fitted otherwise: the message names the
        field.
    """
    utterances = read_utterances(utterances_folder)
    train = pc.is_in(utterances["sha256"], pc.unique(table["sha256"]))
    good = pc.equal(utterances["reason"], "")
    utterances = utterances.filter(pc.and_(train, good))
    plan = {
        "tokenizer": describe(tokenizer),
        "settings": settings,
        "utterances": content_identity(utterances, ["sha256"]),
    }
    if is_main():
        pin_plan(folder, plan, unit_bpe.DESCRIPTION)
        remove_temporary(folder)
        if not (Path(folder) / unit_bpe.DESCRIPTION).is_file():
            sentences = utterances["units"].to_pylist()
            logger.info("Fitting BPE on %d utterances", len(sentences))
            bpe = unit_bpe.UnitBPE.fit(
                describe(tokenizer), sentences, **settings
            )
            bpe.save(folder)
    barrier()
    return unit_bpe.UnitBPE.load(folder, base=tokenizer)
