"""Does a speaker sound the same in every language?

Some utterances of each speaker and language are embedded, and the languages
of a speaker are compared with each other and with those of other speakers.
Speakers who do not reach the threshold are left out (``voice_filter``).
"""

import itertools
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from speechbrain_slm.utils.audio import BadAudio, read_audio, resampled
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.jobs import claim, missing, run
from speechbrain_slm.utils.pieces import find_piece, write_piece

logger = logging.getLogger(__name__)
COMPARE = ("means", "pairs")
_COLUMNS = ["speaker", "language", "audio", "sha256"]
_BATCH_ROWS = 65536


def draw_utterances(
    manifests: Iterable[str | Path],
    count: int,
    seed: int,
    languages: list[str] | None = None,
) -> dict:
    """Draw audio files of each speaker and language from manifests.

    The manifests are read in batches; only what may still be drawn is held.

    Arguments
    ---------
    manifests : Parquet files with the columns of ``utils.tables.MANIFEST``.
    count : Distinct files of each speaker and language, or all there are.
    seed
        Another seed draws others. The order of rows and files does not count.
    languages : Those that are compared; by default any.

    Returns
    -------
    (speaker, language) -> list of (sha256, path), in drawn order.

    Raises
    ------
    ValueError
        If a manifest has another language: its speech would be kept though
        nobody has compared it.
    """
    drawn, manifests = {}, list(manifests)
    for path in map(Path, manifests):
        # Of a corpus's many rows, few names: Python sees each file once.
        for batch in pq.ParquetFile(path).iter_batches(
            _BATCH_ROWS, columns=_COLUMNS
        ):
            table = pa.Table.from_batches([batch])
            for row in table.group_by(_COLUMNS).aggregate([]).to_pylist():
                found = drawn.setdefault((row["speaker"], row["language"]), {})
                found[row["sha256"]] = str(path.parent / row["audio"])
            for key, found in drawn.items():
                first = sorted(
                    found, key=lambda digest: identity_of([seed, digest])
                )
                drawn[key] = {name: found[name] for name in first[:count]}
    found = {language for _, language in drawn}
    unknown = [] if languages is None else sorted(found - set(languages))
    if unknown:
        raise ValueError(
            f"{', '.join(map(str, manifests))}: unknown language(s) "
            f"{', '.join(unknown)}; expected {', '.join(languages)}. Add it to "
            "'languages' or drop its rows."
        )
    return {key: list(drawn[key].items()) for key in sorted(drawn)}


def embed_utterances(
    drawn: dict,
    encoder: object,
    folder: str | Path,
    num_workers: int = 2,
    per_file: int = 200,
) -> dict:
    """Embed drawn utterances; what an earlier run embedded is found.

    The ranks of ``torchrun`` share the work.

    Arguments
    ---------
    drawn : From :func:`draw_utterances`.
    encoder : See ``speaker_encoders``.
    folder : Gets ``plan.json`` and ``*.parquet``.
    per_file : Utterances in a file of embeddings: what a kill can lose.

    Returns
    -------
    (speaker, language) -> float32 [N, D].

    Raises
    ------
    ValueError
        If the folder holds another encoder's embeddings, or an audio file
        cannot be read or gives an embedding that is not finite or is zero.
    """
    folder = Path(folder)
    files = dict(itertools.chain.from_iterable(drawn.values()))
    rate = encoder.sample_rate

    def embed(names):
        wavs = pool.map(lambda name: _read(files[name], name, rate), names)
        vectors = [
            _embed(encoder, wav, files[name])
            for name, wav in zip(names, wavs, strict=True)
        ]
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


def _known(folder):
    known = {}
    for path in sorted(folder.glob("[!.]*.parquet")):
        piece = find_piece(path)
        if piece is None:
            logger.warning(
                "%s is damaged or no embeddings; they are made anew", path
            )
            continue
        for digest, vector in zip(
            piece.table["sha256"].to_pylist(),
            piece.table["embedding"].to_pylist(),
            strict=True,
        ):
            known[digest] = np.asarray(vector, dtype=np.float32)
    return known


def _read(path, digest, rate):
    try:
        sound = read_audio(path, keep="mono")
        if sound.sha256 != digest:
            raise BadAudio("its SHA-256 is not the manifest's")
        return resampled(sound.samples, sound.sample_rate, rate)
    except BadAudio as error:
        raise ValueError(
            f"{path} cannot be read as audio ({error}); a manifest names it. "
            "Mend the file, or make the manifest again."
        ) from error


def _embed(encoder, wav, path):
    vector = encoder.embed(wav)
    if not np.isfinite(vector).all() or not vector.any():
        raise ValueError(
            f"{path}: its embedding is zero or not finite; expected speech. "
            f"The encoder is {encoder.identity}."
        )
    return vector.tolist()


def compare_voices(
    embeddings: dict,
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

    Raises
    ------
    ValueError
        For an unknown ``compare`` or fewer than two languages.

    Example
    -------
    >>> one, other = [[1.0, 0.0]], [[0.0, 1.0]]
    >>> found = compare_voices(
    ...     {("a", "en"): one, ("a", "fr"): one,
    ...      ("b", "en"): one, ("b", "fr"): other}, ["en", "fr"], 0.9)
    >>> [(row["speaker"], row["cosine"], row["kept"]) for row in found]
    [('b', 0.0, False), ('a', 1.0, True)]
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
    names = sorted({speaker for speaker, _ in centres})
    pairs = list(itertools.combinations(languages, 2))
    rows = []
    for name in names:
        own = {
            f"{one}-{two}": float(centres[name, one] @ centres[name, two])
            for one, two in pairs
            if (name, one) in centres and (name, two) in centres
        }
        others = _others(name, names, centres, pairs)
        nearest = max(others, key=others.get, default=None)
        row = {
            "speaker": name,
            "utterances": {
                language: len(embeddings.get((name, language), ()))
                for language in languages
            },
            "cosine": min(own.values()) if len(own) == len(pairs) else None,
            "cosines": own,
            "others": float(np.mean(list(others.values()))) if others else None,
            "nearest": nearest,
            "nearest_cosine": others.get(nearest),
        }
        reason = _reason(row, languages, threshold)
        rows.append({**row, "kept": not reason, "reason": reason})
    return sorted(rows, key=lambda row: (row["cosine"] or 0.0, row["speaker"]))


def _centre(vectors, compare):
    """Reduce embeddings to one vector: products of two are the cosines."""
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    # The mean product of all pairs of unit vectors is that of their means.
    centre = vectors.mean(axis=0)
    return centre / np.linalg.norm(centre) if compare == "means" else centre


def _others(name, names, centres, pairs):
    """Return the mean cosine, across languages, with each other speaker."""
    found = {}
    for other in names:
        cosines = [
            float(centres[one] @ centres[two])
            for pair in pairs
            for first, second in (pair, pair[::-1])
            if (one := (name, first)) in centres
            and (two := (other, second)) in centres
        ]
        if other != name and cosines:
            found[other] = float(np.mean(cosines))
    return found


def _reason(row, languages, threshold):
    if row["cosine"] is None:
        lacking = [name for name in languages if not row["utterances"][name]]
        return f"no speech in {', '.join(lacking)}"
    if row["cosine"] < threshold:
        return f"cosine {row['cosine']:.4f} is below {threshold}"
    return ""
