"""What is to be spoken, and into which files."""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.speech.story_shards import Shard, read_shard
from speechbrain_slm.speech.tts import TextToSpeech, Voice
from speechbrain_slm.speech.utterances import AUDIO_VERSION, Shape, Utterance
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.speakers import draw_speaker
from speechbrain_slm.utils.tables import STORIES_KEY

AUDIO = "audio"


@dataclass
class Planner:
    """Says which audio file each sentence of a shard has.

    Arguments
    ---------
    speakers : Name -> {language: Voice}.
    languages : The text columns to speak.
    seed : For drawing speakers.
    speaker_per : ``story`` or ``sentence``: what a speaker is drawn for.
    """

    tts: TextToSpeech
    speakers: Mapping[str, Mapping[str, Voice]]
    languages: list[str]
    seed: int
    shape: Shape
    speaker_per: str = "story"

    def __post_init__(self) -> None:
        # What a file's name depends on beside text and voice. The format is
        # its suffix; a loudness of null is as if there were no such setting.
        self.audio = {
            "tts": self.tts.identity,
            "trim": asdict(self.shape.trim),
            "version": AUDIO_VERSION,
        }
        if self.shape.loudness is not None:
            self.audio["loudness"] = self.shape.loudness

    def read(self, shard: Shard) -> tuple[pa.Table, str]:
        """Read a shard: its rows, and the identity of all that makes its part.

        Both are of one read: a table may be replaced from one to the next.
        """
        table, sink = read_shard(shard, self.languages), pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        content = {
            "text": hashlib.sha256(sink.getvalue()).hexdigest(),
            "audio": self.audio,
            "kind": self.shape.kind,
            "limits": asdict(self.shape.limits),
            "speakers": {
                name: {key: asdict(voices[key]) for key in self.languages}
                for name, voices in self.speakers.items()
            },
            "languages": list(self.languages),
            "seed": self.seed,
        }
        # One speaker a story is as if there were no such setting, and it
        # means nothing to a table that says itself who speaks.
        if self.speaker_per != "story" and "speaker" not in table.column_names:
            content["speaker_per"] = self.speaker_per
        return table, identity_of(content)

    def rows(self, table: pa.Table) -> tuple[pa.Table, list[Utterance]]:
        """Return what is to be spoken, each text in each voice once.

        Returns
        -------
        A row a sentence and language (story_id, sentence, speaker, language,
        text and audio), and the utterances.
        """
        if "speaker" not in table.column_names:
            table = table.append_column("speaker", self._draw(table))
        speakers = table["speaker"].to_pylist()
        # By voice, not by speaker, since two speakers may share one.
        files: dict[Voice, dict[str, str]] = {}
        parts, utterances = [], []
        for language in self.languages:
            texts, audio = pc.utf8_trim_whitespace(table[language]), []
            for speaker, text in zip(speakers, texts.to_pylist(), strict=True):
                voice = self.speakers[speaker][language]
                known = files.setdefault(voice, {})
                if text not in known:
                    known[text] = self._file(text, voice)
                    utterances.append(Utterance(text, voice, known[text]))
                audio.append(known[text])
            part = table.select([*STORIES_KEY, "speaker"])
            for name, column in (
                ("language", pa.repeat(language, len(part))),
                ("text", texts),
                ("audio", pa.array(audio, pa.string())),
            ):
                part = part.append_column(name, column)
            parts.append(part)
        return pa.concat_tables(parts), utterances

    def _draw(self, table: pa.Table) -> pa.Array:
        """Draw who says each row; the languages of a row have one speaker."""
        each = self.speaker_per == "sentence"
        keys = (table[key].to_pylist() for key in STORIES_KEY)
        # A hash a draw: a story of many sentences draws once.
        draw = functools.cache(
            lambda story, sentence: draw_speaker(
                self.seed, story, self.speakers, sentence
            )
        )
        return pa.array(
            draw(story, sentence if each else None)
            for story, sentence in zip(*keys, strict=True)
        )

    def _file(self, text: str, voice: Voice) -> str:
        made_of = {**self.audio, "voice": asdict(voice), "text": text}
        key = identity_of(made_of)[:32]
        return f"{AUDIO}/{key[:2]}/{key}.{self.shape.kind}"
