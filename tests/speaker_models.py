"""Small speaker encoders with random weights, saved as their hubs do."""

import torch
from hyperpyyaml import load_hyperpyyaml
from tiny_models import randomize
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

# The layout of speechbrain/spkrec-ecapa-voxceleb, of a fraction of its size.
ECAPA = """\
n_mels: 20
compute_features: !new:speechbrain.lobes.features.Fbank
  n_mels: !ref <n_mels>
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
  norm_type: sentence
  std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
  input_size: !ref <n_mels>
  channels: [16, 16, 16, 16, 48]
  kernel_sizes: [5, 3, 3, 3, 1]
  dilations: [1, 2, 3, 4, 1]
  attention_channels: 8
  res2net_scale: 4
  se_channels: 8
  lin_neurons: 12
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
  input_size: 12
  out_neurons: 5
modules:
  compute_features: !ref <compute_features>
  mean_var_norm: !ref <mean_var_norm>
  embedding_model: !ref <embedding_model>
  classifier: !ref <classifier>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
  loadables:
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
"""


def save_ecapa(folder, seed=0):
    """Save a small ECAPA-TDNN, and return its folder."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    (folder / "hyperparams.yaml").write_text(ECAPA)
    modules = load_hyperpyyaml(ECAPA)["modules"]
    for name in ("embedding_model", "classifier"):
        torch.save(modules[name].state_dict(), folder / f"{name}.ckpt")
    return folder


def save_resemblyzer(path, seed=0):
    """Save what Resemblyzer's ``pretrained.pt`` has, and return its path."""
    torch.manual_seed(seed)
    layers = {
        "lstm": torch.nn.LSTM(40, 256, 3),
        "linear": torch.nn.Linear(256, 256),
    }
    state = torch.nn.ModuleDict(layers).state_dict()
    state["similarity_weight"] = torch.ones(1)
    torch.save({"step": 1, "model_state": state}, path)
    return path


def save_xvector(folder, seed=0):
    """Save a small WavLM with an x-vector head, and return its folder."""
    torch.manual_seed(seed)
    config = WavLMConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        tdnn_dim=(16, 16, 16),
        tdnn_kernel=(3, 3, 1),
        tdnn_dilation=(1, 2, 1),
        xvector_output_dim=12,
        num_labels=5,
    )
    randomize(WavLMForXVector(config), seed).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder
