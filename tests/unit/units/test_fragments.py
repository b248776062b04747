"""Every tokenizer's YAML fragment, with small models in local folders."""

from pathlib import Path

import pytest
from tiny_models import fit, pad, save_encoder, save_mimi, save_whisper, speech

from speechbrain_slm.units.tokenizers.base import describe
from speechbrain_slm.utils.config import load_yaml

ROOT = Path(__file__).parents[3]
FRAGMENTS = sorted((ROOT / "hparams" / "units").glob("*.yaml"))
# Where the published models have as many layers.
LAYERS = {"num_hidden_layers": 24, "intermediate_size": 8}
SAVE = {
    "hubert_kmeans": lambda folder: save_encoder(folder, **LAYERS),
    "mhubert_kmeans": lambda folder: save_encoder(folder, **LAYERS),
    "wavlm_kmeans": lambda it: save_encoder(it, "wavlm", "layer", **LAYERS),
    "mimi": save_mimi,
    "whisper_kmeans": lambda folder: save_whisper(folder, encoder_layers=3),
}


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.stem)
def test_loads_without_model_and_network(path):
    tokenizer = load_yaml(path)["tokenizer"]
    assert tokenizer.to("cpu") is tokenizer
    assert isinstance(tokenizer.deduplicated, bool)


@pytest.mark.parametrize("name", SAVE)
def test_encodes_with_a_local_folder(name, tmp_path):
    SAVE[name](tmp_path)
    overrides = {"source": str(tmp_path)}
    if "kmeans" in name:
        overrides["num_clusters"] = 10
    path = ROOT / "hparams" / "units" / f"{name}.yaml"
    tokenizer = load_yaml(path, overrides)["tokenizer"]
    wavs = speech(tokenizer.sample_rate, (0.6, 0.4))
    if not tokenizer.fitted:
        fit(tokenizer, wavs)
    units = tokenizer.encode(*pad(wavs), languages=["en", "fr"])
    assert all(len(array) for array in units)
    assert max(map(max, units)) < describe(tokenizer)["vocabulary_size"]
