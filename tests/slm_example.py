"""A speech LM that hums: a tiny model, its tokenizer, and tones for units."""

import numpy as np
import soundfile
import torch
from cloze_example import tiny_model
from units_example import RATE, clip

from speechbrain_slm.models.export import save_speech_lm
from speechbrain_slm.units.tokenizers.base import describe, saved_files
from speechbrain_slm.units.tokenizers.bpe import UnitBPE
from speechbrain_slm.units.tokenizers.mel_kmeans import MelKMeans

CLUSTERS, PIECES = 8, 20


class Tones:
    """A vocoder: each unit is a tone of its own, of 40 ms or more."""

    sample_rate = 8000
    speakers = ("low", "high")
    languages = ("en", "fr")
    identity = "tones"

    def __init__(self, tokenizer_identity, deduplicated=True):
        self.tokenizer_identity = tokenizer_identity
        self.deduplicated, self.config = deduplicated, {}
        self.spoken = []  # what was asked for

    def speak(self, units, speakers=None, languages=None):
        self.spoken.append((units, speakers, languages))
        higher = 2.0 if speakers == ["high"] * len(units) else 1.0
        return [
            torch.cat([torch.zeros(0), *(self._tone(u, higher) for u in one)])
            for one in units
        ]

    def _tone(self, unit, higher):
        length = 320 + 10 * int(unit)
        return torch.sin(
            torch.arange(length) * (0.05 + 0.01 * int(unit)) * higher
        )

    def to(self, device):
        return self


def write_wav(path, seed, seconds=1.2, rate=RATE, channels=1):
    """Write a clip, the same in all channels."""
    wav = np.repeat(clip(seed, seconds, rate)[:, None], channels, axis=1)
    soundfile.write(path, wav, rate)
    return path


def fit_tokenizer(folder, bpe=True, deduplicate=True):
    """Fit and save a tokenizer and, on top of it, pieces."""
    tokenizer = MelKMeans(num_clusters=CLUSTERS, deduplicate=deduplicate)
    wavs = [torch.tensor(clip(n, 3.0), dtype=torch.float32) for n in range(9)]
    frames = [tokenizer.features(w[None], torch.tensor([len(w)])) for w in wavs]
    tokenizer.fit({"": [one.numpy() for (one,) in frames]}, seed=1)
    tokenizer.save(folder)
    if not bpe:
        return tokenizer, None
    units = [tokenizer.encode(w[None], torch.tensor([len(w)]))[0] for w in wavs]
    pieces = UnitBPE.fit(describe(tokenizer), units, PIECES, 4)
    pieces.save(folder / "bpe")
    return tokenizer, pieces


def export_slm(folder, bpe=True, tags=(), deduplicate=True):
    """Export a model with its tokenizer; return both parts of that."""
    parts = fit_tokenizer(
        folder.parent / f"{folder.name}-units", bpe, deduplicate
    )
    top = parts[1] or parts[0]
    size = top.vocabulary_size
    units = {
        "tokenizer_identity": top.identity,
        "vocabulary_size": size,
        "boundary": size,
        "language_tags": {name: size + 1 + n for n, name in enumerate(tags)},
    }
    files = saved_files(folder.parent / f"{folder.name}-units", top.identity)
    save_speech_lm(folder, tiny_model(size=size, tags=len(tags)), units, files)
    return parts
