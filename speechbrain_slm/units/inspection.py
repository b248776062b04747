"""What a unit store holds and how good its units are.

Everything but the counts and the codebook's use is measured on stories drawn
by a seed.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.units.quality import (
    codebook_use,
    deduplication_ratio,
    frame_labels,
    length_quantiles,
    normalized_mutual_information,
    voice_distance,
)
from speechbrain_slm.utils.store_format import SEVERAL, read_tables
from speechbrain_slm.utils.tables import MANIFEST, MANIFEST_KEY, read_table

# A row a phone; start is in seconds from the beginning of its sentence.
PHONES = pa.schema(
    [
        ("story_id", pa.string()),
        ("sentence", pa.int32()),
        ("language", pa.string()),
        ("start", pa.float64()),
        ("phone", pa.string()),
    ]
)
PHONES_KEY = ("story_id", "sentence", "language", "start")
SPOKEN = ["language", "speaker"]
SHOWN = 12  # units of a sample sentence


def inspect_store(
    folder: str | Path,
    manifest: str | Path | None = None,
    phones: str | Path | None = None,
    num_stories: int = 5000,
    seed: int = 1986,
) -> dict:
    """Verify and measure a store.

    Arguments
    ---------
    manifest : What it was made of, with or without a ``text`` column.
    phones : When each phone begins, a table of the columns ``PHONES``.
    num_stories : Rows (a story in a language) that quality is measured on.

    Returns
    -------
    ``store`` (its own words), ``spoken`` (counts a language and speaker),
    ``codebook``, ``languages`` (what is measured in each) and
    ``sample`` (a sentence of each).

    Raises
    ------
    ValueError
        If a file is damaged (the message names it), the manifest is of other
        stories, or phones cannot be laid beside the units.

    Example
    -------
    >>> from speechbrain_slm.utils.store import StoreWriter
    >>> tokenizer = dict(identity="1a", vocabulary_size=5, frame_rate=25.0,
    ...                  deduplicated=False, config={})
    >>> folder = getfixture("tmp_path")
    >>> writer = StoreWriter(folder, tokenizer, source="2b", num_shards=1)
    >>> writer.write(0, [("s0", "en", "alto", [[1, 1], [4, 4]])])
    >>> _ = writer.finish()
    >>> found = inspect_store(folder)
    >>> found["codebook"]["dead"]
    3
    >>> found["languages"]["en"]["deduplication_ratio"]
    0.5
    """
    info, tables = read_tables(folder)
    tokenizer = info["tokenizer"]
    if phones and (tokenizer["deduplicated"] or "bpe" in tokenizer["config"]):
        raise ValueError(
            f"{folder}: its units are de-duplicated or pieces, so they have "
            "no place in time; phones need a unit a frame. Extract with "
            "deduplicate: False and bpe: null, or leave out --phones."
        )
    rows = pa.concat_tables(_index(table) for table in tables)
    spoken = _count(rows)
    if manifest:
        table = read_table(manifest, MANIFEST, MANIFEST_KEY)
        _add_seconds(spoken, rows, table, manifest)
    drawn = _draw(tables, num_stories, seed)
    texts = _texts(table, drawn) if manifest else {}
    starts = _phones(phones, drawn) if phones else {}
    languages = {}
    for language in info["counts"]:
        stories = [story for story in drawn if story["language"] == language]
        languages[language] = _measure(stories, texts, starts, tokenizer)
        if manifest:
            languages[language]["units_per_frame"] = _units_per_frame(
                spoken, language, tokenizer["frame_rate"]
            )
    return {
        "folder": str(folder),
        "store": info,
        "spoken": spoken,
        "codebook": _codebook(tables, info),
        "languages": languages,
        "sample": [_sample(drawn, texts, name) for name in info["counts"]],
    }


def _index(table):
    """Return what a file says beside its units; lengths in their place."""
    return pa.table(
        {
            **{name: table[name] for name in ("story_id", *SPOKEN)},
            "units": pc.list_value_length(table["units"]),
            "sentences": pc.list_value_length(table["sentence_ends"]),
        }
    )


def _count(rows):
    grouped = rows.group_by(SPOKEN).aggregate(
        [("story_id", "count"), ("sentences", "sum"), ("units", "sum")]
    )
    grouped = grouped.sort_by([(name, "ascending") for name in SPOKEN])
    names = {"story_id_count": "stories"}
    names |= {f"{name}_sum": name for name in ("sentences", "units")}
    return [
        {names.get(name, name): value for name, value in row.items()}
        for row in grouped.to_pylist()
    ]


def _add_seconds(spoken, rows, table, path):
    """Add the speech of the stories that are whole in the store."""
    table = table.append_column(
        "seconds",
        pc.divide(
            table["num_samples"].cast(pa.float64()),
            table["sample_rate"].cast(pa.float64()),
        ),
    )
    keys = ["story_id", "language"]
    lengths = table.group_by(keys).aggregate(
        [("seconds", "sum"), ("sentence", "count")]
    )
    joined = rows.join(lengths, keys, join_type="inner")
    # Sentences that were dropped for bad audio are in the manifest still.
    whole = pc.equal(joined["sentences"], joined["sentence_count"])
    joined = joined.filter(whole)
    if not len(joined):
        raise ValueError(
            f"{path} holds no story of the store; expected the manifest that "
            "it was made of"
        )
    sums = joined.group_by(SPOKEN).aggregate(
        [("seconds_sum", "sum"), ("units", "sum")]
    )
    found = {(row["language"], row["speaker"]): row for row in sums.to_pylist()}
    for entry in spoken:
        row = found.get((entry["language"], entry["speaker"]))
        if row:
            entry["hours"] = row["seconds_sum_sum"] / 3600
            entry["units_per_second"] = (
                row["units_sum"] / row["seconds_sum_sum"]
            )


def _units_per_frame(spoken, language, frame_rate):
    here = [
        entry
        for entry in spoken
        if entry["language"] == language and "hours" in entry
    ]
    hours = sum(entry["hours"] for entry in here)
    units = sum(
        entry["hours"] * 3600 * entry["units_per_second"] for entry in here
    )
    return units / (hours * 3600 * frame_rate) if hours else None


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
    for table in tables:
        here = (places >= first) & (places < first + len(table))
        rows = table.take(pa.array(np.sort(places[here] - first)))
        for row, units, ends in zip(
            rows.select(["story_id", *SPOKEN]).to_pylist(),
            rows["units"],
            rows["sentence_ends"],
            strict=True,
        ):
            bounds = ends.values.to_numpy()[:-1]
            row["sentences"] = np.split(units.values.to_numpy(), bounds)
            drawn.append(row)
        first += len(table)
    return drawn


def _of_stories(table, drawn):
    """Keep the rows of a table that speak of the drawn stories."""
    names = pa.array({story["story_id"] for story in drawn})
    return table.filter(pc.is_in(table["story_id"], names))


def _texts(table, drawn):
    """Return the texts of the drawn stories that are whole."""
    if "text" not in table.column_names:
        return {}
    table = _of_stories(table, drawn).sort_by("sentence")
    texts = {}
    for name, language, text in zip(
        *(table[name].to_pylist() for name in ("story_id", "language", "text")),
        strict=True,
    ):
        texts.setdefault((name, language), []).append(text)
    return texts


def _phones(path, drawn):
    """Return (starts, phones) of each sentence of the drawn stories."""
    table = _of_stories(read_table(path, PHONES, PHONES_KEY), drawn)
    table = table.sort_by("start")
    found = {}
    for row in table.to_pylist():
        key = (row["story_id"], row["language"], row["sentence"])
        starts, phones = found.setdefault(key, ([], []))
        starts.append(row["start"])
        phones.append(row["phone"])
    return found


def _measure(stories, texts, starts, tokenizer):
    """Measure the drawn stories of one language."""
    sentences = [units for story in stories for units in story["sentences"]]
    result = {"stories": len(stories)}
    if not sentences:
        return result
    lengths = np.array([len(units) for units in sentences])
    result["sentence_lengths"] = length_quantiles(lengths)
    if not tokenizer["deduplicated"]:
        result["deduplication_ratio"] = deduplication_ratio(sentences)
    # Of a story that several tell, who says which sentence is not known.
    told = [story for story in stories if story["speaker"] != SEVERAL]
    spoken = [units for story in told for units in story["sentences"]]
    speakers = np.repeat(
        [story["speaker"] for story in told],
        [sum(map(len, story["sentences"])) for story in told],
    )
    if len(set(speakers)) > 1:
        result["speaker_nmi"] = normalized_mutual_information(
            speakers, np.concatenate(spoken)
        )
    said = [
        (text, story["speaker"], units)
        for story, found in (
            (story, texts.get((story["story_id"], story["language"]), []))
            for story in told
        )
        if len(found) == len(story["sentences"])
        for text, units in zip(found, story["sentences"], strict=True)
    ]
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
    for story in drawn:
        if story["language"] == language:
            key = (story["story_id"], language)
            units = story["sentences"][0]
            return {
                "story_id": story["story_id"],
                **{name: story[name] for name in SPOKEN},
                "units": units[:SHOWN].tolist(),
                "more": max(0, len(units) - SHOWN),
                "text": texts.get(key, [None])[0],
            }
    return None
