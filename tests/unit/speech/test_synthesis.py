import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pytest
import soundfile
from speech_example import LANGUAGES, Humming, rows_of, speak

from speechbrain_slm.speech.tts import Voice
from speechbrain_slm.speech.tts.nanotts import NanoTTS
from speechbrain_slm.speech.utterances import Trim
from speechbrain_slm.utils.hashing import sha256_file
from speechbrain_slm.utils.speakers import choose_speakers, draw_speaker
from speechbrain_slm.utils.tables import write_table

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[3]
SPEAKERS = {
    "anna": {"en": Voice("en-US", 1.2), "fr": Voice("fr-FR", 1.2)},
    "bruno": {"en": Voice("en-GB", 0.8), "fr": Voice("fr-FR", 0.8)},
}
TEXTS = [
    ("Once upon a time.", "Il était une fois."),
    ("Tom had a boat.", "Tom avait un bateau."),
    ("Anna was sad.", "Anna était triste."),
]


def write_stories(path, stories, **columns):
    """Write stories, each a list of (English, French) pairs."""
    rows = [
        {"story_id": f"s{number}", "sentence": sentence, "en": en, "fr": fr}
        for number, story in enumerate(stories)
        for sentence, (en, fr) in enumerate(story)
    ]
    table = pa.Table.from_pylist(rows)
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    write_table(path, table)
    return path


def run(stories, folder, **changes):
    options = {"tts": NanoTTS(), "speakers": SPEAKERS, **changes}
    return speak(stories, folder, **options)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """Two stories that share their first sentence, by one speaker."""
    folder = tmp_path_factory.mktemp("spoken")
    stories = [TEXTS[:2], [TEXTS[0], TEXTS[2]]]
    path = write_stories(folder / "text.parquet", stories, speaker=["anna"] * 4)
    counts = run(path, folder, num_workers=2)
    assert counts == {"spoken": 6, "found": 0, "damaged": 0, "failed": 0}
    return folder


def test_the_manifest_says_what_the_files_are(spoken):
    rows = rows_of(spoken)
    assert len(rows) == 8
    for row in rows:
        samples, rate = soundfile.read(spoken / row["audio"], dtype="int16")
        assert (len(samples), rate) == (row["num_samples"], row["sample_rate"])
        assert sha256_file(spoken / row["audio"]) == row["sha256"]
        assert row["speaker"] == "anna"
    # What the voice says, but for half a second of silence.
    voice = SPEAKERS["anna"][row["language"]]
    whole = NanoTTS().synthesize(row["text"], voice)
    assert len(samples) < len(whole) - 4000
    assert samples.tobytes() in whole.tobytes()


def test_a_second_run_speaks_what_is_missing_and_mends_what_is_torn(spoken):
    before = rows_of(spoken)
    files = sorted({row["audio"] for row in before})
    (spoken / files[0]).unlink()
    torn = (spoken / files[1]).read_bytes()
    (spoken / files[1]).write_bytes(torn[: len(torn) // 2])
    left = (spoken / files[2]).with_name(".tmp-00000001-killed.flac")
    left.write_bytes(b"half")
    counts = run(spoken / "text.parquet", spoken)
    assert counts == {"spoken": 1, "found": 4, "damaged": 1, "failed": 0}
    assert rows_of(spoken) == before
    assert not left.exists()


def test_audio_is_shared_with_another_corpus_but_not_with_other_settings(
    spoken,
):
    before = {row["text"]: row["audio"] for row in rows_of(spoken)}
    stories = write_stories(
        spoken / "other.parquet", [TEXTS[1:]], speaker=["anna"] * 2
    )
    counts = run(stories, spoken)
    assert counts["spoken"] == 0
    assert {row["audio"] for row in rows_of(spoken)} < set(before.values())
    counts = run(stories, spoken, trim=Trim(-45.0, 0.1))
    assert counts["found"] == 0
    run(spoken / "text.parquet", spoken)


def test_speakers_are_drawn_by_story_and_kept_through_it(tmp_path):
    stories = write_stories(tmp_path / "text.parquet", [TEXTS] * 8)
    run(stories, tmp_path, num_workers=2)
    rows = rows_of(tmp_path)
    for row in rows:
        assert row["speaker"] == draw_speaker(1, row["story_id"], SPEAKERS)
    assert {row["speaker"] for row in rows} == set(SPEAKERS)


def test_speakers_of_sentences_are_the_same_in_every_language(tmp_path):
    stories = write_stories(tmp_path / "text.parquet", [TEXTS] * 8)
    counts = run(stories, tmp_path, num_workers=2, speaker_per="sentence")
    assert counts["spoken"] == 12
    tellers = defaultdict(set)
    for row in rows_of(tmp_path):
        story, sentence = row["story_id"], row["sentence"]
        assert row["speaker"] == draw_speaker(1, story, SPEAKERS, sentence)
        tellers[story].add(row["speaker"])
    assert set(SPEAKERS) in tellers.values()
    # Nothing is spoken again, and the manifest is the same, byte for byte.
    before = (tmp_path / "train.parquet").read_bytes()
    counts = run(stories, tmp_path, speaker_per="sentence")
    assert not any(counts.values())
    assert (tmp_path / "train.parquet").read_bytes() == before


def test_a_sentence_keeps_its_speaker_where_another_fails(tmp_path):
    texts = [(f"Says {n}.", f"Dit {n}.") for n in range(6)]
    stories = write_stories(tmp_path / "text.parquet", [texts])
    speakers = {name: dict.fromkeys(LANGUAGES, Voice(name)) for name in "abc"}
    options = {"speakers": speakers, "speaker_per": "sentence"}
    options |= {"max_left_out": 0.5, "trim": Trim(-60.0, 0.05)}
    run(stories, tmp_path, tts=Humming({"Dit 1.": "silence"}), **options)
    rows = rows_of(tmp_path)
    assert len(rows) == 10
    for row in rows:
        said = row["sentence"] + (row["sentence"] > 0)
        assert row["text"] in texts[said]
        assert row["speaker"] == draw_speaker(1, "s0", "abc", said)
    assert len({row["speaker"] for row in rows}) > 1


def test_another_speaker_per_makes_the_manifest_anew(tmp_path):
    stories = write_stories(tmp_path / "text.parquet", [TEXTS] * 8)
    options = {"num_workers": 2, "stories_per_shard": 3}
    run(stories, tmp_path, **options)
    by_story = rows_of(tmp_path)
    run(stories, tmp_path, speaker_per="sentence", **options)
    by_sentence = rows_of(tmp_path)
    assert by_sentence != by_story
    run(stories, tmp_path / "alone", speaker_per="sentence", **options)
    assert by_sentence == rows_of(tmp_path / "alone")
    # Both have spoken everything in both voices.
    counts = run(stories, tmp_path, **options)
    assert not counts["spoken"]
    assert rows_of(tmp_path) == by_story


def test_a_table_that_says_who_speaks_is_believed(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    told = ["anna", "bruno", "anna"]
    stories = write_stories(tmp_path / "text.parquet", [TEXTS], speaker=told)
    run(stories, tmp_path, speaker_per="sentence")
    rows = rows_of(tmp_path)
    assert [row["speaker"] for row in rows] == told * 2
    assert "none is drawn" not in caplog.text
    # One speaker for the story: the value means nothing to such a table.
    write_stories(stories, [TEXTS], speaker=["anna"] * 3)
    run(stories, tmp_path, speaker_per="story")
    counts = run(stories, tmp_path, speaker_per="sentence")
    assert not any(counts.values())
    assert {row["speaker"] for row in rows_of(tmp_path)} == {"anna"}
    assert "text.parquet: its column 'speaker' gives" in caplog.text


def test_draws_depend_on_seed_story_and_sentence_alone():
    def draws(seed, names="ab", sentence=None):
        stories = [f"t-{n}" for n in range(2000)]
        return [draw_speaker(seed, one, names, sentence) for one in stories]

    one, first = draws(1), draws(1, sentence=0)
    assert one == draws(1, "ba")
    second = draws(1, sentence=1)
    for some, others in ((one, draws(2)), (one, first), (first, second)):
        agreement = sum(a == b for a, b in zip(some, others, strict=True))
        assert 900 < agreement < 1100
        assert 900 < some.count("a") < 1100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"languages": ["en", "de"]}, "'anna' has no voice for .* 'de'"),
        (
            {"languages": ["de"], "speakers": {"eva": {"de": Voice("de-DE")}}},
            r"missing column\(s\) de; found .*en, fr",
        ),
        (
            {"speakers": {"a": {"en": Voice("en-UK"), "fr": Voice("fr-FR")}}},
            "speaker 'a': nanotts has no voice 'en-UK'",
        ),
        ({"num_workers": 0}, "num_workers is 0"),
        ({"speaker_per": "word"}, "'word'; expected story or sentence"),
    ],
)
def test_bad_settings(tmp_path, changes, message):
    stories = write_stories(tmp_path / "text.parquet", [TEXTS])
    with pytest.raises(ValueError, match=message):
        run(stories, tmp_path, **changes)
    assert not (tmp_path / "train.parquet").exists()


@pytest.mark.parametrize(
    ("stories", "columns", "message"),
    [
        ([[("One.", None)]], {}, "row 0: column 'fr' is empty"),
        ([[("One.", "Un."), ("  ", "Deux.")]], {}, "row 1: column 'en'"),
        ([TEXTS], {"speaker": ["zoe"] * 3}, "unknown speaker.* 'zoe'"),
        (
            [TEXTS],
            {"speaker": ["anna", "anna", "bruno"]},
            "story 's0' has more than one speaker.* speaker_per to sentence",
        ),
    ],
)
def test_bad_stories(tmp_path, stories, columns, message):
    path = write_stories(tmp_path / "text.parquet", stories, **columns)
    with pytest.raises(ValueError, match=message) as caught:
        run(path, tmp_path)
    assert str(path) in str(caught.value)


def test_an_unknown_speaker_is_named():
    with pytest.raises(ValueError, match=r"'zoe'.*expected .*anna, bruno"):
        choose_speakers(SPEAKERS, ["anna", "zoe"])


def test_a_failure_names_the_text_and_leaves_no_stale_manifest(tmp_path):
    good = write_stories(tmp_path / "good.parquet", [TEXTS[:1]])
    run(good, tmp_path)
    bad = write_stories(tmp_path / "bad.parquet", [[("A boat.", "?!")]])
    with pytest.raises(RuntimeError, match=r"cannot speak '\?!' .*fr-FR"):
        run(bad, tmp_path)
    assert not (tmp_path / "train.parquet").exists()


KILLED = """
import sys
from pathlib import Path
from tests.unit.speech.test_synthesis import run
if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), num_workers=2)
"""


def test_a_kill_loses_nothing_and_leaves_no_process(tmp_path):
    texts = [(f"Tom has {n} boats.", f"Tom a {n} bateaux.") for n in range(30)]
    stories = write_stories(tmp_path / "text.parquet", [texts])
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    folder = tmp_path / "killed"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    process = subprocess.Popen(
        [sys.executable, script, stories, folder],
        env=environment,
        start_new_session=True,
    )
    while len(list(folder.rglob("*.flac"))) < 8:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "train.parquet").exists()
    deadline = time.monotonic() + 60
    while session_lives(process.pid):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.02)
    counts = run(stories, folder)
    assert counts["found"] >= 7
    assert counts["damaged"] == 0
    run(stories, tmp_path / "whole")
    assert rows_of(folder) == rows_of(tmp_path / "whole")


def session_lives(session):
    """Tell whether a session still has processes that run."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, found, *_ = stat.read_text().rpartition(")")[2].split()
            if int(found) == session and state != "Z":
                return True
    return False
