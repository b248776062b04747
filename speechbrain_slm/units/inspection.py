"""What a unit store holds and how good its units are.

All but the counts and the codebook's use is measured on stories that are drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.units import quality
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

    ValueError if a file is damaged, the manifest is of other stories, or
    phones cannot be laid beside the units.

    Arguments
    ---------
    manifest : What it was made of, with or without a ``text`` column.
    phones : When each phone begins, a table of the columns ``PHONES``.
    num_stories : Rows (a story in a language) that quality is measured on.
    """
    info, tables = read_tables(folder)
    tokenizer = info["tokenizer"]
    if phones and (tokenizer["deduplicated"] or "bpe" in tokenizer["config"]):
        raise ValueError(
            f"{folder}: its units are de-duplicated or pieces, which have "
            "no place in time; phones have. Extract with deduplicate: False "
            "and bpe: null, or leave out --phones."
        )
    lengths = _lengths(tables)
    spoken, drawn = _count(lengths), _draw(tables, num_stories, seed)
    texts: dict = {}
    starts: dict = {}
    if manifest:
        table = read_table(manifest, MANIFEST, MANIFEST_KEY)
        _add_seconds(spoken, lengths, table, manifest)
        if "text" in table.column_names:
            key = ("story_id", "language")
            texts = _told(table, drawn, key, "sentence", "text")
    if phones:
        table = read_table(phones, PHONES, PHONES_KEY)
        starts = _told(table, drawn, MANIFEST_KEY, "start", "start", "phone")
    languages = {}
    for language in info["counts"]:
        stories = [story for story in drawn if story["language"] == language]
        found = languages[language] = _measure(stories, texts, tokenizer)
        if manifest:
            rate = tokenizer["frame_rate"]
            found["units_per_frame"] = _units_per_frame(spoken, language, rate)
        if starts:
            found |= _phone_information(stories, starts, tokenizer)
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


def _count(lengths):
    counts = [("story_id", "count"), ("sentences", "sum"), ("units", "sum")]
    grouped = lengths.group_by(SPOKEN).aggregate(counts)
    grouped = grouped.sort_by([(name, "ascending") for name in SPOKEN])
    names = [*SPOKEN, "stories", "sentences", "units"]
    return grouped.rename_columns(names).to_pylist()


def _add_seconds(spoken, lengths, table, path):
    """Add the speech of the stories that are whole in the store."""
    samples, rates = table["num_samples"], table["sample_rate"]
    seconds = pc.divide(samples.cast(pa.float64()), rates.cast(pa.float64()))
    keys = ["story_id", "language"]
    grouped = table.append_column("seconds", seconds).group_by(keys)
    told = grouped.aggregate([("seconds", "sum"), ("sentence", "count")])
    joined = lengths.join(told, keys, join_type="inner")
    # Sentences that were dropped for bad audio are in the manifest still.
    joined = joined.filter(pc.field("sentences") == pc.field("sentence_count"))
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
    timed = [
        (one["hours"] * 3600, one["units_per_second"])
        for one in spoken
        if one["language"] == language and "hours" in one
    ]
    seconds = sum(length for length, _ in timed)
    units = sum(length * rate for length, rate in timed)
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
    use = quality.codebook_use
    return {
        "vocabulary_size": size,
        **use(sum(counts.values())),
        "languages": {name: use(count) for name, count in counts.items()},
    }


def _draw(tables, num_stories, seed):
    """Return the drawn rows, their units cut into sentences."""
    generator = np.random.default_rng(seed)
    places = generator.permutation(sum(map(len, tables)))[:num_stories]
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


def _told(table, drawn, key, order, *names):
    """Return what a table says of the drawn stories: columns by ``key``."""
    stories = pa.array({story["story_id"] for story in drawn})
    table = table.filter(pc.is_in(table["story_id"], stories)).sort_by(order)
    found: dict = {}
    for row in table.to_pylist():
        place = found.setdefault(tuple(row[name] for name in key), [])
        place.append([row[name] for name in names])
    return {one: list(zip(*rows, strict=True)) for one, rows in found.items()}


def _measure(stories, texts, tokenizer):
    """Measure the drawn stories of one language."""
    sentences = [units for story in stories for units in story["sentences"]]
    result: dict[str, Any] = {"stories": len(stories)}
    if not sentences:
        return result
    lengths = np.quantile([len(units) for units in sentences], QUANTILES)
    shares = zip(map(str, QUANTILES), lengths.tolist(), strict=True)
    result["sentence_lengths"] = dict(shares)
    if not tokenizer["deduplicated"]:
        ratio = quality.deduplication_ratio(sentences)
        result["deduplication_ratio"] = ratio
    speakers, spoken, said = [], [], []
    for story in stories:
        speaker, units = story["speaker"], story["sentences"]
        # Of a story that several tell, who says which is not known.
        if speaker == SEVERAL:
            continue
        spoken += units
        speakers += [speaker] * sum(map(len, units))
        (told,) = texts.get((story["story_id"], story["language"]), [()])
        if len(told) == len(units):  # the story is whole
            said += [(told[i], speaker, one) for i, one in enumerate(units)]
    if len(set(speakers)) > 1:
        result["speaker_nmi"] = quality.normalized_mutual_information(
            np.array(speakers), np.concatenate(spoken)
        )
    if said:
        result["voices"] = quality.voice_distance(*zip(*said, strict=True))
    return result


def _phone_information(stories, starts, tokenizer):
    labels, units = [], []
    for story in stories:
        for number, sentence in enumerate(story["sentences"]):
            key = (story["story_id"], number, story["language"])
            if key in starts:
                times = (len(sentence), tokenizer["frame_rate"])
                labels.append(quality.frame_labels(*starts[key], *times))
                units.append(sentence)
    if not labels:
        return {}
    told = np.concatenate(labels), np.concatenate(units)
    return {"pnmi": quality.normalized_mutual_information(*told)}


def _sample(drawn, texts, language):
    of_it = (story for story in drawn if story["language"] == language)
    if (story := next(of_it, None)) is None:
        return None
    units = story["sentences"][0]
    (told,) = texts.get((story["story_id"], language), [(None,)])
    return {
        **{name: story[name] for name in ("story_id", *SPOKEN)},
        "units": units[:SHOWN].tolist(),
        "more": max(0, len(units) - SHOWN),
        "text": told[0],
    }
