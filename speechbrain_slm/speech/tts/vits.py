"""VITS through Hugging Face transformers: neural voices of many languages.

``facebook/mms-tts-eng``, ``mms-tts-fra`` and some 1,100 others (weights for
non-commercial use, CC BY-NC 4.0) have one voice each; a checkpoint of several
speakers does as well. VITS draws noise for the durations and for the sound; see
``neural.py`` for how the samples are nevertheless a function of text and voice.
"""

import numpy as np

from speechbrain_slm.speech.tts import check_range
from speechbrain_slm.speech.tts.neural import (
    PITCH,
    SPEED,
    as_speech,
    drawing,
    model_folder,
    rank_device,
)
from speechbrain_slm.utils.hashing import identity_of, sha256_file
from speechbrain_slm.utils.pretrained import load_whole, said_by

_NEEDED = ("config.json", "vocab.json")
_FETCH = ("*.json", "*.txt", "*.safetensors")


class Vits:
    """VITS checkpoints, e.g. one a language.

    A voice is a name of ``models``, or for a checkpoint of several speakers
    ``<name>/<number>``. VITS has no pitch: another one is reached by
    resampling, which moves the formants too, as in a smaller or larger head,
    and the speaking rate makes good for the duration. So one voice can serve as
    several that a listener tells apart.

    Arguments
    ---------
    models
        Name -> a hub model or a local folder, as ``save_pretrained`` of
        ``VitsModel`` and ``VitsTokenizer`` writes it.
    device : ``cpu`` or ``cuda``; under ``torchrun``, the rank's GPU.

    Raises
    ------
    FileNotFoundError
        If a model is not there; says what to fetch.
    ValueError
        If models differ in their sample rate, or one is no VITS.
    """

    def __init__(self, models: dict, device: str = "cpu") -> None:
        if not models:
            raise ValueError("models is empty; expected {name: model}")
        self.device = device
        self._folders = {
            name: _folder(source) for name, source in models.items()
        }
        self._configs = {
            name: _config(folder) for name, folder in self._folders.items()
        }
        rates = {
            name: config.sampling_rate for name, config in self._configs.items()
        }
        if len(set(rates.values())) > 1:
            raise ValueError(
                f"models have different sample rates, in Hz: {rates}; expected "
                "one for all"
            )
        self.sample_rate = next(iter(rates.values()))
        self.identity = {
            "name": "vits",
            "models": {
                name: identity_of(
                    {
                        path.name: sha256_file(path)
                        for path in sorted(folder.iterdir())
                        if path.suffix in (".json", ".safetensors")
                    }
                )
                for name, folder in self._folders.items()
            },
        }
        self._loaded = {}

    def __getstate__(self):
        return {**self.__dict__, "_loaded": {}}

    def check_voice(self, voice) -> None:
        """Refuse a voice that no model has.

        Arguments
        ---------
        voice : Voice
            The voice.

        Raises
        ------
        ValueError
            Names what is wrong and what there is.
        """
        check_range(voice, PITCH, SPEED)
        name, _, speaker = voice.name.partition("/")
        if name not in self._configs:
            raise ValueError(
                f"voice '{voice.name}': there is no model '{name}'; expected "
                f"one of {', '.join(self._configs)}"
            )
        speakers = self._configs[name].num_speakers
        if speakers == 1:
            if speaker:
                raise ValueError(
                    f"voice '{voice.name}': the model '{name}' has one "
                    f"speaker; expected '{name}'"
                )
        elif not (speaker.isdecimal() and int(speaker) < speakers):
            raise ValueError(
                f"voice '{voice.name}': the model '{name}' has {speakers} "
                f"speakers; expected '{name}/0' to '{name}/{speakers - 1}'"
            )

    def synthesize(self, text: str, voice) -> np.ndarray:
        """Speak a text.

        Arguments
        ---------
        voice : Voice
            Who speaks.

        Returns
        -------
        int16 [T].

        Raises
        ------
        ValueError
            If the voice is not there, or the model has no sign for a letter
            or a digit of the text.
        """
        self.check_voice(voice)
        name, _, speaker = voice.name.partition("/")
        tokenizer, model = self._load(name)
        _refuse_unknown(tokenizer, text, name)
        inputs = tokenizer(text, return_tensors="pt").to(model.device)
        # Played faster by the factor of the pitch, it must be spoken slower.
        model.speaking_rate = voice.speed / voice.pitch
        with drawing(text, voice, model.device, speaker):
            wav = model(
                **inputs, speaker_id=int(speaker) if speaker else None
            ).waveform[0]
            return as_speech(wav, text, voice)

    def _load(self, name):
        if name not in self._loaded:
            from transformers import VitsModel, VitsTokenizer

            folder = self._folders[name]
            model = load_whole(VitsModel, folder).eval()
            model = model.to(rank_device(self.device))
            tokenizer = VitsTokenizer.from_pretrained(
                folder, trust_remote_code=False
            )
            self._loaded[name] = tokenizer, model
        return self._loaded[name]


def _folder(source):
    """Return the folder of a model that has all it needs."""
    folder = model_folder(source, _FETCH)
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if not list(folder.glob("*.safetensors")):
        missing.append("model.safetensors")
    if missing:
        raise FileNotFoundError(
            f"{folder} has no {', '.join(missing)}; expected a model as "
            "VitsModel and VitsTokenizer save it"
        )
    return folder


def _config(folder):
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except ValueError as error:
        raise ValueError(f"{folder}: {said_by(error)}") from error
    if config.model_type != "vits":
        raise ValueError(
            f"{folder} is a {config.model_type} model; expected vits"
        )
    return config


def _refuse_unknown(tokenizer, text, name):
    """The tokenizer would leave out what it does not know, digits even."""
    if tokenizer.phonemize or tokenizer.is_uroman:
        return
    known = set("".join(tokenizer.encoder))
    signs = tokenizer.normalize_text(text) if tokenizer.normalize else text
    unknown = sorted({c for c in signs if c.isalnum() and c not in known})
    if unknown:
        raise ValueError(
            f"the model '{name}' has no sign for {' '.join(unknown)} in "
            f"{text!r}; write it in letters of its language"
        )
