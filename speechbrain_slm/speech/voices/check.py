"""Does a speaker sound the same in every language?

Some utterances of each speaker and language are embedded, and the languages
of a speaker are compared with each other and with those of other speakers.
Speakers who do not reach the threshold are left out (``filter``).
"""

import itertools
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from speechbrain_slm.speech.voices.encoders import Encoder
from speechbrain_slm.speech.voices.filter import read_batches
from speechbrain_slm.utils.audio import BadAudio, read_audio, resampled
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.jobs import claim, missing, run
from speechbrain_slm.utils.pieces import find_piece, write_piece

logger = logging.getLogger(__name__)
COMPARE = ("means", "pairs")
_COLUMNS = ["speaker", "language", "audio", "sha256"]
Key = tuple[str, str]  # speaker, language
Drawn = dict[Key, list[tuple[str, str]]]  # key -> (sha256, path), as drawn


def draw_utterances(
    manifests: Iterable[str | Path],
    count: int,
    seed: int,
    languages: list[str] | None = None,
) -> Drawn:
    """Draw audio files of each speaker and language from manifests.

    The order of rows and files does not count.

    Arguments
    ---------
    manifests : Parquet files with the columns of ``utils.tables.MANIFEST``.
    count : Distinct files of each speaker and language, or all there are.
    languages : Those that are compared; by default any.
    """
    drawn: dict[Key, dict[str, str]] = {}
    paths = list(map(Path, manifests))
    for path in paths:
        for table in read_batches(path, _COLUMNS):
            # Of a corpus's many rows, few names: Python sees each file once.
            for row in table.group_by(_COLUMNS).aggregate([]).to_pylist():
                found = drawn.setdefault((row["speaker"], row["language"]), {})
                found[row["sha256"]] = str(path.parent / row["audio"])
            # Only what may still be drawn is held.
            for key, found in drawn.items():
                order = sorted(found, key=lambda sha: identity_of([seed, sha]))
                drawn[key] = {name: found[name] for name in order[:count]}
    # Its speech would be kept though nobody has compared it.
    unknown = sorted({key[1] for key in drawn} - set(languages or ()))
    if languages is not None and unknown:
        raise ValueError(
            f"{', '.join(map(str, paths))}: unknown language(s) "
            f"{', '.join(unknown)}; expected {', '.join(languages)}. Add it to "
            "'languages' or drop its rows."
        )
    return {key: list(drawn[key].items()) for key in sorted(drawn)}


def embed_utterances(
    drawn: Drawn,
    encoder: Encoder,
    folder: str | Path,
    num_workers: int = 2,
    per_file: int = 200,
) -> dict[Key, np.ndarray]:
    """Embed drawn utterances; what an earlier run embedded is found.

    The ranks of ``torchrun`` share the work. ValueError if the folder holds
    another encoder's embeddings, or an audio file cannot be read or embedded.

    Arguments
    ---------
    folder : Gets ``plan.json`` and ``*.parquet``.
    per_file : Utterances in a file of embeddings: what a kill can lose.

    Returns
    -------
    (speaker, language) -> float32 [N, D].
    """
    folder = Path(folder)
    files = dict(itertools.chain.from_iterable(drawn.values()))
    rate = encoder.sample_rate

    def embed(names: list[str]) -> None:
        wavs = pool.map(lambda name: _read(files[name], name, rate), names)
        vectors = []
        for name, wav in zip(names, wavs, strict=True):
            vectors.append(encoder.embed(wav).tolist())
            if not np.isfinite(vectors[-1]).all() or not any(vectors[-1]):
                raise ValueError(
                    f"{files[name]}: its embedding is zero or not finite; "
                    f"expected speech. The encoder is {encoder.identity}."
                )
        table = pa.table({"sha256": names, "embedding": vectors})
        path = folder / f"{identity_of(names)[:16]}.parquet"
        write_piece(path, table, {"encoder": encoder.identity})

    with claim(folder) as place, ThreadPoolExecutor(num_workers) as pool:
        place.pin({"encoder": encoder.identity}, "*.parquet")
        own = missing(sorted(files), _known(folder).__contains__)
        starts = range(0, len(own), per_file)
        shards = [own[start : start + per_file] for start in starts]
        run(shards, embed, "files of embeddings")
        known = _known(folder)
    return {
        key: np.stack([known[digest] for digest, _ in pairs])
        for key, pairs in drawn.items()
    }


def _known(folder: Path) -> dict[str, np.ndarray]:
    known: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("[!.]*.parquet")):
        if piece := find_piece(path):
            names, vectors = piece.table.to_pydict().values()
            known |= zip(names, np.array(vectors, np.float32), strict=True)
        else:
            told = "%s is damaged or no embeddings; they are made anew"
            logger.warning(told, path)
    return known


def _read(path: str, digest: str, rate: int) -> np.ndarray:
    try:
        sound = read_audio(path, keep="mono")
        if sound.sha256 != digest:
            raise BadAudio("its SHA-256 is not the manifest's")
        assert sound.samples is not None
        return resampled(sound.samples, sound.sample_rate, rate)
    except BadAudio as error:
        raise ValueError(
            f"{path} cannot be read as audio ({error}); a manifest names it. "
            "Mend the file, or make the manifest again."
        ) from error


def compare_voices(
    embeddings: dict[Key, np.ndarray],
    languages: list[str],
    threshold: float,
    compare: str = "means",
) -> list[dict]:
    """Compare each speaker's languages, and different speakers.

    Arguments
    ---------
    embeddings : (speaker, language) -> [N, D].
    languages : Two or more; every speaker should speak each.
    threshold
        A speaker is kept whose every pair of languages reaches this cosine.
    compare
        ``means``: the cosine of the two mean embeddings. ``pairs``: the mean
        cosine of all pairs of utterances, which is lower, by what utterances
        of one voice and language differ.

    Returns
    -------
    One a speaker, the worst first: ``speaker``, ``utterances`` (language
    -> count), ``cosine`` (of its worst pair of languages; None where it
    lacks a language), ``cosines`` (``"en-fr"`` -> cosine), ``others``
    (mean cosine with other speakers across the same languages),
    ``nearest`` and ``nearest_cosine`` (the most similar of them),
    ``kept`` and ``reason``.
    """
    if compare not in COMPARE or len(languages) < 2:
        raise ValueError(
            f"compare is {compare!r} and languages are {list(languages)}; "
            f"expected one of {', '.join(COMPARE)}, and two languages or more"
        )
    centres = {
        key: _centre(np.asarray(vectors, dtype=np.float64), compare)
        for key, vectors in embeddings.items()
    }
    rows = []
    for name in sorted({speaker for speaker, _ in centres}):
        told = {key: len(embeddings.get((name, key), ())) for key in languages}
        found, reason = _compare(name, centres, languages), ""
        if found["cosine"] is None:
            lacking = [language for language in languages if not told[language]]
            reason = f"no speech in {', '.join(lacking)}"
        elif found["cosine"] < threshold:
            reason = f"cosine {found['cosine']:.4f} is below {threshold}"
        row = {"speaker": name, "utterances": told, **found}
        rows.append({**row, "kept": not reason, "reason": reason})
    return sorted(rows, key=lambda row: (row["cosine"] or 0.0, row["speaker"]))


def _centre(vectors: np.ndarray, compare: str) -> np.ndarray:
    """Reduce embeddings to one vector: products of two are the cosines."""
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    # The mean product of all pairs of unit vectors is that of their means.
    centre = vectors.mean(axis=0)
    return centre / np.linalg.norm(centre) if compare == "means" else centre


def _compare(
    name: str, centres: dict[Key, np.ndarray], languages: list[str]
) -> dict:
    """Compare a speaker's languages, and them with those of other speakers."""

    def cosines(other: str, pairs: Iterable[tuple[str, str]]) -> dict:
        return {
            f"{one}-{two}": float(centres[name, one] @ centres[other, two])
            for one, two in pairs
            if (name, one) in centres and (other, two) in centres
        }

    pairs = list(itertools.combinations(languages, 2))
    both_ways = [way for pair in pairs for way in (pair, pair[::-1])]
    own, others = cosines(name, pairs), {}
    for other in sorted({speaker for speaker, _ in centres} - {name}):
        if found := cosines(other, both_ways):
            others[other] = float(np.mean(list(found.values())))
    nearest = max(others, key=others.__getitem__, default=None)
    return {
        "cosine": min(own.values()) if len(own) == len(pairs) else None,
        "cosines": own,
        "others": float(np.mean(list(others.values()))) if others else None,
        "nearest": nearest,
        "nearest_cosine": others[nearest] if nearest else None,
    }
