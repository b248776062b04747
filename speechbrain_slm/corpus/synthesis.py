"""From stories to speech: audio files and the manifests that list them.

Every story is told by one speaker in all its languages. A sentence that
several stories share is spoken once a voice; its file is named by the hash of
all that makes its samples, so a second run, or another corpus in the same
folder, speaks only what is not there yet.
"""

import logging
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.corpus.speakers import (
    check_speakers,
    check_voices,
    draw_speaker,
)
from speechbrain_slm.corpus.utterances import (
    AUDIO_VERSION,
    Utterance,
    speak_chunk,
)
from speechbrain_slm.corpus.workers import run_in_workers
from speechbrain_slm.utils.atomic import remove_temporary
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.tables import (
    MANIFEST,
    MANIFEST_KEY,
    STORIES,
    STORIES_KEY,
    check_alignment,
    read_table,
    write_table,
)

logger = logging.getLogger(__name__)
AUDIO = "audio"
_CHUNK = 16  # utterances
_LOG_INTERVAL = 5.0  # seconds
# What a manifest says before anything is spoken.
_PLANNED = (*MANIFEST_KEY, "speaker", "audio", "sample_rate", "text")


def synthesize(
    stories, output_folder, tts, speakers, languages, seed, trim, num_workers
):
    """Speak stories and write their manifests.

    Arguments
    ---------
    stories : dict
        Stories tables: split -> path. A ``speaker`` column, where there is
        one, says who tells a story; else it is drawn.
    output_folder : str or Path
        Gets ``<split>.parquet`` and ``audio/``.
    tts : TextToSpeech
        The back-end.
    speakers : dict
        name -> {language: Voice}.
    languages : list of str
        The text columns to speak.
    seed : int
        For drawing speakers, see :func:`draw_speaker`.
    trim : Trim
        How silence is cut at both ends.
    num_workers : int
        How many processes speak.

    Returns
    -------
    dict
        How many utterances were ``spoken``, ``found`` from an earlier run,
        or ``damaged`` and spoken again.

    Raises
    ------
    ValueError
        If a table lacks a language or a text, or a speaker lacks a voice.
    RuntimeError
        If something cannot be spoken or written. Names the text, the voice
        and the file; no manifest is written then.
    """
    output_folder = Path(output_folder)
    check_voices(tts, speakers, languages)
    utterances, plans = {}, {}
    for split, path in stories.items():
        table = _read_stories(path, languages, speakers, seed)
        plans[split] = _plan(path, table, tts, speakers, trim, utterances)
        _withdraw_stale(output_folder / f"{split}.parquet", plans[split])
    for folder in (output_folder / AUDIO).glob("*"):
        remove_temporary(folder)
    facts, counts = _speak_all(
        list(utterances.values()), output_folder, tts, trim, num_workers
    )
    for split, plan in plans.items():
        names = plan["audio"].to_pylist()
        samples = pa.array([facts[name][0] for name in names], pa.int64())
        hashes = pa.array([facts[name][1] for name in names])
        plan = plan.append_column("num_samples", samples)
        plan = plan.append_column("sha256", hashes)
        write_table(
            output_folder / f"{split}.parquet",
            plan.select([*MANIFEST.names, "text"]),
        )
    return counts


def _read_stories(path, languages, speakers, seed):
    """Return rows (story_id, sentence, language, speaker, text)."""
    texts = [pa.field(language, pa.string()) for language in languages]
    table = read_table(path, pa.schema([*STORIES, *texts]), STORIES_KEY)
    if "speaker" not in table.column_names:
        names = [
            draw_speaker(seed, story_id, speakers)
            for story_id in table["story_id"].to_pylist()
        ]
        table = table.append_column("speaker", pa.array(names))
    check_speakers(path, table, speakers)
    parts = []
    for language in languages:
        texts = pc.utf8_trim_whitespace(table[language])
        row = pc.index(texts, "").as_py()
        if row >= 0:
            raise ValueError(
                f"{path}, row {row}: column '{language}' has no text; expected "
                "a sentence in every language"
            )
        part = table.select([*STORIES_KEY, "speaker"])
        part = part.append_column("language", pa.repeat(language, len(part)))
        parts.append(part.append_column("text", texts))
    rows = pa.concat_tables(parts)
    check_alignment(path, rows, languages)
    return rows


def _plan(path, rows, tts, speakers, trim, utterances):
    """Add each row's audio file; collect what is to be spoken."""
    names = []
    for language, speaker, text in zip(
        *(rows[name].to_pylist() for name in ("language", "speaker", "text")),
        strict=True,
    ):
        voice = speakers[speaker][language]
        if (text, voice) not in utterances:
            key = identity_of(
                {
                    "tts": tts.identity,
                    "voice": asdict(voice),
                    "text": text,
                    "trim": asdict(trim),
                    "version": AUDIO_VERSION,
                }
            )[:32]
            audio = f"{AUDIO}/{key[:2]}/{key}.flac"
            utterances[text, voice] = Utterance(text, voice, audio)
        names.append(utterances[text, voice].audio)
    rows = rows.append_column("audio", pa.array(names, pa.string()))
    rate = pa.repeat(pa.scalar(tts.sample_rate, pa.int32()), len(rows))
    return rows.append_column("sample_rate", rate).sort_by(
        [(name, "ascending") for name in ("language", *STORIES_KEY)]
    )


def _withdraw_stale(path, plan):
    """Remove a manifest that other settings made.

    If this run fails, the next stage must not take it for this one's.
    """
    if path.is_file():
        found = read_table(path, MANIFEST, MANIFEST_KEY)
        same = {*_PLANNED} <= {*found.column_names} and found.select(
            _PLANNED
        ).equals(plan.select(_PLANNED))
        if not same:
            path.unlink()


def _speak_all(utterances, output_folder, tts, trim, num_workers):
    chunks = (
        utterances[start : start + _CHUNK]
        for start in range(0, len(utterances), _CHUNK)
    )
    context = (tts, trim, output_folder)
    facts, counts = {}, Counter(spoken=0, found=0, damaged=0)
    begin = logged = time.monotonic()
    for results in run_in_workers(speak_chunk, context, chunks, num_workers):
        for audio, num_samples, sha256, state in results:
            facts[audio] = (num_samples, sha256)
            counts[state] += 1
        now = time.monotonic()
        if now - logged >= _LOG_INTERVAL:
            logged = now
            left = (now - begin) / len(facts) * (len(utterances) - len(facts))
            logger.info(
                "%d of %d utterances, %.0f s left",
                len(facts),
                len(utterances),
                left,
            )
    wall = time.monotonic() - begin
    seconds = sum(fact[0] for fact in facts.values()) / tts.sample_rate
    logger.info(
        "%d utterances, %.0f s of speech, in %.0f s (%.0f x real time): %s",
        len(facts),
        seconds,
        wall,
        seconds / wall,
        ", ".join(f"{count} {state}" for state, count in counts.items()),
    )
    return facts, dict(counts)
