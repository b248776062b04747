"""What is to be spoken of a shard of stories, and into which files."""

import functools
import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.speech.story_shards import Shard, read_shard
from speechbrain_slm.speech.tts import Voice
from speechbrain_slm.speech.utterances import Speech, Utterance
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.speakers import draw_speaker
from speechbrain_slm.utils.tables import STORIES_KEY


def read_planned(shard: Shard, speech: Speech) -> tuple[pa.Table, str]:
    """Read a shard: its rows, and the identity of all that makes its part.

    Both are of one read: a table may be replaced from one to the next.
    """
    table, sink = read_shard(shard, speech.languages), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content = speech.settings()
    content["text"] = hashlib.sha256(sink.getvalue()).hexdigest()
    # It means nothing to a table that says itself who speaks.
    if "speaker" in table.column_names:
        del content["speaker_per"]
    return table, identity_of(content)


def plan_rows(
    table: pa.Table, speech: Speech
) -> tuple[pa.Table, list[Utterance]]:
    """Return the rows of a manifest, and what is to be spoken for them.

    A row is a sentence in a language (story_id, sentence, speaker, language,
    text and audio); an utterance, a text in a voice, which rows may share.
    """
    if "speaker" not in table.column_names:
        table = table.append_column("speaker", _draw(table, speech))
    speakers = table["speaker"].to_pylist()
    # By voice, not by speaker, since two speakers may share one.
    files: dict[tuple[Voice, str], Utterance] = {}
    parts = []
    for language in speech.languages:
        texts, audio = pc.utf8_trim_whitespace(table[language]), []
        for speaker, text in zip(speakers, texts.to_pylist(), strict=True):
            voice = speech.speakers[speaker][language]
            if (voice, text) not in files:
                name = speech.name(text, voice)
                files[voice, text] = Utterance(text, voice, name)
            audio.append(files[voice, text].audio)
        part = {name: table[name] for name in (*STORIES_KEY, "speaker")}
        part |= {"language": pa.repeat(language, len(texts)), "text": texts}
        part["audio"] = pa.array(audio, pa.string())
        parts.append(pa.table(part))
    return pa.concat_tables(parts), list(files.values())


def _draw(table: pa.Table, speech: Speech) -> pa.Array:
    """Draw who says each row; the languages of a row have one speaker."""
    # A hash a draw: a story of many sentences draws once.
    draw = functools.cache(functools.partial(draw_speaker, speech.seed))
    each, speakers = speech.speaker_per == "sentence", tuple(speech.speakers)
    keys = (table[key].to_pylist() for key in STORIES_KEY)
    return pa.array(
        draw(story, speakers, sentence if each else None)
        for story, sentence in zip(*keys, strict=True)
    )
