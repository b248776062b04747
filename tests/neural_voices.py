"""Small Tacotron2, HiFi-GAN and VITS of random weights, as they are published.

Beside SpeechBrain's ``hyperparams.yaml`` lie ``model.ckpt`` and
``generator.ckpt``.
"""

import contextlib
import json
import re
from importlib.resources import files

import torch
from hyperpyyaml import load_hyperpyyaml
from transformers import VitsConfig, VitsModel, VitsTokenizer

# As speechbrain/tts-tacotron2-ljspeech, of a fraction of its size.
TACOTRON2 = """\
n_mel_channels: 8
n_symbols: 148
text_cleaners: [english_cleaners]
max_decoder_steps: 200
model: !new:speechbrain.lobes.models.Tacotron2.Tacotron2
  mask_padding: True
  n_mel_channels: !ref <n_mel_channels>
  n_symbols: !ref <n_symbols>
  symbols_embedding_dim: 16
  encoder_kernel_size: 5
  encoder_n_convolutions: 1
  encoder_embedding_dim: 16
  attention_rnn_dim: 16
  attention_dim: 8
  attention_location_n_filters: 4
  attention_location_kernel_size: 5
  n_frames_per_step: 1
  decoder_rnn_dim: 16
  prenet_dim: 16
  max_decoder_steps: !ref <max_decoder_steps>
  gate_threshold: 0.5
  p_attention_dropout: 0.1
  p_decoder_dropout: 0.1
  postnet_embedding_dim: 16
  postnet_kernel_size: 5
  postnet_n_convolutions: 2
  decoder_no_early_stopping: False
text_to_sequence: !name:speechbrain.utils.text_to_sequence.text_to_sequence
modules:
  model: !ref <model>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
  loadables:
    model: !ref <model>
"""
# As speechbrain/tts-hifigan-ljspeech: 256 samples a frame.
HIFIGAN = """\
generator: !new:speechbrain.lobes.models.HifiGAN.HifiganGenerator
  in_channels: 8
  out_channels: 1
  resblock_type: "1"
  resblock_dilation_sizes: [[1, 3, 5]]
  resblock_kernel_sizes: [3]
  upsample_kernel_sizes: [16, 16, 8]
  upsample_initial_channel: 32
  upsample_factors: [8, 8, 4]
modules:
  generator: !ref <generator>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
  loadables:
    generator: !ref <generator>
"""
LETTERS = "_abcdefghijklmnopqrstuvwxyzé' -"
VITS = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "ffn_dim": 16,
    "flow_size": 16,
    "spectrogram_bins": 9,
    "upsample_initial_channel": 32,
    "upsample_rates": [8, 8],
    "upsample_kernel_sizes": [16, 16],
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1]],
    "duration_predictor_filter_channels": 16,
    "duration_predictor_num_flows": 1,
    "depth_separable_num_layers": 1,
    "prior_encoder_num_flows": 1,
    "prior_encoder_num_wavenet_layers": 1,
    "posterior_encoder_num_wavenet_layers": 1,
}


def save_tacotron2(folder, seed=0, text=TACOTRON2, stops=True):
    """Save an acoustic model, and return its folder."""
    model = _make(folder, text, seed)["model"]
    # Loud enough for the gate to hear the prenet's dropout: so the masks that
    # are drawn decide where an utterance ends.
    gate = model.decoder.gate_layer.linear_layer
    with torch.no_grad():
        for name, weight in model.decoder.named_parameters():
            if "prenet" in name or "rnn.weight" in name:
                weight.mul_(4)
        gate.weight.normal_(std=4.0)
        gate.bias.fill_(-4.0 if stops else -100.0)
    torch.save(model.state_dict(), folder / "model.ckpt")
    return str(folder)


def save_hifigan(folder, seed=0, text=HIFIGAN):
    """Save a vocoder, and return its folder."""
    generator = _make(folder, text, seed)["generator"]
    # Or its sound would hardly depend on the spectrogram.
    with torch.no_grad():
        for name, weight in generator.named_parameters():
            if name.endswith("original0"):
                weight.mul_(2)
    torch.save(generator.state_dict(), folder / "generator.ckpt")
    return str(folder)


def _make(folder, text, seed):
    folder.mkdir(parents=True)
    (folder / "hyperparams.yaml").write_text(text)
    torch.manual_seed(seed)
    return load_hyperpyyaml(text)


def save_vits(folder, seed=0, **config):
    """Save a VITS, and return its folder."""
    torch.manual_seed(seed)
    config = VitsConfig(vocab_size=len(LETTERS) + 1, **VITS, **config)
    VitsModel(config).save_pretrained(folder)
    vocabulary = {letter: n for n, letter in enumerate(LETTERS)}
    vocabulary["<unk>"] = len(LETTERS)
    (folder / "letters.json").write_text(json.dumps(vocabulary))
    tokenizer = VitsTokenizer(
        folder / "letters.json",
        pad_token="_",
        phonemize=False,
        language="eng",
    )
    (folder / "letters.json").unlink()
    tokenizer.save_pretrained(folder)
    return str(folder)


def save_pocket(
    folder,
    models=("english", "french"),
    speakers=("alba",),
    end="soon",
    small=True,
):
    """Save Pocket TTS of random weights, and return their folder.

    An utterance ends after the least number of frames, where the noise says
    (``drawn``), or ``never``: then as late as it may.
    """
    import yaml
    from pocket_tts import TTSModel
    from pocket_tts.models.model_state import export_model_state
    from pocket_tts.utils.config import CONFIGS_DIR
    from safetensors.torch import save_file

    tokenizer = _syllables()
    for number, name in enumerate(models):
        torch.manual_seed(number)
        config = yaml.safe_load((CONFIGS_DIR / f"{name}.yaml").read_text())
        if small:
            _shrink_pocket(config)
        table = config["flow_lm"]["lookup_table"]
        table["n_bins"] = tokenizer.get_vocab_size()
        place = folder / "languages" / name
        (place / "embeddings").mkdir(parents=True)
        tokenizer.save(str(place / "tokenizer.json"))
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
        for key in ("weights_path", "weights_path_without_voice_cloning"):
            del config[key]
        table["tokenizer_path"] = str(place / "tokenizer.json")
        path = folder / "random.yaml"
        path.write_text(yaml.safe_dump(config))
        model = TTSModel.load_model(config=path)
        path.unlink()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.abs().max() == 0:
                    parameter.normal_(std=0.3)
            model.flow_lm.out_eos.weight.zero_()
            model.flow_lm.out_eos.bias.fill_(-1e3 if end == "never" else 9.0)
        if end == "drawn":
            _draw_end(model)
        save_file(model.state_dict(), place / "model.safetensors")
        for speaker in speakers:
            torch.manual_seed(sum(map(ord, speaker)))
            seconds = 1 if small else 10  # as long as the published voices
            wav = 0.1 * torch.randn(1, seconds * model.sample_rate)
            state = model.get_state_for_audio_prompt(wav)
            path = place / "embeddings" / f"{speaker}.safetensors"
            export_model_state(state, path)
    return str(folder)


def _shrink_pocket(config):
    language, codec = config["flow_lm"], config["mimi"]
    language["flow"] |= {"depth": 1, "dim": 16}
    layers = {"num_heads": 2, "num_layers": 1, "d_model": 16}
    language["transformer"] |= layers
    language["lookup_table"]["dim"] = 16
    # A sentence is said in 2.5 s, of 10 frames.
    config["model_recommended_frames_after_eos"] = 4
    codec |= {"outer_dim": 16, "inner_dim": 4, "frame_rate": 4.0}
    codec["seanet"] |= {"dimension": 16, "n_filters": 2}
    codec["transformer"] |= layers | {
        "dim_feedforward": 16,
        "input_dimension": 16,
        "output_dimensions": [16],
    }
    codec["quantizer"] |= {"dimension": 4, "output_dimension": 16}


def _draw_end(model):
    """Let the noise say where an end is: at about one frame of four."""
    out = model.flow_lm.out_eos
    out.weight.data.normal_(std=9.0)
    out.bias.data.fill_(never := -1000.0)
    heard = []
    hook = out.register_forward_hook(
        lambda _, __, found: heard.append(found.flatten()[-1].item())
    )
    state = model.get_state_for_audio_prompt(torch.randn(1, model.sample_rate))
    with contextlib.suppress(RuntimeError):  # that there is none
        model.generate_audio(state, "Tom.")
    hook.remove()
    out.bias.data.fill_(model.eos_threshold - sorted(heard)[-4] + never)


def _syllables():
    """A tokenizer whose tokens are of two signs, on the whole."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    signs = [chr(n) for n in range(33, 127)]
    signs += "àâçéèêëîïôùûœÀÂÇÉÈÊËÎÏÔÙÛŒ«»’…–—"
    trainer = BpeTrainer(
        vocab_size=400,
        special_tokens=["<unk>"],
        initial_alphabet=signs,
        show_progress=False,
    )
    items = files("speechbrain_slm.benchmarks") / "natural_items/items.yaml"
    texts = re.findall('"(.+)"', items.read_text("utf-8"))
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
