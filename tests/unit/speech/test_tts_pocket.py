import logging
import shutil
import sys

import pytest
import torch
from neural_voices import save_pocket
from safetensors.torch import load_file, save_file

from speechbrain_slm.speech.tts import Voice
from speechbrain_slm.speech.tts.pocket import PocketTTS, same_voices

MODELS = {"en": "english", "fr": "french"}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pocket")
    save_pocket(folder, speakers=("alba", "jean"))
    return folder


@pytest.fixture
def source(published, tmp_path):
    """A copy, to be changed."""
    return shutil.copytree(published, tmp_path / "pocket")


def make(source, **changes):
    options = {"models": MODELS, "speakers": ["alba", "jean"], **changes}
    return PocketTTS(source=str(source), **options)


def weights_of(source, model="english"):
    return source / "languages" / model / "model.safetensors"


def change(path, name, change):
    tensors = load_file(path)
    change(tensors[name])
    save_file(tensors, path)


def test_a_speaker_has_a_voice_in_every_language(published):
    tts, speakers = make(published), same_voices(MODELS, ["alba", "jean"])
    assert list(speakers) == ["alba", "jean"]
    for voices in speakers.values():
        assert list(voices) == ["en", "fr"]
        for voice in voices.values():
            tts.check_voice(voice)
    said = [tts.synthesize("Un chat.", v) for v in speakers["alba"].values()]
    said.append(tts.synthesize("Un chat.", speakers["jean"]["fr"]))
    assert len({samples.tobytes() for samples in said}) == 3


def test_the_identity_is_that_of_all_that_decides_the_samples(
    published, source
):
    # Wherever the files lie.
    one = make(published).identity
    assert make(source).identity == one
    found = [make(source, temperature=0.7).identity]
    voice = source / "languages/french/embeddings/jean.safetensors"
    other = voice.with_name("alba.safetensors").read_bytes()
    voice.write_bytes(other)
    found.append(make(source).identity)
    change(weights_of(source), "flow_lm.bos_emb", torch.Tensor.neg_)
    found.append(make(source).identity)
    config = source / "french.yaml"
    text = config.read_text()
    config.write_text(f"{text}\ndefault_eos_threshold: -3.0\n")
    found.append(make(source).identity)
    assert one not in found
    assert len({str(identity) for identity in found}) == 4


def test_the_caller_keeps_his_threads_whoever_imports_it(monkeypatch):
    threads = torch.get_num_threads()
    for name in [n for n in sys.modules if n.startswith("pocket_tts")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, PocketTTS.__module__)
    torch.set_num_threads(3)
    try:
        __import__(PocketTTS.__module__)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_the_extra_is_named_when_it_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "pocket_tts", None)
    monkeypatch.delitem(sys.modules, PocketTTS.__module__)
    with pytest.raises(ImportError, match=r"pip install .*\[pocket\]"):
        __import__(PocketTTS.__module__)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A cat says 日本.", "no sign for a part of 'A cat says 日本"),
        ("So " + "very " * 60 + "sad.", r"tokens without a pause.*at most 50"),
    ],
)
def test_a_text_of_which_a_part_would_be_lost(published, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        make(published).synthesize(text, Voice("english/alba"))
    assert repr(text) in str(caught.value)


def test_a_long_text_with_pauses_is_said_in_chunks(published, caplog):
    tts, phrase = make(published), "Tom was very sad, "
    voice = Voice("english/alba")
    once = tts.synthesize(phrase + "and so he cried.", voice)
    often = tts.synthesize(24 * phrase + "and so he cried.", voice)
    assert len(often) > 3 * len(once)
    assert not caplog.records


def test_marks_that_the_model_replaces_are_not_refused(published):
    tts = make(published)
    for text in ("« Viens ! » dit “Léa”.", "L’été (enfin) ; voilà"):
        assert len(tts.synthesize(text, Voice("french/alba")))


def test_a_text_without_end_is_left_out_and_the_log_stays_short(source, caplog):
    bias = "flow_lm.out_eos.bias"
    change(weights_of(source), bias, lambda tensor: tensor.fill_(-1e4))
    tts = make(source)
    for text in ("Tom was sad.", "Lily, too."):
        with pytest.raises(ValueError, match="no end was found to") as caught:
            tts.synthesize(text, Voice("english/alba"))
        assert repr(text) in str(caught.value)
    assert tts.synthesize("Il pleut.", Voice("french/jean")).any()
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_what_is_not_there_is_named(source, monkeypatch):
    with pytest.raises(ValueError, match=r"names 'klingon'; expected of dutch"):
        make(source, models={"en": "klingon"})
    with pytest.raises(
        FileNotFoundError, match=r"eve.safetensors is not there"
    ):
        make(source, speakers=["eve"])
    weights_of(source).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        make(source)
    assert str(weights_of(source)) in str(caught.value)
    assert "hf download kyutai/pocket-tts-without" in str(caught.value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="hf download kyutai/pocket"):
        PocketTTS(MODELS, ["alba"])
