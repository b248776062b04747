"""Manifests as the extraction needs them: checked, and each audio once."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.utils.tables import (
    MANIFEST,
    MANIFEST_KEY,
    check_alignment,
    read_table,
)


def read_manifest(path, languages):
    """Read a manifest and refuse one that a store cannot be made of.

    Arguments
    ---------
    path : str or Path
        A ``.parquet`` or ``.csv`` file.
    languages : sequence of str
        The languages that it may hold.

    Returns
    -------
    pyarrow.Table
        The columns of ``MANIFEST``, audio paths absolute or relative to the
        working directory.

    Raises
    ------
    ValueError
        If it has no row, an unknown language, a story whose languages differ
        in their number of sentences, or one with two speakers.
    """
    path = Path(path)
    table = read_table(path, MANIFEST, MANIFEST_KEY).select(MANIFEST.names)
    table = table.combine_chunks()
    if not len(table):
        raise ValueError(f"{path} has no row; expected a spoken sentence a row")
    check_alignment(path, table, languages)
    speakers = table.group_by(["story_id", "language"]).aggregate(
        [("speaker", "min"), ("speaker", "max")]
    )
    mixed = speakers.filter(
        pc.not_equal(speakers["speaker_min"], speakers["speaker_max"])
    )
    if len(mixed):
        row = mixed.slice(0, 1).to_pylist()[0]
        raise ValueError(
            f"{path}: story '{row['story_id']}' has several speakers in "
            f"'{row['language']}' ('{row['speaker_min']}', "
            f"'{row['speaker_max']}'); a row of the store has one. Give the "
            "story one name for them."
        )
    absolute = pc.starts_with(table["audio"], "/")
    beside = pc.binary_join_element_wise(str(path.parent), table["audio"], "/")
    audio = pc.if_else(absolute, table["audio"], beside)
    return table.set_column(
        table.column_names.index("audio"), "audio", audio
    ).combine_chunks()


def distinct_utterances(tables):
    """List every audio file that manifests name, once.

    Arguments
    ---------
    tables : iterable of pyarrow.Table
        Manifests.

    Returns
    -------
    pyarrow.Table
        ``sha256, audio, num_samples, sample_rate`` in the order of their
        SHA-256, which does not depend on the order of the rows.

    Raises
    ------
    ValueError
        If rows say different things of the same audio.
    """
    names = ["sha256", "audio", "num_samples", "sample_rate"]
    rows = pa.concat_tables(table.select(names) for table in tables)
    grouped = rows.group_by("sha256").aggregate(
        [(name, side) for name in names[1:] for side in ("min", "max")]
    )
    for name in names[2:]:
        low, high = grouped[f"{name}_min"], grouped[f"{name}_max"]
        differ = pc.not_equal(low, high)
        if pc.any(differ).as_py():
            row = grouped.filter(differ).slice(0, 1).to_pylist()[0]
            raise ValueError(
                f"{row['audio_min']}: rows of the manifests give its "
                f"{name} as {row[f'{name}_min']} and {row[f'{name}_max']} "
                "under one sha256; expected one value"
            )
    columns = {
        name: grouped[name if name == "sha256" else f"{name}_min"]
        for name in names
    }
    return pa.table(columns).sort_by("sha256").combine_chunks()


def refuse_missing_audio(paths):
    """Stop where audio files are not there, before any work is done.

    Arguments
    ---------
    paths : iterable of str
        The audio files that manifests name.

    Raises
    ------
    FileNotFoundError
        Names the first that does not exist.
    """
    absent = [path for path in paths if not Path(path).is_file()]
    if absent:
        raise FileNotFoundError(
            f"{absent[0]} does not exist, though a manifest names it "
            f"({len(absent)} such file(s)); expected every file of the "
            "manifests, so nothing was fitted or encoded. Mend the "
            "manifest's paths, or bring the audio back."
        )


def content_identity(table, columns):
    """Name the content of a table's columns, in the order of its rows.

    Arguments
    ---------
    table : pyarrow.Table
        Any table of numbers and strings.
    columns : sequence of str
        The columns that count. Leave out paths, and moving the audio changes
        nothing.

    Returns
    -------
    str
        64 hexadecimal digits.

    Example
    -------
    >>> table = pa.table({"a": ["x", "y"], "b": [1, 2]})
    >>> content_identity(table, ["a"]) == content_identity(table[:1], ["a"])
    False
    """
    digest = hashlib.sha256()
    for name in columns:
        text = "\n".join(table[name].cast(pa.string()).to_pylist())
        digest.update(f"{name}\n{len(table)}\n{text}\n".encode())
    return digest.hexdigest()


def sample_utterances(table, seconds, seed):
    """Draw audio files, the same amount of each (language, speaker).

    Arguments
    ---------
    table : pyarrow.Table
        A manifest.
    seconds : float
        Of speech in all. Each (language, speaker) gives its share, or all it
        has where that is less.
    seed : int
        Of the draw.

    Returns
    -------
    list of dict
        ``sha256, audio, num_samples, sample_rate`` of each.
    """
    spoken = table.group_by(["language", "speaker"]).aggregate([])
    strata = sorted(tuple(row.values()) for row in spoken.to_pylist())
    drawn = []
    for number, (language, speaker) in enumerate(strata):
        here = pc.and_(
            pc.equal(table["language"], language),
            pc.equal(table["speaker"], speaker),
        )
        utterances = distinct_utterances([table.filter(here)])
        generator = np.random.default_rng([seed, number])
        order = generator.permutation(len(utterances))
        lengths = pc.divide(
            utterances["num_samples"].cast(pa.float64()),
            utterances["sample_rate"].cast(pa.float64()),
        ).to_numpy()[order]
        before = np.cumsum(lengths) - lengths
        drawn += utterances.take(
            order[before < seconds / len(strata)]
        ).to_pylist()
    return drawn
