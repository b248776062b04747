"""A speech LM that hums: a tiny model, its tokenizer, and tones for units."""

import numpy as np
import pyarrow as pa
import soundfile
import torch
from cloze_example import DIRECTIONS, tiny_model
from units_example import RATE, clip, entry, write_manifest

from speechbrain_slm.models.export import save_speech_lm
from speechbrain_slm.models.vocoders.hifigan import HifiganVocoder
from speechbrain_slm.units.tokenizers.base import describe, saved_files
from speechbrain_slm.units.tokenizers.bpe import UnitBPE
from speechbrain_slm.units.tokenizers.mel_kmeans import MelKMeans
from speechbrain_slm.utils.tables import ITEMS, write_table

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


def write_stories(folder, split="train", stories=4, sentences=2):
    """Write audio in two languages, a manifest, and an item a direction.

    Returns the manifest, the items, and story and language -> audio files.
    """
    (folder / "audio").mkdir(parents=True)
    rows, files = [], {}
    for number in range(stories * sentences * 2):
        sentence, language = number // 2 % sentences, ("en", "fr")[number % 2]
        story = number // 2 // sentences
        path = folder / "audio" / f"{number}.wav"
        told = entry(write_wav(path, number, 0.5 + 0.1 * story))
        told |= {"audio": f"audio/{path.name}", "sentence": sentence}
        told |= {"story_id": f"story-{story}", "language": language}
        rows.append({**told, "speaker": "alto"})
        files.setdefault((f"story-{story}", language), []).append(path)
    manifest = write_manifest(folder / f"{split}.parquet", rows)
    named = dict(zip(("prompt", "right", "wrong"), range(3), strict=True))
    named = {name: f"story-{number}" for name, number in named.items()}
    items = [
        {"item_id": "x", "benchmark": "sSC", **named}
        | {"prompt_language": prompt, "ending_language": ending}
        for prompt, ending in DIRECTIONS
    ]
    path = folder / "items.parquet"
    write_table(path, pa.Table.from_pylist(items, schema=ITEMS))
    return manifest, path, files


def save_vocoder(folder, tokenizer):
    """Save a small neural vocoder of a tokenizer's units."""
    torch.manual_seed(0)
    told = tokenizer.identity, ["alto"], ["en", "fr"], tokenizer.deduplicated
    HifiganVocoder(
        *(*told, RATE, tokenizer.frame_rate, tokenizer.vocabulary_size),
        embedding_dim=8,
        conditioning_dim=8,
        upsample_factors=[10, 8, 8],
        upsample_kernel_sizes=[20, 16, 16],
        upsample_initial_channel=16,
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 1, 1]],
        duration_hidden_size=8,
    ).save(folder)
    return folder


def export_slm(folder, bpe=True, tags=(), deduplicate=True, vocoder=False):
    """Export a model with its tokenizer; return the tokenizer and pieces."""
    beside = folder.parent / f"{folder.name}-parts"
    tokenizer, pieces = fit_tokenizer(beside, bpe, deduplicate)
    top = pieces or tokenizer
    size = top.vocabulary_size
    units = {
        "tokenizer_identity": top.identity,
        "vocabulary_size": size,
        "boundary": size,
        "language_tags": {name: size + 1 + n for n, name in enumerate(tags)},
    }
    files = saved_files(beside, top.identity)
    model = tiny_model(size=size, tags=len(tags))
    voice = save_vocoder(beside / "vocoder", tokenizer) if vocoder else None
    save_speech_lm(folder, model, units, files, vocoder_folder=voice)
    return tokenizer, pieces
