import itertools
import json

import numpy as np
import pytest
import torch
from tiny_models import encode_alone, fit, pad, speech

from speechbrain_slm.units.tokenizers.base import DESCRIPTION
from speechbrain_slm.units.tokenizers.kmeans import TENSORS
from speechbrain_slm.units.tokenizers.mel_kmeans import MelKMeans


def wavs(count=8, seconds=1.0):
    return speech(16000, [seconds] * count)


def features(tokenizer, wav):
    return tokenizer.features(*pad([wav]))[0]


def fitted(seed=0, **config):
    return fit(MelKMeans(num_clusters=20, **config), wavs(), seed)


def restored(folder, **config):
    MelKMeans(num_clusters=20, **config).restore(folder)


def encode(tokenizer, wav):
    return encode_alone(tokenizer, [wav])[0]


def test_identity_names_configuration_and_codebook():
    tokenizer = fitted()
    moved = tokenizer.tensors["centroids"].copy()
    moved[3, 5] += 1
    other, raw = MelKMeans(20), MelKMeans(20, deduplicate=False)
    other._set({**tokenizer.tensors, "centroids": moved}, "a test")
    raw._set(tokenizer.tensors, "a test")
    assert len({one.identity for one in (tokenizer, other, raw)}) == 3


def test_identity_is_the_one_of_stores_that_are_there():
    """Whoever changes it makes all stores useless."""
    tokenizer = MelKMeans(num_clusters=2, num_mfcc=1, frames_per_unit=1)
    tensors = {"centroids": [[0.5], [-1.0]], "mean": [0.0], "std": [1.0]}
    arrays = {k: np.array(v, dtype=np.float32) for k, v in tensors.items()}
    tokenizer._set(arrays, "a test")
    assert tokenizer.identity.startswith("43ab0864087946a2")


@pytest.mark.parametrize("normalization", ["none", "mean", "mean_variance"])
def test_normalization_takes_out_level_and_spread(normalization):
    wav, tokenizer = wavs(1)[0], fitted(normalization=normalization)
    same = encode(tokenizer, wav) == encode(tokenizer, wav / 4)
    assert same == (normalization != "none")
    spread = features(tokenizer, wav).reshape(-1, 13).std(dim=0)
    even = torch.allclose(spread, torch.ones(13), atol=0.05)
    assert even == (normalization == "mean_variance")


def test_length_follows_the_frame_rate():
    tokenizer = fitted(deduplicate=False)
    wav = wavs(1, seconds=2.0)[0]
    assert tokenizer.frame_rate == 25
    assert len(encode(tokenizer, wav)) == 50
    assert encode(tokenizer, wav[:80]) == []
    once = encode(fitted(), wav)
    assert 1 < len(once) < 50
    assert all(one != other for one, other in itertools.pairwise(once))


def test_codebook_of_another_tokenizer_is_refused(tmp_path):
    fitted().save(tmp_path / "one")
    fitted(seed=1).save(tmp_path / "other")
    fitted(num_mfcc=12).save(tmp_path / "size")
    for name, text in (("other", "saved together"), ("size", "48")):
        tensors = (tmp_path / name / TENSORS).read_bytes()
        (tmp_path / "one" / TENSORS).write_bytes(tensors)
        with pytest.raises(ValueError, match=text):
            restored(tmp_path / "one")


def test_incomplete_or_edited_tokenizer_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="units recipe"):
        restored(tmp_path)
    fitted().save(tmp_path)
    path = tmp_path / DESCRIPTION
    content = json.loads(path.read_text())
    content["config"]["deduplicate"] = False
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="fit it again"):
        restored(tmp_path)
    with pytest.raises(ValueError, match="saved together"):
        restored(tmp_path, deduplicate=False)
    with pytest.raises(ValueError, match="no centroids yet"):
        encode(MelKMeans(), wavs(1)[0])
    with pytest.raises(ValueError, match=r"25 frame\(s\) to fit 100"):
        fit(MelKMeans(), wavs(1))


def test_context_is_stacked_on_either_side():
    wav = wavs(1)[0]
    plain = features(MelKMeans(normalization="none"), wav)
    wide = features(MelKMeans(normalization="none", context_frames=4), wav)
    assert wide.shape == (25, 12 * 13)
    assert torch.equal(wide[:, 52:104], plain)
    # What stands around a unit is its neighbours.
    assert torch.equal(wide[1:, :52], plain[:-1])
    assert torch.equal(wide[:-1, 104:], plain[1:])
    # Beyond the ends the last frame is repeated.
    assert torch.equal(wide[0, :52], plain[0, :13].repeat(4))
    assert not len(features(MelKMeans(context_frames=4), wav[:80]))
    # Stores that were made before there was a choice keep their identity.
    assert "context_frames" not in MelKMeans().config
