"""SpeechBrain's own voices: a Tacotron2 and, behind it, a HiFi-GAN.

SpeechBrain publishes a voice in one language, English: ``tts-tacotron2-
ljspeech`` with ``tts-hifigan-ljspeech``. Other languages are spoken by another
back-end, beside this one: see ``combined.py``. Its FastSpeech2 and its
multi-speaker Tacotron2 are left out. They read phonemes that a third model
guesses from the text, which passes over signs that it does not know.
"""

import functools
from pathlib import Path
from typing import Any

import torch

from speechbrain_slm.speech.tts import Voice
from speechbrain_slm.speech.tts.neural import NeuralVoice, model_folder, no_sign
from speechbrain_slm.utils import hashing
from speechbrain_slm.utils.pretrained import check_speechbrain_yaml

_HPARAMS = "hyperparams.yaml"
# Signs of written text, in those that English models know. A quotation mark
# says nothing.
_PLAIN = {
    **dict.fromkeys("\u2018\u2019", "'"),
    **dict.fromkeys('"\u201c\u201d', ""),
    **dict.fromkeys("\u2013\u2014", "-"),
    "\u2026": "...",
}


class SpeechBrainTTS(NeuralVoice):
    """One voice, with the name of its language.

    Arguments
    ---------
    acoustic : A hub model or a local folder of a ``Tacotron2``.
    vocoder : Of a ``HIFIGAN`` trained on the same kind of spectrogram.
    language : What the acoustic model speaks.
    sample_rate : Hz of what the vocoder gives.
    trusted
        Load the models whatever their ``hyperparams.yaml`` name: SpeechBrain
        runs it. Else more than SpeechBrain's own layers is refused.
    """

    def __init__(
        self,
        acoustic: str,
        vocoder: str,
        language: str = "en",
        sample_rate: int = 22050,
        device: str = "cpu",
        trusted: bool = False,
    ) -> None:
        super().__init__(device)
        self.language, self.sample_rate = language, sample_rate
        fetch, needs = [_HPARAMS, "*.ckpt"], {_HPARAMS: _HPARAMS}
        self._folders = [
            model_folder(one, fetch, needs) for one in (acoustic, vocoder)
        ]
        for folder in self._folders:
            check_speechbrain_yaml(folder / _HPARAMS, trusted)
        # On the CPU and for this alone: the workers load them again.
        models = self._load("cpu")
        self.identity = {
            "name": "speechbrain",
            "sample_rate": sample_rate,
            "models": list(map(self._check_weights, self._folders, models)),
        }
        bands = models[0].hparams.model.n_mel_channels
        expected = models[1].hparams.generator.conv_pre.conv.in_channels
        if bands != expected:
            raise ValueError(
                f"{acoustic} gives {bands} mel bands, {vocoder} takes "
                f"{expected}; expected models trained on the same kind of "
                "spectrogram"
            )

    def _check_name(self, voice: Voice) -> None:
        if voice.name != self.language:
            raise ValueError(
                f"voice '{voice.name}': {self._folders[0]} speaks "
                f"'{self.language}' alone. SpeechBrain publishes no other: let "
                "another back-end speak it, beside this one, in a Combined "
                "(hparams/tts/speechbrain.yaml)"
            )

    @functools.cached_property
    def _engine(self) -> list:
        return self._load(self.device)

    def _models(self, voice: Voice) -> list:
        return self._engine

    def _wav(self, models: list, text: str, voice: Voice) -> torch.Tensor:
        acoustic, vocoder = models
        mel = _spectrogram(acoustic, _readable(acoustic, text), text)
        # Tacotron2 knows no speed: frames are added or left out in between.
        stretch = voice.pitch / voice.speed
        if stretch != 1:
            size = max(1, round(mel.shape[-1] * stretch))
            mel = torch.nn.functional.interpolate(mel, size=size, mode="linear")
        return vocoder.decode_batch(mel)[0, 0]

    def _load(self, device: str) -> list:
        from speechbrain.inference.TTS import Tacotron2
        from speechbrain.inference.vocoders import HIFIGAN

        models, where = [], {"run_opts": {"device": device}}
        kinds = Tacotron2, HIFIGAN
        for kind, folder in zip(kinds, self._folders, strict=True):
            try:
                models.append(kind.from_hparams(source=str(folder), **where))
            # What a YAML file runs may raise anything.
            except Exception as error:
                raise ValueError(
                    f"{folder} cannot be loaded by SpeechBrain's "
                    f"{kind.__name__} ({type(error).__name__}: {error}); "
                    f"expected a {_HPARAMS} and the weights that it names"
                ) from error
        return models

    def _check_weights(self, folder: Path, model: Any) -> str:
        """Refuse what would be random; return the identity of a model."""
        yaml = folder / _HPARAMS
        rate = getattr(model.hparams, "sample_rate", self.sample_rate)
        if rate != self.sample_rate:
            what = f"sample_rate is {self.sample_rate} Hz"
            raise ValueError(f"{what}, but {yaml} says {rate} Hz")
        pretrainer = model.hparams.pretrainer
        for name, module in pretrainer.loadables.items():
            # SpeechBrain leaves at random what a file lacks, and warns.
            path = pretrainer.paths[name]
            weights = torch.load(path, map_location="cpu", weights_only=True)
            lacking = module.load_state_dict(weights, strict=False).missing_keys
            if lacking:
                raise ValueError(
                    f"{path} lacks {len(lacking)} tensor(s) of '{name}' "
                    f"({min(lacking)}, ...), which would be random; expected "
                    f"the weights of {yaml}"
                )
        made_of = [hashing.sha256_file(yaml), hashing.tensors_identity(model)]
        return hashing.identity_of(made_of)


def _readable(acoustic: Any, text: str) -> str:
    """Refuse what the model would pass over: digits, and letters with accents.

    Other marks are written in the signs that it knows.
    """

    def is_known(sign: str) -> bool:
        return acoustic.text_to_seq(sign)[1] > 0

    # An odd kind of space would be passed over too, and join two words.
    signs = " ".join(text.split())
    for one in filter(lambda sign: not is_known(sign), set(signs)):
        signs = signs.replace(one, _PLAIN.get(one, one))
    if unknown := sorted({sign for sign in signs if not is_known(sign)}):
        raise no_sign("the model", unknown, text)
    return signs


def _spectrogram(acoustic: Any, readable: str, text: str) -> torch.Tensor:
    """Return a mel spectrogram, [1, C, T]."""
    mel, lengths, _ = acoustic.encode_text(readable)
    # It counts the steps before the one at which the decoder says "the end".
    steps = int(lengths[0])
    most = acoustic.hparams.model.decoder.max_decoder_steps
    if steps >= most:
        raise ValueError(
            f"the decoder found no end of the text {text!r} in {most} steps, "
            "the most that the model takes; shorten the text, or leave it out"
        )
    return mel[..., : steps + 1]
