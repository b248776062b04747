"""A codec's decoder, with the acoustic codebooks given or predicted."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_models import save_mimi

from speechbrain_slm.inference.speaking import load_speaker
from speechbrain_slm.models.vocoders.acoustic import AcousticModel, code_loss
from speechbrain_slm.models.vocoders.base import load_vocoder
from speechbrain_slm.models.vocoders.codec import CodecVocoder
from speechbrain_slm.units.tokenizers.codec import interleave
from speechbrain_slm.units.tokenizers.mimi import Mimi

SETTINGS = {
    "num_codebooks": 4,
    "hidden_size": 24,
    "dilations": [1, 2],
    "dropout": 0.0,
}
NAMES = ["anna", "bruno"], ["en", "fr"]


@pytest.fixture(name="source", scope="module")
def _source(tmp_path_factory):
    return save_mimi(tmp_path_factory.mktemp("mimi"))


def model(seed=0, **settings):
    torch.manual_seed(seed)
    return AcousticModel(
        64, num_speakers=2, num_languages=2, **{**SETTINGS, **settings}
    ).eval()


def vocoder(source, deduplicated):
    torch.manual_seed(0)
    tokenizer = Mimi(source, deduplicate=deduplicated)
    return CodecVocoder(tokenizer, *NAMES, acoustic=SETTINGS)


def sentences():
    generator = np.random.default_rng(0)
    return [generator.integers(0, 64, n) for n in (0, 1, 9, 25)]


def test_a_decoder_needs_no_training(source, tmp_path):
    CodecVocoder(Mimi(source)).save(tmp_path)
    loaded = load_vocoder(tmp_path, Mimi(source))
    units = sentences()
    wavs = loaded.speak(units, languages=["en"] * 4)
    assert [len(wav) for wav in wavs] == [1920 * len(one) for one in units]
    assert torch.equal(wavs[3], Mimi(source).decode(units[3]))
    with pytest.raises(ValueError, match=r"speaker 'anna' .* none at all"):
        loaded.speak(units, speakers=["anna"] * 4)
    with pytest.raises(ValueError, match="is in its tokenizer"):
        load_vocoder(tmp_path)
    with pytest.raises(ValueError, match="de-duplicated"):
        CodecVocoder(Mimi(source, deduplicate=True))


@pytest.mark.parametrize("deduplicated", [False, True])
def test_a_model_of_codec_units_speaks_by_itself(
    source, tmp_path, deduplicated
):
    tokenizer = Mimi(source, deduplicate=deduplicated)
    units = {"tokenizer_identity": tokenizer.identity}
    encoder = SimpleNamespace(available=tokenizer)
    found = load_speaker(tmp_path, units, None, encoder)
    if deduplicated:
        assert found is None
    else:
        assert len(found.speak([np.array([1, 1])])[0]) == 2 * 1920


def test_given_acoustic_codes_are_heard(source):
    tokenizer = Mimi(source, num_codebooks=3)
    codes = np.random.default_rng(0).integers(0, 64, (3, 12))
    wav = CodecVocoder(tokenizer).speak([interleave(codes, 64)])[0]
    semantic = CodecVocoder(Mimi(source)).speak([codes[0]])[0]
    assert wav.shape == semantic.shape
    assert (wav - semantic).abs().max() > 0.01 * semantic.abs().max()
    with pytest.raises(ValueError, match="hold 3 codebooks"):
        CodecVocoder(tokenizer, *NAMES, acoustic=SETTINGS)


@pytest.mark.parametrize("deduplicated", [False, True])
def test_predicted_codes_are_spoken(source, tmp_path, deduplicated):
    """Alone, in a batch and from a folder; the decoder gets all codebooks."""
    ours = vocoder(source, deduplicated=deduplicated)
    ours.save(tmp_path)
    tokenizer = Mimi(source, deduplicate=deduplicated)
    loaded = load_vocoder(tmp_path, tokenizer)
    assert loaded.identity == ours.identity
    units, who = sentences(), ["anna", "bruno", "bruno", "anna"]
    together = loaded.speak(units, who, ["en", "fr", "fr", "en"])
    for i, wav in enumerate(together):
        language = ["fr" if who[i] == "bruno" else "en"]
        assert torch.equal(wav, ours.speak([units[i]], [who[i]], language)[0])
    if deduplicated:
        assert len(together[3]) >= 1920 * len(units[3])
        return
    told = ours.network.conditioning(torch.tensor([0]), torch.tensor([0]))
    codes = ours.network.predict(torch.from_numpy(units[3])[None], told)[0]
    assert codes.shape == (4, 25)
    assert codes[0].tolist() == units[3].tolist()
    assert torch.equal(together[3], tokenizer.waveform(codes.numpy()))


@pytest.mark.parametrize("causal", [False, True])
def test_nothing_behind_an_utterance_reaches_it(causal):
    acoustic, told = model(causal=causal), torch.tensor([[0, 1], [1, 0]])
    codes = torch.randint(64, (2, 4, 30))
    lengths = torch.tensor([30, 18])
    logits, _ = acoustic(codes, lengths, *told)
    alone, _ = acoustic(codes[1:, :, :18], lengths[1:], *told[:, 1:])
    torch.testing.assert_close(logits[1:, :, :18], alone)
    # By a change of the frame 10: who sees it?
    changed = codes.clone()
    changed[0, 0, 10] = (codes[0, 0, 10] + 1) % 64
    other, _ = acoustic(changed, lengths, *told)
    seen = (other[0] - logits[0]).abs().amax(dim=(0, 2)) > 1e-6
    assert seen[:10].any() != causal
    assert seen[10:14].all()


def test_no_head_sees_the_codes_that_it_is_to_give():
    acoustic, told = model(), torch.tensor([[0], [1]])
    codes, lengths = torch.randint(64, (1, 4, 12)), torch.tensor([12])
    logits, _ = acoustic(codes, lengths, *told)
    for number in (1, 2, 3):
        changed = codes.clone()
        changed[:, number] = (changed[:, number] + 1) % 64
        other, _ = acoustic(changed, lengths, *told)
        heads = [not torch.equal(other[:, i], logits[:, i]) for i in range(3)]
        assert heads == [i >= number for i in range(3)]


@pytest.mark.long
def test_a_mapping_is_learnt():
    """Codes that follow from context, speaker and the codebook before."""
    acoustic = model(hidden_size=64, num_codebooks=3)
    generator = torch.Generator().manual_seed(0)
    table = torch.randint(64, (2, 64), generator=generator)
    jump = torch.randint(64, (2, 64), generator=generator)

    def batch(size):
        semantic = torch.randint(64, (size, 20), generator=generator)
        who = torch.randint(2, (size,), generator=generator)
        before = torch.nn.functional.pad(semantic, (1, 0))[:, :-1]
        coarse = table[who[:, None], before]
        fine = jump[who[:, None], coarse // 8 * 8 + semantic // 8]
        return torch.stack([semantic, coarse, fine], 1), who

    optimizer = torch.optim.AdamW(acoustic.parameters(), lr=3e-3)
    lengths = torch.full((16,), 20)
    for _ in range(200):
        codes, who = batch(16)
        logits, _ = acoustic(codes, lengths, who, who * 0)
        optimizer.zero_grad()
        code_loss(logits, codes, lengths).backward()
        optimizer.step()
    codes, who = batch(16)
    told = acoustic.conditioning(who, who * 0)
    found = acoustic.predict(codes[:, 0], told)
    accuracy = (found == codes).float().mean(dim=(0, 2))
    assert accuracy[1] > 0.97
    assert accuracy[2] > 0.8
