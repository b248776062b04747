"""Small speech models with random weights, saved as their hubs do."""

import numpy as np
import tokenizers
import torch
from transformers import (
    AutoModelForCausalLM,
    HubertConfig,
    HubertModel,
    MimiConfig,
    MimiModel,
    MistralConfig,
    PreTrainedTokenizerFast,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperModel,
)
from units_example import clip

ENCODERS = {
    "hubert": (HubertConfig, HubertModel),
    "wavlm": (WavLMConfig, WavLMModel),
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
}
# Like facebook/hubert-base-ls960 (group) and microsoft/wavlm-large (layer).
KINDS = [
    ("hubert", "group"),
    ("hubert", "layer"),
    ("wavlm", "group"),
    ("wavlm", "layer"),
    ("wav2vec2", "group"),
]


def randomize(model, seed):
    """Give a model's every parameter some noise, norms and biases too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            scale = tensor.std() if tensor.numel() > 1 else tensor.abs()
            noise = torch.randn(tensor.shape, generator=generator)
            tensor += (0.5 * scale + 0.05) * noise
    return model


def save_encoder(folder, kind="hubert", norm="group", seed=0, **settings):
    """Save an encoder of 4 layers, and return its folder."""
    torch.manual_seed(seed)
    config_class, model_class = ENCODERS[kind]
    config = config_class(
        **{
            "hidden_size": 32,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "conv_dim": (16,) * 7,
            "conv_bias": norm == "layer",
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
            "feat_extract_norm": norm,
            "do_stable_layer_norm": norm == "layer",
            **settings,
        }
    )
    randomize(model_class(config), seed).save_pretrained(folder)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=norm == "layer")
    extractor.save_pretrained(folder)
    return folder


def save_mimi(folder, seed=0, **settings):
    """Save a Mimi codec with a fraction of the channels."""
    torch.manual_seed(seed)
    config = MimiConfig(
        **{
            "hidden_size": 32,
            "num_filters": 4,
            "num_residual_layers": 1,
            "codebook_size": 64,
            "codebook_dim": 16,
            "vector_quantization_hidden_dimension": 16,
            "num_quantizers": 4,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "intermediate_size": 64,
            "upsample_groups": 32,
            "sliding_window": 10,
            **settings,
        }
    )
    model = randomize(MimiModel(config), seed)
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in model.named_buffers():
        if name.endswith("embed_sum"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
    model.save_pretrained(folder)
    return folder


def save_whisper(folder, seed=0, encoder_layers=2):
    """Save a small Whisper model whose windows are 1 s, and return it."""
    torch.manual_seed(seed)
    config = WhisperConfig(
        d_model=16,
        encoder_layers=encoder_layers,
        encoder_attention_heads=4,
        encoder_ffn_dim=24,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        vocab_size=20,
        pad_token_id=0,
        max_source_positions=50,
    )
    model = randomize(WhisperModel(config), seed).eval()
    model.save_pretrained(folder)
    return model


def save_text_lm(folder):
    """Save an LM of four words, with its tokenizer."""
    names = ("?", "the", "dog", "ran", "home")
    words = tokenizers.models.WordLevel(
        {word: number for number, word in enumerate(names)}, unk_token="?"
    )
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?")
    fast.save_pretrained(folder)
    config = MistralConfig(
        vocab_size=len(names),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    model = AutoModelForCausalLM.from_config(config)
    randomize(model, seed=0).save_pretrained(folder)
    return folder


def speech(rate, seconds=(0.31, 0.9, 1.2345, 0.55, 2.0, 0.1, 0.9)):
    """Make clips of several lengths: one of each and two that are equal."""
    return [
        torch.tensor(clip(seed, length, rate), dtype=torch.float32)
        for seed, length in enumerate(seconds)
    ]


def pad(wavs, filling=0.0):
    """Return a batch and its lengths."""
    lengths = torch.tensor([len(wav) for wav in wavs])
    batch = torch.full((len(wavs), int(lengths.max())), filling)
    for row, wav in zip(batch, wavs, strict=True):
        row[: len(wav)] = wav
    return batch, lengths


def encode_alone(tokenizer, wavs, **options):
    """Return the units of each clip, encoded by itself."""
    return [
        tokenizer.encode(*pad([wav]), **options)[0].tolist() for wav in wavs
    ]


def fit(tokenizer, wavs, seed=0):
    """Fit a k-means tokenizer on clips, and return it."""
    frames = tokenizer.features(*pad(wavs))
    tokenizer.fit({"": [np.asarray(frame) for frame in frames]}, seed)
    return tokenizer


def check_batch_independence(tokenizer, wavs):
    """Encode clips alone and together: no unit may differ."""
    alone = encode_alone(tokenizer, wavs)
    assert len({tuple(units) for units in alone}) > len(wavs) // 2
    order = list(range(len(wavs)))
    batches = [order, order[::-1], order[:3], order[2:5]]
    for batch in batches:
        # Whatever stands behind an utterance is nobody's business.
        for filling in (0.0, 0.5):
            wavs_here, lengths = pad([wavs[i] for i in batch], filling)
            together = tokenizer.encode(wavs_here, lengths)
            for i, units in zip(batch, together, strict=True):
                assert units.tolist() == alone[i]
