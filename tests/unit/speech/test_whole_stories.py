"""Whole stories, cut by their time stamps, and time stamps of every fault."""

import io
import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from published_sets import (
    RATE,
    sound,
    whole_story,
    write_rows,
    write_whole_stories,
)
from speech_example import rows_of

from speechbrain_slm.speech.imported import spoken
from speechbrain_slm.speech.imported.spoken import import_spoken
from speechbrain_slm.speech.imported.whole_stories import (
    StoryReader,
    WholeStories,
)
from speechbrain_slm.stories.segmentation import LanguageRules, segment
from speechbrain_slm.utils.ledger import TooManyLeftOut
from speechbrain_slm.utils.user_tables import Row

RULES = LanguageRules("en", ["Latin"], 15, 250)
COLUMNS = WholeStories(
    audio="audio",
    text="text",
    words="aligned_text",
    start="start_time",
    end="end_time",
    language="en",
    speaker="lj",
    segment=segment,
    rules=RULES,
)
TEXT = "Tom had a red ball. He lost it in the park! His mum found it there."


def run(source, folder, columns=COLUMNS, max_left_out=0.9):
    sources = {"train": [source]}
    options = {"max_left_out": max_left_out, "buckets": 1}
    import_spoken(sources, folder, columns, ["en"], **options)
    lines = (folder / "left_out.jsonl").read_text().splitlines()
    return rows_of(folder), list(map(json.loads, lines))


def samples(content):
    return soundfile.read(content, dtype="int16")[0]


def test_sentences_are_the_story_sample_by_sample(tmp_path):
    stories = write_whole_stories(tmp_path / "in", stories=4)
    rows, lost = run(tmp_path / "in", tmp_path / "out")
    assert lost == []
    assert {(row["language"], row["speaker"]) for row in rows} == {("en", "lj")}
    for number, story in enumerate(stories):
        name = f"data-00000-of-02191.{number}"
        told = [row for row in rows if row["story_id"] == name]
        assert [row["sentence"] for row in told] == list(range(len(told)))
        texts = segment(story["text"], RULES)
        assert [row["text"] for row in told] == texts
        cut = [samples(tmp_path / "out" / row["audio"]) for row in told]
        assert [len(one) for one in cut] == [r["num_samples"] for r in told]
        whole = samples(io.BytesIO(story["audio"]["bytes"]))
        assert np.array_equal(np.concatenate(cut), whole)
        # Cut in the middle of a pause of 0.05 s, of which each has a half.
        half = RATE // 40
        for one, two in itertools.pairwise(cut):
            assert not one[-half:].any()
            assert not two[:half].any()
            assert two[half]


def test_files_of_one_name_are_refused(tmp_path):
    for name in ("a", "b"):
        write_whole_stories(tmp_path / name, stories=1)
    sources = {"train": [tmp_path / "a", tmp_path / "b"]}
    with pytest.raises(ValueError, match=r"a/data.*b/data.* would be the same"):
        import_spoken(sources, tmp_path / "out", COLUMNS, ["en"], buckets=1)
    # Splits do not meet.
    sources = {"train": [tmp_path / "a"], "valid": [tmp_path / "b"]}
    import_spoken(sources, tmp_path / "out", COLUMNS, ["en"], buckets=1)


def test_words_may_be_spelt_otherwise(tmp_path):
    """No marks, no capitals, words for numbers: sentences end where they do."""
    story = whole_story(TEXT.replace("red", "2"))
    for word in story["aligned_text"]:
        word["word"] = f" {word['word'].strip('.!').lower()}"
    story["aligned_text"][3]["word"] = "two"
    pause = {"word": "<>", "start_time": 0.0, "end_time": 0.0}
    story["aligned_text"].insert(0, pause)
    source = write_rows(tmp_path / "in.parquet", [story])
    rows, _ = run(source, tmp_path / "out")
    assert [row["text"] for row in rows] == [
        "Tom had a 2 ball.",
        "He lost it in the park!",
        "His mum found it there.",
    ]
    exact = replace(COLUMNS, max_unlike=0.0)
    with pytest.raises(ValueError, match="6% of the words differ"):
        exact.cuts([TEXT], exact.read_words(story["aligned_text"], 60))


def spoil(place, **change):
    """Return what changes a word of a story; of None, it takes it away."""

    def change_word(story):
        words = story["aligned_text"]
        if not change:
            del words[place]
            return
        words[place] |= change

    return change_word


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (spoil(3, start_time=0.1), "time stamps: not in order: 'red' is said"),
        (spoil(3, end_time=0.0), "time stamps: not in order: 'red' is said"),
        (
            spoil(-1, end_time=99.0),
            "time stamps: beyond the audio: 'there.' is",
        ),
        (spoil(2, start_time=math.nan), "time stamps: found {'"),
        (spoil(2, start_time=None), "expected a list of {word, start_time, e"),
        (spoil(2, start_time=-1.0), "time stamps: found {'"),
        (lambda story: story.update(aligned_text=[]), "time stamps: found []"),
        (lambda story: story.update(aligned_text=None), "found None; expected"),
        # The word with which a sentence ends, or the next begins.
        (spoil(4), "sentences not found: no word is said with which 'Tom had"),
        (spoil(5), "sentences not found: no word is said with which 'Tom had"),
        (spoil(4, word="ball.He"), "sentences not found: no word is said"),
        (
            lambda story: story.update(text=TEXT.replace("a", "e")),
            "sentences not found: 25% of the words differ from the text",
        ),
        (lambda story: story.update(text=" "), "no text, or no name"),
        (lambda story: story.update(text=None), "no text, or no name"),
        (
            lambda story: story["audio"].update(bytes=b"RIFF"),
            "bad audio: ",
        ),
        (lambda story: story.update(audio=None), "no audio"),
    ],
)
def test_a_story_that_cannot_be_trusted_goes_as_a_whole(
    tmp_path, change, reason
):
    story = whole_story(TEXT, 2)
    change(story)
    reader = StoryReader(COLUMNS, ["en"], {}, tmp_path, max_seconds=3600)
    facts = reader.facts_of(Row(1, story), "in.parquet", None)
    sentences = segment((story["text"] or "").strip(), RULES)
    assert [fact["text"] for fact in facts] == sentences or [""]
    for fact in facts:
        assert reason in fact["reason"]
        assert (fact["story_id"], fact["language"]) == ("in.1", "en")
        assert fact["source"] == "in.parquet, row 1"
    assert not list(tmp_path.iterdir())


def test_a_story_that_goes_counts_by_its_sentences(tmp_path):
    good, bad = whole_story(TEXT, 1), whole_story(TEXT, 2)
    bad["aligned_text"].reverse()
    source = write_rows(tmp_path / "in.parquet", [good, bad])
    rows, lost = run(source, tmp_path / "out")
    assert {row["story_id"] for row in rows} == {"in.0"}
    assert {entry["story_id"] for entry in lost} == {"in.1"}
    assert [entry.get("sentence") for entry in lost] == [0, 1, 2, None]
    with pytest.raises(TooManyLeftOut, match=r"3 of 6 rows of train"):
        run(source, tmp_path / "few", max_left_out=0.4)


def test_a_silent_sentence_goes_alone(tmp_path):
    story = whole_story(TEXT)
    wav = samples(io.BytesIO(story["audio"]["bytes"])).copy()
    first, last = (story["aligned_text"][n] for n in (5, 10))
    start, end = first["start_time"], last["end_time"]
    wav[round(start * RATE) : round(end * RATE)] = 0
    content = io.BytesIO()
    soundfile.write(content, wav, RATE, format="WAV")
    story["audio"]["bytes"] = content.getvalue()
    source = write_rows(tmp_path / "in.parquet", [story])
    rows, (entry,) = run(source, tmp_path / "out")
    assert [row["text"][:7] for row in rows] == ["Tom had", "His mum"]
    assert "every sample is 0" in entry["reason"]
    assert entry["sentence"] == 1


def test_what_is_as_it_was_is_not_read_again(tmp_path, monkeypatch):
    write_whole_stories(tmp_path / "in", stories=2)
    before, _ = run(tmp_path / "in", tmp_path / "out")
    written, real = [], spoken.write_piece

    def write_piece(path, *rest):
        written.append(path)
        real(path, *rest)

    monkeypatch.setattr(spoken, "write_piece", write_piece)
    assert run(tmp_path / "in", tmp_path / "out")[0] == before
    assert written == []
    (tmp_path / "out" / before[0]["audio"]).unlink()
    assert run(tmp_path / "in", tmp_path / "out")[0] == before
    assert len(written) == 1
    run(tmp_path / "in", tmp_path / "out", replace(COLUMNS, slack=0.5))
    rules = LanguageRules("en", ["Latin"], 15, 30)
    run(tmp_path / "in", tmp_path / "out", replace(COLUMNS, rules=rules))
    assert len(written) == 3


def test_audio_as_paths_is_read_again_when_it_changes(tmp_path):
    story = whole_story(TEXT)
    (tmp_path / "a.wav").write_bytes(story["audio"]["bytes"])
    rows = [{**story, "audio": "a.wav", "name": "tale"}]
    source = write_rows(tmp_path / "in.parquet", rows)
    named = replace(COLUMNS, story="name")
    before, _ = run(source, tmp_path / "out", named)
    assert {row["story_id"] for row in before} == {"tale"}
    other = whole_story(TEXT, seed=9)["audio"]["bytes"]
    (tmp_path / "a.wav").write_bytes(other)
    after, _ = run(source, tmp_path / "out", named)
    digests = [{row["sha256"] for row in rows} for rows in (before, after)]
    assert not digests[0] & digests[1]


def test_columns_and_settings_that_are_none(tmp_path):
    source = write_rows(tmp_path / "in.parquet", [{"audio": sound(1), "t": 1}])
    with pytest.raises(ValueError, match=r"text, aligned_text; found audio, t"):
        run(source, tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"language is fr; expected one of .*en"
    ):
        run(source, tmp_path / "out", replace(COLUMNS, language="fr"))
    with pytest.raises(ValueError, match="slack is -1"):
        replace(COLUMNS, slack=-1)
    with pytest.raises(ValueError, match="max_unlike is 2"):
        replace(COLUMNS, max_unlike=2)
