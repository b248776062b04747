"""What is to be spoken, and into which files."""

import hashlib
from dataclasses import asdict

import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.speech.story_shards import read_shard
from speechbrain_slm.speech.utterances import AUDIO_VERSION, Utterance
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.speakers import draw_speaker
from speechbrain_slm.utils.tables import STORIES_KEY

AUDIO = "audio"


class Planner:
    """Says which audio file each sentence of a shard has.

    Arguments
    ---------
    tts : TextToSpeech
        The back-end.
    speakers : name -> {language: Voice}.
    languages : The text columns to speak.
    shape : Shape
        What becomes of the samples.
    speaker_per : ``story`` or ``sentence``: what a speaker is drawn for.
    """

    def __init__(
        self,
        tts,
        speakers: dict,
        languages: list[str],
        seed: int,
        shape,
        speaker_per: str = "story",
    ) -> None:
        self.tts, self.speakers, self.shape = tts, speakers, shape
        self.languages, self.seed = languages, seed
        self.speaker_per = speaker_per
        # What a file's name depends on beside text and voice. The format is
        # its suffix; a loudness of null is as if there were no such setting.
        self.audio = {
            "tts": tts.identity,
            "trim": asdict(shape.trim),
            "version": AUDIO_VERSION,
        }
        if shape.loudness is not None:
            self.audio["loudness"] = shape.loudness
        self._voices = {}

    def read(self, shard) -> pa.Table:
        """Read the rows of a shard.

        Its identity and what is spoken are of one read: a table may be
        replaced from one to the next.

        Arguments
        ---------
        shard : Shard
            Of a stories table.

        """
        return read_shard(shard, self.languages)

    def identity(self, table: pa.Table) -> str:
        """Return the identity of all that makes the part of a shard.

        Arguments
        ---------
        table : See :meth:`read`.

        """
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        speakers = {
            name: {key: asdict(voices[key]) for key in self.languages}
            for name, voices in self.speakers.items()
        }
        content = {
            "text": hashlib.sha256(sink.getvalue()).hexdigest(),
            "audio": self.audio,
            "kind": self.shape.kind,
            "limits": asdict(self.shape.limits),
            "speakers": speakers,
            "languages": list(self.languages),
            "seed": self.seed,
        }
        # One speaker a story is as if there were no such setting, and it
        # means nothing to a table that says itself who speaks.
        if self.speaker_per != "story" and "speaker" not in table.column_names:
            content["speaker_per"] = self.speaker_per
        return identity_of(content)

    def rows(self, table: pa.Table) -> tuple[pa.Table, list[Utterance]]:
        """Return a row a sentence and language, and what is to be spoken.

        Arguments
        ---------
        table : See :meth:`read`.

        Returns
        -------
        pyarrow.Table
            story_id, sentence, language, speaker, text and audio.
        list of Utterance
            Each text in each voice once.
        """
        if "speaker" not in table.column_names:
            table = table.append_column("speaker", self._draw(table))
        parts = []
        for language in self.languages:
            part = table.select([*STORIES_KEY, "speaker"])
            part = part.append_column(
                "language", pa.repeat(language, len(part))
            )
            texts = pc.utf8_trim_whitespace(table[language])
            parts.append(part.append_column("text", texts))
        rows = pa.concat_tables(parts)
        # By voice, since two speakers may share one.
        spoken, utterances, audio = {}, [], []
        for part, language in zip(parts, self.languages, strict=True):
            voices = {
                name: (own[language], spoken.setdefault(own[language], {}))
                for name, own in self.speakers.items()
            }
            for name, text in zip(
                part["speaker"].to_pylist(),
                part["text"].to_pylist(),
                strict=True,
            ):
                voice, files = voices[name]
                file = files.get(text)
                if file is None:
                    file = files[text] = self._audio(text, voice)
                    utterances.append(Utterance(text, voice, file))
                audio.append(file)
        rows = rows.append_column("audio", pa.array(audio, pa.string()))
        return rows, utterances

    def _draw(self, table):
        """Draw who says each row; the languages of a row have one speaker."""
        if self.speaker_per == "sentence":
            keys = [table[key].to_pylist() for key in STORIES_KEY]
            return pa.array(
                draw_speaker(self.seed, story, self.speakers, sentence)
                for story, sentence in zip(*keys, strict=True)
            )
        stories = table["story_id"].combine_chunks().dictionary_encode()
        names = [
            draw_speaker(self.seed, story, self.speakers)
            for story in stories.dictionary.to_pylist()
        ]
        return pa.array(names).take(stories.indices)

    def _audio(self, text, voice):
        if voice not in self._voices:
            self._voices[voice] = {**self.audio, "voice": asdict(voice)}
        key = identity_of({**self._voices[voice], "text": text})[:32]
        return f"{AUDIO}/{key[:2]}/{key}.{self.shape.kind}"
