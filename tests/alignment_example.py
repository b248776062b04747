"""A store whose sentences come again in other stories and other voices."""

import numpy as np
import pyarrow as pa
from conftest import TOKENIZER

from speechbrain_slm.utils.store import StoreWriter
from speechbrain_slm.utils.tables import MANIFEST, write_table

VOCABULARY = 30
SPEAKERS = ("alto", "bass")


def text_of(number, language):
    """Return one of the corpus's texts."""
    return f"{language} {number}"


def units_said(number, language, speaker):
    """Return the units of a text in a voice, always the same ones."""
    code = [number, ord(language[0]), ord(speaker[0])]
    generator = np.random.default_rng(code)
    return generator.integers(0, VOCABULARY, generator.integers(3, 9))


def write_corpus(
    folder,
    languages=("en", "fr"),
    stories=60,
    sentences=25,
    speakers=SPEAKERS,
    shards=2,
    identity="codebook-a",
    translate=lambda number, language: number,
    several=False,
):
    """Write ``store`` and ``manifest.parquet``; four sentences a story.

    ``translate`` says which text stands for a sentence in a language;
    ``several`` draws a speaker for each sentence of every third story.
    """
    generator = np.random.default_rng(1)
    rows, spoken = [[] for _ in range(shards)], []
    for story in range(stories):
        numbers = generator.integers(0, sentences, 4).tolist()
        name = f"story-{story:03d}"
        tellers = [speakers[generator.integers(len(speakers))]] * 4
        if several and story % 3 == 0:
            tellers = [speakers[n] for n in (story % 2, 0, 1, story % 2)]
        # So the units recipe names the speaker of a story that has several.
        teller = tellers[0] if len(set(tellers)) == 1 else ""
        for language in languages:
            said = [translate(number, language) for number in numbers]
            units = [
                units_said(text, language, speaker)
                for text, speaker in zip(said, tellers, strict=True)
            ]
            rows[story % shards].append((name, language, teller, units))
            for number, text in enumerate(said):
                voice = f"{language}-{tellers[number]}"
                place = (name, number, language, tellers[number])
                audio = (f"{text}-{voice}.flac", 16000, 16000, "0" * 64)
                spoken.append((*place, *audio, text_of(text, language)))
    tokenizer = {**TOKENIZER, "identity": identity}
    writer = StoreWriter(folder / "store", tokenizer, "manifest", shards)
    for number, content in enumerate(rows):
        writer.write(number, content)
    writer.finish()
    schema = pa.schema([*MANIFEST, ("text", pa.string())])
    columns = map(list, zip(*spoken, strict=True))
    table = pa.table(list(columns), schema=schema)
    write_table(folder / "manifest.parquet", table)
    return folder
