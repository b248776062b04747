"""Small folders in the layouts of spoken sets that are published on the hub."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from tinystories_example import story_text

from speechbrain_slm.stories.grammar.grammar import StoryGrammar

RATE = 16000
SALMON = (
    "bg_alignment",
    "bg_all_consistency",
    "bg_domain_consistency",
    "gender_consistency",
    "rir_consistency",
    "sentiment_alignment",
    "sentiment_consistency",
    "speaker_consistency",
)


def sound(*seed, seconds=0.3, rate=RATE):
    """Return a WAV file of noise, as the hub's struct."""
    wav = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * rate))
    content = io.BytesIO()
    soundfile.write(content, wav, rate, format="WAV")
    return {"bytes": content.getvalue(), "path": "of_the_publisher.wav"}


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_salmon(folder, rows=3):
    """Write ``slprl/SALMon``: a folder a part."""
    for part, name in enumerate(SALMON):
        table = [
            {
                "task": name,
                "ind": ind,
                "positive_audio": sound(part, ind, 0),
                "negative_audio": sound(part, ind, 1),
            }
            for ind in range(rows)
        ]
        write_rows(folder / name / "train-00000-of-00001.parquet", table)
    return folder


def write_pairs(folder, rows=3, voices=("A", "B")):
    """Write ``speed/sBLIMP``: numbers begin anew in each subtype."""
    table = [
        {
            "id": number,
            "negative": sound(number, kind, voice, 0),
            "positive": sound(number, kind, voice, 1),
            "voice": name,
            "negative_transcription": "the dogs barks",
            "positive_transcription": "the dogs bark",
            "type": ("agreement", "binding")[kind],
            "subtype": "plural",
        }
        for number in range(rows)
        for kind in range(2)
        for voice, name in enumerate(voices)
    ]
    write_rows(folder / "data/train-00000-of-00001.parquet", table)
    return folder


def write_story_cloze(folder, rows=3, voices=("af", "bm")):
    """Write ``slprl/multispeaker-storycloze``: a folder a task and speaker."""
    for task, name in enumerate(("sSC", "tSC")):
        for voice, speaker in enumerate(voices):
            table = [
                {
                    "id": f"story-{number}",
                    "correct_text": "All is well.",
                    "correct_audio": sound(task, voice, number, 0, rate=24000),
                    "negative_text": "All is lost.",
                    "negative_audio": sound(task, voice, number, 1, rate=24000),
                }
                for number in range(rows)
            ]
            place = folder / name / speaker
            write_rows(place / "train-00000-of-00001.parquet", table)
    return folder


def whole_story(text, seed=0):
    """Return a row of ``slprl/sTinyStories``: words of noise, and pauses."""
    generator = np.random.default_rng(seed)
    wav, words = [np.zeros(RATE // 50)], []
    for word in text.split():
        start = sum(map(len, wav))
        wav.append(generator.uniform(-0.5, 0.5, 300 * len(word)))
        times = {"end_time": start + len(wav[-1]), "start_time": start}
        times = {name: samples / RATE for name, samples in times.items()}
        words.append({**times, "word": word})
        pause = RATE // 20 if word.endswith((".", "!", "?", '"')) else 0
        wav.append(np.zeros(pause))
    content = io.BytesIO()
    soundfile.write(content, np.concatenate(wav), RATE, format="WAV")
    row = {"audio": {"bytes": content.getvalue(), "path": "0.wav"}}
    row |= {"text": text, "aligned_text": words}
    return {**row, "split_sentence": True}


def write_whole_stories(folder, stories=8, seed=0):
    """Write a file of sTinyStories, and return its rows."""
    found = StoryGrammar.load().generate(stories, "train", seed, ["en"])
    rows = [whole_story(story_text(one), n) for n, one in enumerate(found)]
    write_rows(folder / f"data-{seed:05d}-of-02191.parquet", rows)
    return rows
