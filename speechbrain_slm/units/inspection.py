"""What a unit store holds and how good its units are.

Everything but the counts and the codebook's use is measured on stories drawn
by a seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.units.quality import (
    codebook_use,
    deduplication_ratio,
    frame_labels,
    normalized_mutual_information,
    voice_distance,
)
from speechbrain_slm.utils.store_format import SEVERAL, read_tables
from speechbrain_slm.utils.tables import MANIFEST, MANIFEST_KEY, read_table

# A row a phone; start is in seconds from the beginning of its sentence.
_START = [pa.field("start", pa.float64()), pa.field("phone", pa.string())]
PHONES = pa.schema([*(MANIFEST.field(name) for name in MANIFEST_KEY), *_START])
PHONES_KEY = ("story_id", "sentence", "language", "start")
SPOKEN = ["language", "speaker"]
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
SHOWN = 12  # units of a sample sentence


def inspect_store(
    folder: str | Path,
    manifest: str | Path | None = None,
    phones: str | Path | None = None,
    num_stories: int = 5000,
    seed: int = 1986,
) -> dict[str, Any]:
    """Verify and measure a store.

    Arguments
    ---------
    manifest : What it was made of, with or without a ``text`` column.
    phones : When each phone begins, a table of the columns ``PHONES``.
    num_stories : Rows (a story in a language) that quality is measured on.

    Raises
    ------
    ValueError
        If a file is damaged, the manifest is of other stories, or phones
        cannot be laid beside the units.
    """
    info, tables = read_tables(folder)
    tokenizer = info["tokenizer"]
    if phones and (tokenizer["deduplicated"] or "bpe" in tokenizer["config"]):
        raise ValueError(
            f"{folder}: its units are de-duplicated or pieces, which have "
            "no place in time; phones have. Extract with deduplicate: False "
            "and bpe: null, or leave out --phones."
        )
    spoken = _count(tables)
    drawn = _draw(tables, num_stories, seed)
    texts: dict = {}
    if manifest:
        table = read_table(manifest, MANIFEST, MANIFEST_KEY)
        _add_seconds(spoken, tables, table, manifest)
        texts = _texts(table, drawn)
    starts = _phones(phones, drawn) if phones else {}
    languages = {}
    for language in info["counts"]:
        stories = [story for story in drawn if story["language"] == language]
        found = _measure(stories, texts, starts, tokenizer)
        if manifest:
            rate = tokenizer["frame_rate"]
            found["units_per_frame"] = _units_per_frame(spoken, language, rate)
        languages[language] = found
    return {
        "folder": str(folder),
        "store": info,
        "spoken": spoken,
        "codebook": _codebook(tables, info),
        "languages": languages,
        "sample": [_sample(drawn, texts, name) for name in info["counts"]],
    }


def _lengths(tables):
    """Return what the files say beside the units; lengths in their place."""
    names, counted = ("story_id", *SPOKEN), ("sentence_ends", "units")
    columns = [
        [table[name] for name in names]
        + [pc.list_value_length(table[name]) for name in counted]
        for table in tables
    ]
    names = [*names, "sentences", "units"]
    return pa.concat_tables(pa.table(one, names) for one in columns)


def _count(tables):
    counts = [("story_id", "count"), ("sentences", "sum"), ("units", "sum")]
    grouped = _lengths(tables).group_by(SPOKEN).aggregate(counts)
    grouped = grouped.sort_by([(name, "ascending") for name in SPOKEN])
    names = [*SPOKEN, "stories", "sentences", "units"]
    return grouped.rename_columns(names).to_pylist()


def _add_seconds(spoken, tables, table, path):
    """Add the speech of the stories that are whole in the store."""
    samples, rates = table["num_samples"], table["sample_rate"]
    seconds = pc.divide(samples.cast(pa.float64()), rates.cast(pa.float64()))
    keys = ["story_id", "language"]
    grouped = table.append_column("seconds", seconds).group_by(keys)
    lengths = grouped.aggregate([("seconds", "sum"), ("sentence", "count")])
    joined = _lengths(tables).join(lengths, keys, join_type="inner")
    # Sentences that were dropped for bad audio are in the manifest still.
    whole = pc.equal(joined["sentences"], joined["sentence_count"])
    joined = joined.filter(whole)
    if not len(joined):
        raise ValueError(
            f"{path} holds no story of the store; expected the manifest that "
            "it was made of"
        )
    sums = [("seconds_sum", "sum"), ("units", "sum")]
    entries = {tuple(one[name] for name in SPOKEN): one for one in spoken}
    for row in joined.group_by(SPOKEN).aggregate(sums).to_pylist():
        entry = entries[tuple(row[name] for name in SPOKEN)]
        length = row["seconds_sum_sum"]
        entry["hours"] = length / 3600
        entry["units_per_second"] = row["units_sum"] / length


def _units_per_frame(spoken, language, frame_rate):
    seconds = units = 0.0
    for entry in spoken:
        if entry["language"] == language and "hours" in entry:
            seconds += (told := entry["hours"] * 3600)
            units += told * entry["units_per_second"]
    return units / (seconds * frame_rate) if seconds else None


def _codebook(tables, info):
    """Measure how all units, and those of each language, use the codebook."""
    size = info["tokenizer"]["vocabulary_size"]
    counts = {name: np.zeros(size, np.int64) for name in info["counts"]}
    for table in tables:
        for language in pc.unique(table["language"]).to_pylist():
            rows = table.filter(pc.equal(table["language"], language))
            for chunk in rows["units"].chunks:
                values = chunk.flatten().to_numpy()
                counts[language] += np.bincount(values, minlength=size)
    return {
        "vocabulary_size": size,
        **codebook_use(sum(counts.values())),
        "languages": {name: codebook_use(c) for name, c in counts.items()},
    }


def _draw(tables, num_stories, seed):
    """Return the drawn rows, their units cut into sentences."""
    total = sum(map(len, tables))
    generator = np.random.default_rng(seed)
    places = generator.permutation(total)[:num_stories]
    drawn, first = [], 0
    # File by file: taken from all at once, a column would be copied whole.
    for table in tables:
        here = (places >= first) & (places < first + len(table))
        rows = table.take(pa.array(np.sort(places[here] - first)))
        told = rows.select(["story_id", *SPOKEN]).to_pylist()
        columns = (told, rows["units"], rows["sentence_ends"])
        for row, units, ends in zip(*columns, strict=True):
            bounds = ends.values.to_numpy()[:-1]
            row["sentences"] = np.split(units.values.to_numpy(), bounds)
            drawn.append(row)
        first += len(table)
    return drawn


def _rows_of(table, drawn):
    names = pa.array({story["story_id"] for story in drawn})
    return table.filter(pc.is_in(table["story_id"], names))


def _texts(table, drawn):
    """Return the texts of the drawn stories, by story and language."""
    texts: dict = {}
    if "text" in table.column_names:
        for row in _rows_of(table, drawn).sort_by("sentence").to_pylist():
            key = (row["story_id"], row["language"])
            texts.setdefault(key, []).append(row["text"])
    return texts


def _phones(path, drawn):
    """Return (starts, phones) of each sentence of the drawn stories."""
    table = _rows_of(read_table(path, PHONES, PHONES_KEY), drawn)
    found: dict = {}
    for row in table.sort_by("start").to_pylist():
        key = (row["story_id"], row["language"], row["sentence"])
        starts, phones = found.setdefault(key, ([], []))
        starts.append(row["start"])
        phones.append(row["phone"])
    return found


def _measure(stories, texts, starts, tokenizer):
    """Measure the drawn stories of one language."""
    sentences = [units for story in stories for units in story["sentences"]]
    result: dict[str, Any] = {"stories": len(stories)}
    if not sentences:
        return result
    lengths = np.quantile([len(units) for units in sentences], QUANTILES)
    result["sentence_lengths"] = dict(
        zip(map(str, QUANTILES), lengths.tolist(), strict=True)
    )
    if not tokenizer["deduplicated"]:
        result["deduplication_ratio"] = deduplication_ratio(sentences)
    speakers, spoken, said = [], [], []
    for story in stories:
        speaker, units = story["speaker"], story["sentences"]
        # Of a story that several tell, who says which is not known.
        if speaker == SEVERAL:
            continue
        spoken += units
        speakers += [speaker] * sum(map(len, units))
        told = texts.get((story["story_id"], story["language"]), [])
        if len(told) == len(units):  # the story is whole
            said += [(told[i], speaker, one) for i, one in enumerate(units)]
    if len(set(speakers)) > 1:
        result["speaker_nmi"] = normalized_mutual_information(
            np.array(speakers), np.concatenate(spoken)
        )
    if said:
        result["voices"] = voice_distance(*zip(*said, strict=True))
    labels, labelled = [], []
    for story in stories:
        for number, units in enumerate(story["sentences"]):
            key = (story["story_id"], story["language"], number)
            if key in starts:
                times = (len(units), tokenizer["frame_rate"])
                labels.append(frame_labels(*starts[key], *times))
                labelled.append(units)
    if labels:
        result["pnmi"] = normalized_mutual_information(
            np.concatenate(labels), np.concatenate(labelled)
        )
    return result


def _sample(drawn, texts, language):
    of_it = (story for story in drawn if story["language"] == language)
    if (story := next(of_it, None)) is None:
        return None
    units = story["sentences"][0]
    return {
        **{name: story[name] for name in ("story_id", *SPOKEN)},
        "units": units[:SHOWN].tolist(),
        "more": max(0, len(units) - SHOWN),
        "text": texts.get((story["story_id"], language), [None])[0],
    }
