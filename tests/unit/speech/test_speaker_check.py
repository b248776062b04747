import importlib.util
import itertools
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from speaker_models import save_ecapa, save_resemblyzer, save_xvector
from tiny_models import save_encoder
from units_example import clip, entry, write_manifest

from speechbrain_slm.speech.tts import Voice
from speechbrain_slm.speech.tts.nanotts import NanoTTS
from speechbrain_slm.speech.voices import check, encoders
from speechbrain_slm.speech.voices.encoders import PitchHistogram
from speechbrain_slm.speech.voices.filter import leave_out_voices
from speechbrain_slm.speech.voices.report import voices_table, write_report
from speechbrain_slm.speech.voices.resemblyzer import ResemblyzerEncoder
from speechbrain_slm.utils import tables
from speechbrain_slm.utils.hashing import file_stamp, sha256_file
from speechbrain_slm.utils.ledger import TooManyLeftOut

TEXTS = {
    "en": ("The cat sat on the red mat.", "Grandma made a very good cake."),
    "fr": ("Le chat est sur le tapis rouge.", "Mamie a fait un bon gâteau."),
}
SETTINGS = {"encoder": {"type": "x"}, "compare": "means", "threshold": 0.9}
SETTINGS |= {"languages": ["en", "fr"], "utterances": 2, "seed": 0}


def write_stories(folder, tellers, files=4):
    """Write a manifest: a story of two sentences for each teller named."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.flac" for number in range(files)]
    for number, path in enumerate(paths):
        soundfile.write(path, clip(number, 0.5), 16000)
    rows = [
        {
            "story_id": f"story-{story}",
            "sentence": sentence,
            "language": language,
            "speaker": teller,
            **entry(paths[(story + sentence) % files]),
            "audio": paths[(story + sentence) % files].name,
        }
        for language in ("en", "fr")
        for story, teller in enumerate(tellers)
        for sentence in range(2)
    ]
    return write_manifest(folder / "train.parquet", rows)


def test_pitch_of_a_tone_is_its_frequency():
    time = np.arange(16000) / 16000
    for frequency in (80.0, 160.0, 320.0):
        wav = np.sign(np.sin(2 * np.pi * frequency * time)) * 0.3
        found = PitchHistogram().pitch(wav)
        assert np.median(found) == pytest.approx(frequency, rel=0.01)
        assert len(found) > 90


def test_noise_and_short_clips_have_no_pitch():
    noise = np.random.default_rng(0).normal(size=16000)
    assert len(PitchHistogram().pitch(noise)) < 5
    assert not PitchHistogram().embed(np.zeros(10, dtype="f4")).any()


def test_default_voices_are_told_apart_and_a_mismatch_is_found():
    """The TTS has one French voice: its pitch is all that tells speakers."""
    tts, encoder = NanoTTS(), PitchHistogram()
    english, french = ("en-US", 1.15), ("fr-FR", 1.15)
    low = (("en-GB", 0.75), ("fr-FR", 0.75))
    speakers = {"anna": (english, french), "bruno": low}
    speakers["mixed"] = (english, low[1])
    spoken = {
        (speaker, language): [
            encoder.embed(tts.synthesize(text, Voice(name, pitch)) / 2**15)
            for text in TEXTS[language]
        ]
        for speaker, voices in speakers.items()
        for language, (name, pitch) in zip(("en", "fr"), voices, strict=True)
    }
    rows = check.compare_voices(spoken, ["en", "fr"], 0.75)
    assert [row["speaker"] for row in rows if not row["kept"]] == ["mixed"]
    assert rows[0]["cosine"] < 0.6


@pytest.mark.parametrize(
    ("encoder", "save", "size"),
    [
        (encoders.EcapaEncoder, save_ecapa, 12),
        (encoders.XVectorEncoder, save_xvector, 12),
        (ResemblyzerEncoder, save_resemblyzer, 256),
    ],
)
def test_pretrained_encoders(tmp_path, encoder, save, size):
    source = save(tmp_path / "model")
    wavs = [np.float32(clip(seed, 0.6)) for seed in range(3)]
    one = encoder(str(source))
    vectors = np.stack([one.embed(wav) for wav in wavs])
    assert vectors.shape == (3, size)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    # The weights are those of the folder, and nothing is random.
    again = encoder(str(source))
    np.testing.assert_array_equal(again.embed(wavs[0]), vectors[0])
    other = encoder(str(save(tmp_path / "other", seed=1)))
    assert abs(other.embed(wavs[0]) - vectors[0]).max() > 1e-3
    assert one.identity == again.identity != other.identity


def test_an_encoder_that_is_missing_or_lacks_its_head(tmp_path):
    (tmp_path / "empty").mkdir()
    save_encoder(tmp_path / "wavlm", kind="wavlm")
    for encoder, name, error, message in (
        (encoders.EcapaEncoder, "empty", FileNotFoundError, "hf download"),
        (encoders.XVectorEncoder, "empty", FileNotFoundError, "hf download"),
        (encoders.XVectorEncoder, "wavlm", ValueError, "lack"),
    ):
        with pytest.raises(error, match=message):
            encoder(str(tmp_path / name)).embed(np.ones(16000, "f4"))


@pytest.mark.skipif(
    importlib.util.find_spec("resemblyzer") is None,
    reason="pip install --no-deps Resemblyzer==0.1.4",
)
def test_real_embeddings_tell_people_apart():
    """The people whose voices Pico has, each in two utterances."""
    tts, encoder = NanoTTS(), ResemblyzerEncoder()
    said = {
        "en": (
            "The cat sat on the red mat, and the dog looked at it.",
            "Grandma made a very good cake for all of us.",
        ),
        "fr": (
            "Le chat est sur le tapis rouge, et le chien le regarde.",
            "Mamie a fait un bon gâteau pour nous tous.",
        ),
    }
    vectors = [
        [
            encoder.embed(np.float32(tts.synthesize(text, voice)) / 2**15)
            for text in said[voice.name[:2]]
        ]
        for voice in map(Voice, ("en-US", "en-GB", "fr-FR"))
    ]
    one, other = np.stack(vectors, axis=1)
    cosines = one @ other.T
    same, different = np.diag(cosines), cosines[~np.eye(3, dtype=bool)]
    assert same.min() > different.max() + 0.05
    # A shift of pitch, too, which is all that makes speakers in one language.
    high = tts.synthesize(said["en"][1], Voice("en-US", 1.35))
    shifted = one[0] @ encoder.embed(np.float32(high) / 2**15)
    assert shifted < same[0] - 0.05


def test_an_encoder_of_a_package_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps Resem"):
        ResemblyzerEncoder()
    with pytest.raises(FileNotFoundError, match=r"no\.pt"):
        ResemblyzerEncoder(str(tmp_path / "no.pt")).embed(np.ones(16000, "f4"))


def test_a_short_or_silent_utterance_is_embedded_in_one_window(tmp_path):
    encoder = ResemblyzerEncoder(str(save_resemblyzer(tmp_path / "x.pt")))
    wav = np.float32(clip(0, 0.5))
    padded = np.pad(wav, (0, 25600 - len(wav)))
    # Its volume is raised by its own samples, so the silence counts.
    quiet = encoder.embed(padded * 1e-3)
    np.testing.assert_allclose(quiet, encoder.embed(padded * 2e-3), atol=1e-5)
    assert encoder.embed(wav[:400]).shape == (256,)
    assert np.isfinite(encoder.embed(np.zeros(16000, "f4"))).all()


def test_draw_does_not_depend_on_the_order_of_rows(tmp_path):
    """And passes over no language that is not compared."""
    path = write_stories(tmp_path, "abab")
    drawn = check.draw_utterances([path], 2, seed=3)
    assert sorted(drawn) == [(s, lang) for s in "ab" for lang in ("en", "fr")]
    assert all(len(found) == 2 for found in drawn.values())
    table = pq.read_table(path)
    pq.write_table(table.take(np.arange(len(table))[::-1]), path)
    assert check.draw_utterances([path], 2, seed=3) == drawn
    assert check.draw_utterances([path, path], 2, seed=3) == drawn
    everything = check.draw_utterances([path], 99, seed=3)
    assert len(everything["a", "en"]) == 4
    assert check.draw_utterances([path], 2, 3, ["en", "fr"]) == drawn
    with pytest.raises(ValueError, match=r"unknown language\(s\) fr; expected"):
        check.draw_utterances([path], 2, 3, ["en", "de"])


def test_embeddings_are_found_and_damaged_ones_made_anew(tmp_path):
    drawn = check.draw_utterances([write_stories(tmp_path, "ab")], 2, seed=0)
    encoder, folder = PitchHistogram(low=100.0, high=3500.0), tmp_path / "e"
    first = check.embed_utterances(drawn, encoder, folder, per_file=1)
    lost, damaged, *_ = sorted(folder.glob("*.parquet"))
    lost.unlink()
    content = bytearray(damaged.read_bytes())
    content[50] ^= 1
    damaged.write_bytes(content)
    # What SIGKILL leaves, which no one tidies up.
    (folder / ".tmp-00001234-a.parquet").write_bytes(b"PAR1 torn")

    class Counting(PitchHistogram):
        calls = 0

        def embed(self, wav):
            Counting.calls += 1
            return super().embed(wav)

    again = check.embed_utterances(drawn, Counting(100.0, 3500.0), folder)
    assert Counting.calls == 2
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
    with pytest.raises(ValueError, match="begun with another configuration"):
        check.embed_utterances(drawn, PitchHistogram(), folder)


def test_audio_that_cannot_be_embedded_is_named(tmp_path):
    path = tmp_path / "0.flac"
    soundfile.write(path, np.ones(8000) / 2, 16000)
    other = path.read_bytes()
    soundfile.write(path, np.zeros(8000), 16000)
    drawn = {("a", "en"): [(sha256_file(path), str(path))]}
    for content, message in (
        (path.read_bytes(), "its embedding is zero"),
        (b"no audio", "cannot be read"),
        (other, "cannot be read.*SHA-256 is not the manifest's"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"0\.flac:? {message}"):
            check.embed_utterances(drawn, PitchHistogram(), tmp_path / "e")


def test_cosines_of_means_and_pairs():
    generator = np.random.default_rng(0)
    keys = list(itertools.product("abc", ("en", "fr")))
    spoken = {key: generator.normal(size=(5, 8)) + 1 for key in keys}
    unit = {
        key: one / np.linalg.norm(one, axis=1, keepdims=True)
        for key, one in spoken.items()
    }
    means, pairs = (
        {row["speaker"]: row for row in check.compare_voices(spoken, *options)}
        for options in ((["en", "fr"], 0), (["en", "fr"], 0, "pairs"))
    )
    for name in "abc":
        each = unit[name, "en"] @ unit[name, "fr"].T
        assert pairs[name]["cosine"] == pytest.approx(each.mean())
        assert pairs[name]["cosine"] < means[name]["cosine"] <= 1
    # The baseline is across languages, too, and both ways.
    cross = [
        (unit["a", x] @ unit[other, y].T).mean()
        for other in "bc"
        for x, y in (("en", "fr"), ("fr", "en"))
    ]
    assert pairs["a"]["others"] == pytest.approx(np.mean(cross))


def test_a_speaker_needs_every_language_and_every_pair():
    one, other = [[1.0, 0.0]], [[0.6, 0.8]]
    spoken = {("a", "en"): one, ("a", "fr"): one, ("a", "de"): other}
    spoken |= {("b", "en"): one}
    rows = check.compare_voices(spoken, ["en", "fr", "de"], 0.5)
    assert [row["speaker"] for row in rows] == ["b", "a"]
    assert rows[0]["reason"] == "no speech in fr, de"
    assert rows[1]["cosine"] == pytest.approx(0.6)
    assert rows[1]["kept"]
    assert not check.compare_voices(spoken, ["en", "fr", "de"], 0.61)[1]["kept"]
    with pytest.raises(ValueError, match="two languages"):
        check.compare_voices(spoken, ["en"], 0.5)


def leave_out(path, output, items=None, most=1.0, stamps=None, **reasons):
    """Leave out the voices that have a reason; return what is left."""
    voices = [{"speaker": k, "reason": v} for k, v in reasons.items()]
    manifests = {"train": path}
    leave_out_voices(manifests, items, output, voices, most, stamps)
    kept = tables.read_table(
        output / "train.parquet", tables.MANIFEST, tables.MANIFEST_KEY
    )
    tables.check_matched(output, kept, ["en", "fr"])
    return kept.to_pylist()


def reasons_of(output):
    lines = (output / "left_out.jsonl").read_text().splitlines()
    entries = map(json.loads, lines)
    return {one.get("story_id"): one["reason"] for one in entries}


def retell(path, speakers):
    """Give a manifest's rows other speakers."""
    table = pq.read_table(path)
    column = pa.array([*speakers] * (len(table) // len(speakers)))
    pq.write_table(table.set_column(3, "speaker", column), path)


def test_whole_stories_and_their_items_go(tmp_path):
    path = write_stories(tmp_path / "data", "abab")
    items = [
        (f"item-{n}", "sSC", "en", "fr", prompt, f"story-{n}", "story-0")
        for n, prompt in ((0, ""), (1, "story-0"), (2, "story-2"))
    ]
    columns = [list(column) for column in zip(*items, strict=True)]
    source = tmp_path / "data" / "items.parquet"
    pq.write_table(pa.table(columns, tables.ITEMS), source)
    output = tmp_path / "new"
    rows = leave_out(path, output, source, a="", b="cosine 0.1 is below 0.9")
    assert {row["story_id"] for row in rows} == {"story-0", "story-2"}
    assert len(rows) == 8
    for row in rows:
        assert (output / row["audio"]).is_file()
    kept = tables.read_table(
        output / "items.parquet", tables.ITEMS, tables.ITEMS_KEY, ("prompt",)
    )
    assert kept["item_id"].to_pylist() == ["item-0", "item-2"]
    reasons = reasons_of(output)
    assert list(reasons) == ["story-1", "story-3", None]
    assert reasons["story-1"] == "speaker 'b': cosine 0.1 is below 0.9"
    # One sentence by someone else, and the story goes.
    retell(path, "babbaabbaabbaabb")
    rows = leave_out(path, output, a="", b="low")
    assert {row["story_id"] for row in rows} == {"story-2"}
    assert not (output / "items.parquet").exists()


def test_stories_of_several_voices_stay_whole_or_go(tmp_path):
    """What is left is aligned, and the ledger names every bad voice."""
    path = write_stories(tmp_path / "data", "aaaa")
    # Two sentences a story, the same in both languages.
    retell(path, "abaabcab")
    output = tmp_path / "new"
    rows = leave_out(path, output, a="", b="too low", c="no speech in fr")
    assert {row["story_id"] for row in rows} == {"story-1"}
    low = "speaker 'b': too low"
    assert reasons_of(output) == {
        "story-0": low,
        "story-2": f"{low}; speaker 'c': no speech in fr",
        "story-3": low,
    }
    # Each voice is compared, whichever stories it speaks in.
    assert {key[0] for key in check.draw_utterances([path], 9, 0)} == set("abc")


def test_nothing_left_of_a_split_or_at_all_is_an_error(tmp_path):
    names, output = ("valid", "train"), tmp_path / "new"
    manifests = {name: write_stories(tmp_path / name, "ab") for name in names}
    leave_out(manifests["train"], output, a="", b="")
    retell(manifests["train"], "ab")
    voices = [{"speaker": "a", "reason": ""}, {"speaker": "b", "reason": "low"}]
    with pytest.raises(ValueError, match=r"train.*no story is left.*: a\. No"):
        leave_out_voices(manifests, None, output, voices)
    assert [path.name for path in output.iterdir()] == ["left_out.jsonl"]
    leave_out(manifests["valid"], output, a="", b="")
    with pytest.raises(ValueError, match="No voice is kept"):
        leave_out(manifests["valid"], output, a="x", b="y")
    assert not (output / "train.parquet").exists()


def test_half_a_corpus_is_not_left_out_without_a_word(tmp_path, caplog):
    path = write_stories(tmp_path / "data", "aaab")
    output = tmp_path / "new"
    reasons = {"a": "", "b": "cosine 0.795 is below 0.8"}
    with pytest.raises(TooManyLeftOut, match=r"4 of 16 rows .*\(25\.00%\)"):
        leave_out(path, output, most=0.2, **reasons)
    assert not (output / "train.parquet").exists()
    leave_out(path, output, most=0.25, **reasons)
    (record,) = (one for one in caplog.records if one.levelname == "WARNING")
    assert "1 x speaker 'b' (the first: cosine 0.795" in record.message


def test_the_manifests_that_are_read_are_not_replaced(tmp_path):
    path = write_stories(tmp_path, "ab")
    content = path.read_bytes()
    with pytest.raises(FileExistsError, match=f"{path.name} stands where"):
        leave_out(path, tmp_path, a="", b="low")
    assert path.read_bytes() == content


def test_a_manifest_that_changed_since_it_was_compared(tmp_path):
    path = write_stories(tmp_path / "data", "abab")
    stamps = [file_stamp(path)]
    path.write_bytes(path.read_bytes())
    output = tmp_path / "new"
    with pytest.raises(ValueError, match="was changed while its voices"):
        leave_out(path, output, stamps=stamps, a="", b="x")
    assert not (output / "train.parquet").exists()


def test_report(tmp_path):
    one, other = [[1.0, 0.0]], [[0.6, 0.8]]
    spoken = {("a", "en"): one, ("a", "fr"): one, ("b", "fr"): one}
    spoken |= {("b", "en"): other, ("c", "en"): one}
    rows = check.compare_voices(spoken, ["en", "fr"], 0.9)
    assert write_report(tmp_path, rows, SETTINGS) == ["a"]
    content = json.loads((tmp_path / "voices.json").read_text())
    assert content["kept"] == ["a"]
    assert [row["speaker"] for row in content["voices"]] == ["c", "b", "a"]
    assert (tmp_path / "voices.md").read_text() == voices_table(rows, SETTINGS)
    assert "| b | en 1, fr 1 | 0.600 |" in voices_table(rows, SETTINGS)
    assert (tmp_path / "voices.png").read_bytes()[:4] == b"\x89PNG"
