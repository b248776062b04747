import json
import logging
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from cloze_example import DIRECTIONS, tiny_model
from slm_example import Tones, export_slm, write_stories, write_wav
from tiny_models import save_mimi
from units_example import RATE, clip, extract

import speechbrain_slm
from speechbrain_slm import SpeechLM
from speechbrain_slm.evaluation.cloze.conventions import LIKELIHOODS
from speechbrain_slm.evaluation.cloze.evaluate import evaluate_cloze
from speechbrain_slm.inference.encoding import Encoder
from speechbrain_slm.models.export import save_speech_lm
from speechbrain_slm.models.vocoders.codec import CodecVocoder
from speechbrain_slm.units.tokenizers.base import deduplicate, saved_files
from speechbrain_slm.units.tokenizers.mimi import Mimi


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder of a model with BPE, and its tokenizer and pieces."""
    folder = tmp_path_factory.mktemp("slm") / "model"
    return folder, *export_slm(folder)


@pytest.fixture(scope="module")
def slm(made):
    folder, tokenizer, _ = made
    vocoder = Tones(tokenizer.identity)
    return SpeechLM.from_pretrained(folder, device="cpu", vocoder=vocoder)


@pytest.fixture(scope="module")
def wav(tmp_path_factory):
    return write_wav(tmp_path_factory.mktemp("wav") / "prompt.wav", 5)


def expected_units(made, seed, seconds=1.2):
    _, tokenizer, pieces = made
    # As 16-bit samples of a file have it.
    samples = np.round(clip(seed, seconds) * 2**15) / 2**15
    sound = torch.tensor(samples, dtype=torch.float32)
    units = tokenizer.encode(sound[None], torch.tensor([len(sound)]))
    return pieces.encode(units)[0].tolist()


def test_import_is_quick_until_a_class_is_asked_for():
    code = "import sys, speechbrain_slm; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'SpeechML'"):
        _ = speechbrain_slm.SpeechML


def test_files_of_any_rate_and_in_stereo(made, slm, wav, tmp_path):
    units = slm.encode_file(wav)
    assert units.tolist() == expected_units(made, 5)
    stereo = write_wav(tmp_path / "stereo.flac", 5, channels=2)
    assert slm.encode_file(str(stereo)).tolist() == units.tolist()
    fast = write_wav(tmp_path / "fast.wav", 5, rate=44100)
    samples = torch.from_numpy(soundfile.read(fast, dtype="float32")[0])
    (there,) = slm.encode_batch([samples], sample_rate=44100)
    assert slm.encode_file(fast).tolist() == there.tolist()
    assert len(there)
    other = write_wav(tmp_path / "other.wav", 6)
    both = slm.encode_file([wav, other]).tolist()
    assert both == [*units, *slm.encode_file(other)]


def test_batches_as_speechbrain_has_them(made, slm):
    wavs = torch.zeros(2, RATE * 2)
    lengths = []
    for row, (seed, seconds) in zip(wavs, [(1, 2.0), (2, 0.7)], strict=True):
        sound = torch.tensor(clip(seed, seconds), dtype=torch.float32)
        row[: len(sound)] = sound
        lengths.append(len(sound) / wavs.shape[1])
    units = slm.encode_batch(wavs, torch.tensor(lengths))
    alone = [
        slm.encode_batch([wavs[0]])[0],
        slm.encode_batch([wavs[1, : round(0.7 * RATE)]])[0],
    ]
    assert [one.tolist() for one in units] == [one.tolist() for one in alone]
    # Shares of the longest, which need not come first.
    listed = [wavs[1, : round(0.7 * RATE)], wavs[0]]
    units = slm.encode_batch(listed, torch.tensor(lengths[::-1]))
    assert [len(one) for one in units] == [len(one) for one in alone[::-1]]


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        (np.zeros(RATE), "every sample is 0"),
        (clip(1)[:200], r"too short, it lasts 0\.013 s"),
        (clip(1)[:0], "it holds no sample"),
    ],
)
def test_what_cannot_be_heard_is_named(slm, tmp_path, samples, told):
    path = tmp_path / "bad.wav"
    soundfile.write(path, samples, RATE)
    with pytest.raises(ValueError, match=rf"bad\.wav: {told}"):
        slm.encode_file(path)
    with pytest.raises(ValueError, match=r"gone\.wav: it does not exist"):
        slm.continue_file(tmp_path / "gone.wav")


@pytest.mark.long
@pytest.mark.parametrize("tags", [(), ("en", "fr")])
def test_scores_are_those_of_the_cloze_recipe(tmp_path, tags):
    import pyarrow.parquet as pq

    from speechbrain_slm.units.assembly import assemble_stores
    from speechbrain_slm.units.manifest import map_manifest
    from speechbrain_slm.units.rejects import leave_out_rejects

    folder = tmp_path / "model"
    tokenizer, pieces = export_slm(folder, tags=tags)
    manifest, items, files = write_stories(tmp_path)
    units = tmp_path / "units"
    extract(manifest, units, tokenizer, max_rejects=0)
    shutil.rmtree(units / "train")
    manifests = {"train": map_manifest(manifest, ["en", "fr"], units / "m")}
    kept = leave_out_rejects(manifests, units / "utterances", units, 0)
    assemble_stores(kept, tokenizer, units, pieces, 9)
    evaluate_cloze(folder, units / "train", items, tmp_path / "cloze")
    rows = pq.read_table(tmp_path / "cloze" / "scores.parquet").to_pylist()
    assert len(rows) == len(DIRECTIONS)
    slm = SpeechLM.from_hparams(folder, run_opts={"device": "cpu"})
    for row in rows:
        spoken = row["prompt_language"], row["ending_language"]
        prompt = files[row["prompt"], spoken[0]]
        pairs = [
            (prompt, files[row[side], spoken[1]]) for side in ("right", "wrong")
        ]
        for name in LIKELIHOODS:
            expected = [row[f"right_{name}"], row[f"wrong_{name}"]]
            found = slm.score_files(pairs, name, [spoken] * 2)
            assert found == pytest.approx(expected, abs=1e-5)
    one = slm.score_file(pairs[0][1], pairs[0][0], languages=[spoken])
    assert one == pytest.approx(rows[-1]["right_whole_mean"], abs=1e-5)
    whole = slm.score_files(pairs[0][1], languages=["fr", "fr"])
    assert whole.shape == (2,)
    with pytest.raises(
        ValueError, match="convention is 'best'; expected whole"
    ):
        slm.score_files(pairs, "best")


def test_the_same_alone_and_in_a_batch(slm, wav, tmp_path):
    other = write_wav(tmp_path / "other.wav", 9, 3.0)
    prompts = [wav, other, np.array([3, 4, 5]), [wav, other]]
    how = {"temperature": 1.1, "top_k": None, "top_p": 0.9, "seconds": 1.0}
    together = slm.continue_batch(prompts, seed=[1, 2, 3, 4], **how)
    for number, (waveform, units) in enumerate(together):
        (alone,) = slm.continue_batch([prompts[number]], seed=number + 1, **how)
        assert alone.units.tolist() == units.tolist()
        assert torch.equal(alone.waveform, waveform)
        assert 0.5 < len(waveform) / slm.vocoder.sample_rate < 2
        assert units.max() < slm.facts["vocabulary_size"]
        assert slm.encoder.bpe.unknown not in units
    again = slm.continue_file(wav, seed=2, **how).units
    assert again.tolist() != together[0].units.tolist()


def test_a_prompt_near_the_context_goes_alone(slm, caplog):
    generator = np.random.default_rng(0)
    prompts = [generator.integers(1, 20, n) for n in (3, 118, 300)]
    how = {"max_units": 12, "seed": 5}
    with caplog.at_level(logging.WARNING):
        together = slm.continue_units(prompts, **how)
    assert "313 symbols" not in caplog.text
    assert "301 symbols and 12 new units exceed" in caplog.text
    for prompt, units in zip(prompts, together, strict=True):
        assert slm.continue_units([prompt], **how)[0].tolist() == units.tolist()
    with pytest.raises(ValueError, match="give a shorter prompt"):
        slm.continue_units(prompts, too_long="refuse", **how)


def test_each_prompt_has_its_seed(slm):
    with pytest.raises(ValueError, match="3 seeds for 2 prompts"):
        slm.continue_units([np.array([3])] * 2, max_units=3, seed=[1, 2, 3])


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        (torch.zeros(RATE), "waveform 1: every sample is 0"),
        (torch.full((RATE,), torch.nan), "waveform 1: a sample is NaN"),
        (torch.ones(2, RATE), r"waveform 1: its shape is \(2, 16000\)"),
        (
            torch.tensor(clip(1) * 2**15).to(torch.int16),
            r"waveform 1: a sample is .* times full scale",
        ),
    ],
)
def test_waveforms_that_are_none(slm, samples, told):
    fine = torch.tensor(clip(1), dtype=torch.float32)
    with pytest.raises(ValueError, match=told):
        slm.encode_batch([fine, samples])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"wav_lens": torch.tensor([1.0])}, "wav_lens has 1 entries for 2"),
        ({"wav_lens": torch.tensor([9.0, 8.0])}, "largest of wav_lens is 9.0"),
        ({"languages": ["en"]}, "languages has 1 entries for 2 waveforms"),
        ({"sample_rate": 0}, "sample_rate is 0"),
    ],
)
def test_what_does_not_fit_the_waveforms(slm, options, told):
    with pytest.raises(ValueError, match=told):
        slm.encode_batch(torch.full((2, RATE), 0.1), **options)


def test_what_fits_no_files_and_no_pieces(slm, wav):
    with pytest.raises(ValueError, match="languages has 1 entries for 2 files"):
        slm.score_files([wav, wav], languages=["en"])
    with pytest.raises(ValueError, match=r"max_units is 2\.5"):
        slm.continue_units([wav], max_units=2.5)
    for piece in (0, 20):  # the unknown one, and the boundary
        with pytest.raises(ValueError, match=f"{piece} is no piece"):
            slm.decode_batch([np.array([3, piece])])


def test_what_is_drawn_hangs_on_no_file_of_the_tokenizer():
    missing = FileNotFoundError()
    merged = Encoder(missing, config={"base": {}, "bpe": {}})
    assert (merged.unused, merged.codebooks) == ([0], 1)
    codec = Encoder(missing, config={"type": "mimi", "num_codebooks": 3})
    assert (codec.unused, codec.codebooks) == ([], 3)
    assert (Encoder(missing).unused, Encoder(missing).codebooks) == ([], 1)
    # Nor what a vocoder is given.
    units = np.array([4, 4, 2])
    assert Encoder(missing).below(units).tolist() == [4, 4, 2]
    plain = Encoder(missing, config={"deduplicate": True})
    assert plain.below(units).tolist() == [4, 2]
    with pytest.raises(FileNotFoundError):
        merged.below(units)


def test_pieces_are_heard_without_the_tokenizers_model(slm, tmp_path, made):
    folder = tmp_path / "model"
    shutil.copytree(made[0] / "tokenizer", folder / "tokenizer")
    path = folder / "tokenizer" / "tokenizer.json"
    told = json.loads(path.read_text())
    # As of an encoder that stood in a local folder.
    told["config"] = {"type": "mimi"}
    path.write_text(json.dumps(told))
    encoder = Encoder.load(folder)
    with pytest.raises(FileNotFoundError, match="does not name the pretrained"):
        _ = encoder.tokenizer
    pieces = np.arange(1, 20)
    expected = slm.encoder.below(pieces).tolist()
    assert encoder.below(pieces).tolist() == expected


def test_a_story_may_end(slm):
    prompts = [np.array([n]) for n in range(1, 9)]
    how = {"max_units": 30, "top_k": None, "temperature": 3.0}
    ended = slm.continue_units(prompts, stop_at_boundary=True, **how)
    whole = slm.continue_units(prompts, **how)
    assert [len(units) for units in whole] == [30] * 8
    assert min(len(units) for units in ended) < 30


def test_a_language_is_asked_for_by_its_tag(tmp_path, wav, caplog, slm):
    export_slm(tmp_path / "model", tags=("en", "fr"))
    tagged = SpeechLM.from_pretrained(tmp_path / "model", device="cpu")
    read = []
    tagged.model.register_forward_pre_hook(
        lambda _, args, given: read.append(given["input_ids"][0].tolist()),
        with_kwargs=True,
    )
    units = np.array([4, 5])
    for language, prompt_language, expected in (
        ("fr", "en", [20, 21, 4, 5, 22]),
        ("fr", None, [20, 4, 5, 22]),
        ("en", "en", [20, 21, 4, 5]),
        (None, None, [20, 4, 5]),
    ):
        read.clear()
        how = {"language": language, "prompt_language": prompt_language}
        (drawn,) = tagged.continue_units([units], max_units=3, **how)
        assert read[0] == expected
        assert drawn.max() < 20
    assert "prompt_language is None" in caplog.text
    # A model may draw tags; nothing is heard of them.
    how = {"max_units": 30, "allow_tags": True, "temperature": 9.0}
    how |= {"top_k": None, "prompt_language": "en"}
    tagged._vocoder, tagged._speaks = slm.vocoder, True
    waveform, drawn = tagged.continue_batch([units], **how)[0]
    assert drawn.max() > 20
    assert len(waveform)
    assert len(torch.cat([*tagged.stream(units, **how)]))
    with pytest.raises(ValueError, match="no tag for 'de', only for en, fr"):
        tagged.continue_units([units], max_units=3, language="de")
    with caplog.at_level(logging.WARNING):
        found = slm.continue_file(wav, 0.5, language="fr")
    assert "Let the last sentence of the prompt be in 'fr'" in caplog.text
    with caplog.at_level(logging.WARNING):
        slm.decode_batch([units, units], language="fra")
    assert caplog.text.count("not 'fra'") == 1
    assert slm.vocoder.spoken.pop()[2] is None
    # Yet the vocoder speaks it.
    assert slm.vocoder.spoken[-1][2] == ["fr"]
    assert found.units.tolist() == slm.continue_file(wav, 0.5).units.tolist()


def test_a_stream_is_the_whole_in_pieces(slm, wav):
    whole = slm.continue_file(wav, 3.0, seed=4, speaker="high")
    chunks = [*slm.stream(wav, 3.0, seed=4, speaker="high")]
    assert len(chunks) > 3
    assert all(len(chunk) for chunk in chunks)
    # What is mixed is twice the same here.
    found = torch.cat(chunks)
    first = 320  # a unit that the prompt ends with is not said again
    assert len(whole.waveform) - len(found) in range(0, 2 * first)
    tail = whole.waveform[len(whole.waveform) - len(found) :]
    assert torch.allclose(found[81:], tail[81:], atol=1e-5)


def test_units_of_a_fixed_rate(tmp_path, wav):
    tokenizer, _ = export_slm(tmp_path / "model", bpe=False, deduplicate=False)
    vocoder = Tones(tokenizer.identity, deduplicated=False)
    slm = SpeechLM.from_pretrained(tmp_path / "model", "cpu", vocoder=vocoder)
    assert len(slm.continue_file(wav, 2.0).units) == 50
    (none,) = slm.continue_units([np.zeros(0, int)], 1.0)
    assert len(none) == 25
    repeated = slm.decode_batch([np.array([3, 3, 3])])
    assert len(repeated[0]) == 3 * 350


@pytest.mark.long
def test_all_codebooks_of_a_codec(tmp_path, wav):
    """Its decoder stands in for a vocoder; its frames stay whole."""
    source, folder = save_mimi(tmp_path / "mimi"), tmp_path / "model"
    codec = Mimi(source, num_codebooks=3)
    codec.save(tmp_path / "tokenizer")
    CodecVocoder(codec).save(tmp_path / "vocoder")
    size, identity = codec.vocabulary_size, codec.identity
    units = {"tokenizer_identity": identity, "vocabulary_size": size}
    save_speech_lm(
        folder,
        tiny_model(size=size),
        {**units, "boundary": size},
        saved_files(tmp_path / "tokenizer", identity),
        vocoder_folder=tmp_path / "vocoder",
    )
    slm = SpeechLM.from_pretrained(folder, "cpu", encoder=source)
    waveform, units = slm.continue_file(wav, 0.5, top_k=None)
    assert (units // 64).tolist() == [0, 1, 2] * 7
    assert len(waveform) == 7 * 1920
    chunks = [*slm.stream(wav, 0.5, top_k=None, chunk_seconds=0.1)]
    assert sum(map(len, chunks)) == len(waveform)
    # Without the codec there are units and no sound.
    bare = SpeechLM.from_pretrained(folder, "cpu")
    prompt = [slm.encode_file(wav)]
    (drawn,) = bare.continue_units(prompt, max_units=3)
    assert len(drawn) == 3
    for use in (bare.encode_file, bare.continue_file):
        with pytest.raises(FileNotFoundError, match="say where it is"):
            use(wav)


def test_what_is_heard_of_a_file(slm, wav, made):
    waveform = slm.resynthesize_file(wav)
    (units,), speakers, languages = slm.vocoder.spoken[-1]
    pieces = made[2]
    below = deduplicate(pieces.decode(slm.encode_file(wav)))
    assert units.tolist() == below.tolist()
    assert (speakers, languages) == (None, None)
    assert len(waveform) == sum(320 + 10 * unit for unit in units)


def test_seconds_of_nothing_known(slm):
    with pytest.raises(ValueError, match="give max_units"):
        slm.continue_units([np.zeros(0, int)], 1.0)


def test_parts_that_are_missing_are_named(made, wav, tmp_path):
    folder = made[0]
    slm = SpeechLM.from_pretrained(folder, device="cpu")
    for use in (slm.continue_file, slm.stream, slm.resynthesize_file):
        with pytest.raises(FileNotFoundError, match=r"has no vocoder.*recipe"):
            use(wav)
    copy = tmp_path / "model"
    slm.model.save_pretrained(copy)
    saved = SpeechLM.from_pretrained(copy, device="cpu")
    units = [np.array([3, 4])]
    how = {"max_units": 9, "banned": [slm.encoder.bpe.unknown]}
    (expected,) = slm.continue_units(units, **how)
    assert saved.continue_units(units, **how)[0].tolist() == expected.tolist()
    with pytest.raises(FileNotFoundError, match="takes units, and no audio"):
        saved.encode_file(wav)
    shutil.copytree(folder / "tokenizer", copy / "tokenizer")
    whole = SpeechLM.from_pretrained(copy, device="cpu")
    found = whole.score_files([wav])
    assert found == pytest.approx(slm.score_files([wav]), abs=1e-5)


def test_the_tokenizer_of_another_is_refused(made, tmp_path):
    copy, other = tmp_path / "copy", tmp_path / "other"
    shutil.copytree(made[0], copy)
    export_slm(other, bpe=False)
    shutil.rmtree(copy / "tokenizer")
    shutil.copytree(other / "tokenizer", copy / "tokenizer")
    (copy / "files.json").unlink()
    with pytest.raises(
        ValueError, match="the tokenizer in it has the identity"
    ):
        SpeechLM.from_pretrained(copy)


def test_the_vocoder_of_another_is_refused(made, tmp_path):
    with pytest.raises(ValueError, match="the tokenizer another, the"):
        SpeechLM.from_pretrained(made[0], vocoder=Tones("another"))


def test_a_damaged_vocoder_is_named_without_a_tokenizer(tmp_path):
    folder = tmp_path / "model"
    export_slm(folder, bpe=False, vocoder=True)
    shutil.rmtree(folder / "tokenizer")
    (folder / "files.json").unlink()
    SpeechLM.from_pretrained(folder, "cpu")
    (folder / "vocoder" / "vocoder.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="has not the SHA-256"):
        SpeechLM.from_pretrained(folder, "cpu")


def test_a_name_without_a_network_says_what_to_fetch(tmp_path):
    with pytest.raises(FileNotFoundError, match="hf download user/none"):
        SpeechLM.from_pretrained("user/none", cache_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="gone does not exist; expect"):
        SpeechLM.from_pretrained(tmp_path / "gone")


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        (np.array([3, 20]), r"prompts\[0\]: unit 20 is outside \[0, 20\)"),
        (np.zeros(99, np.float32), r"float32 \[99\], expected integers"),
        (np.zeros((2, 3), int), r"int64 \[2, 3\], expected integers \[U\]"),
        ([3, 4], "3 is no name of an audio file; where units may be given"),
    ],
)
def test_arrays_that_are_no_units(slm, prompt, told):
    with pytest.raises(ValueError, match=told):
        slm.continue_units([prompt], max_units=3)


@pytest.mark.parametrize("links", [False, True])
def test_a_model_is_pushed_and_loaded_by_its_name(
    slm, wav, tmp_path, links, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub = tmp_path / "hub"
    snapshot = slm.push_to_hub("user/hums", cache_dir=hub)
    assert slm.push_to_hub("user/hums", cache_dir=hub) == snapshot
    if links:  # as the hub's own cache has it
        blobs = hub / "models--user--hums" / "blobs"
        blobs.mkdir()
        for number, (place, _, names) in enumerate([*os.walk(snapshot)]):
            for name in names:
                path = os.path.join(place, name)
                shutil.move(path, blobs / f"{number}-{name}")
                os.symlink(blobs / f"{number}-{name}", path)
    again = SpeechLM.from_pretrained("user/hums", "cpu", cache_dir=hub)
    assert again.score_files([wav]) == slm.score_files([wav])
    assert again.continue_units([wav], 1.0)[0].tolist() == (
        slm.continue_units([wav], 1.0)[0].tolist()
    )
