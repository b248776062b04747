"""VITS through Hugging Face transformers: neural voices of many languages.

``facebook/mms-tts-eng``, ``mms-tts-fra`` and some 1,100 others (weights for
non-commercial use, CC BY-NC 4.0) have one voice each; a checkpoint of several
speakers does as well.
"""

from pathlib import Path
from typing import Any

import torch

from speechbrain_slm.speech.tts import Voice
from speechbrain_slm.speech.tts.neural import NeuralVoice, model_folder, no_sign
from speechbrain_slm.utils.hashing import identity_of, sha256_file
from speechbrain_slm.utils.pretrained import load_whole, said_by

_FETCH = ["*.json", "*.txt", "*.safetensors"]
_NEEDS = {
    "config.json": "config.json",
    "vocab.json": "vocab.json",
    "*.safetensors": "model.safetensors",
}


class Vits(NeuralVoice):
    """VITS checkpoints, e.g. one a language.

    A voice is a name of ``models``, or for a checkpoint of several speakers
    ``<name>/<number>``.

    Arguments
    ---------
    models
        Name -> a hub model or a local folder, as ``save_pretrained`` of
        ``VitsModel`` and ``VitsTokenizer`` writes it.
    """

    def __init__(self, models: dict[str, str], device: str = "cpu") -> None:
        super().__init__(device)
        if not models:
            raise ValueError("models is empty; expected {name: model}")
        self._folders = {
            name: model_folder(source, _FETCH, _NEEDS)
            for name, source in models.items()
        }
        self._configs = {k: _config(path) for k, path in self._folders.items()}
        rates = {k: config.sampling_rate for k, config in self._configs.items()}
        self.sample_rate, *others = set(rates.values())
        if others:
            what = "models have different sample rates, in Hz"
            raise ValueError(f"{what}: {rates}; expected one for all")
        identities = {}
        for name, folder in self._folders.items():
            files = [*folder.glob("*.json"), *folder.glob("*.safetensors")]
            sums = {path.name: sha256_file(path) for path in files}
            identities[name] = identity_of(sums)
        self.identity = {"name": "vits", "models": identities}

    def _check_name(self, voice: Voice) -> None:
        name, _, speaker = voice.name.partition("/")
        fault, of = "", f"the model '{name}' has"
        if name not in self._configs:
            known = ", ".join(self._configs)
            fault = f"there is no model '{name}'; expected one of {known}"
        elif (speakers := self._configs[name].num_speakers) == 1:
            fault = f"{of} one speaker; expected '{name}'" if speaker else ""
        elif not (speaker.isdecimal() and int(speaker) < speakers):
            last = f"'{name}/{speakers - 1}'"
            fault = f"{of} {speakers} speakers; expected '{name}/0' to {last}"
        if fault:
            raise ValueError(f"voice '{voice.name}': {fault}")

    def _models(self, voice: Voice) -> tuple[Any, Any]:
        name = voice.name.partition("/")[0]
        if name not in self._engine:
            from transformers import VitsModel, VitsTokenizer

            folder = self._folders[name]
            model = load_whole(VitsModel, folder).eval().to(self.device)
            tokenizer = VitsTokenizer.from_pretrained(
                folder, trust_remote_code=False
            )
            self._engine[name] = tokenizer, model
        return self._engine[name]

    def _wav(self, models: tuple, text: str, voice: Voice) -> torch.Tensor:
        tokenizer, model = models
        name, _, speaker = voice.name.partition("/")
        _refuse_unknown(tokenizer, text, name)
        inputs = tokenizer(text, return_tensors="pt").to(model.device)
        model.speaking_rate = voice.speed / voice.pitch
        number = int(speaker) if speaker else None
        return model(**inputs, speaker_id=number).waveform[0]


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except ValueError as error:
        raise ValueError(f"{folder}: {said_by(error)}") from error
    if (kind := config.model_type) != "vits":
        raise ValueError(f"{folder} is a {kind} model; expected vits")
    return config


def _refuse_unknown(tokenizer: Any, text: str, name: str) -> None:
    # It would leave out what it does not know, digits even. These two write it
    # in signs of their own first.
    if tokenizer.phonemize or tokenizer.is_uroman:
        return
    known = set("".join(tokenizer.encoder))
    signs = tokenizer.normalize_text(text) if tokenizer.normalize else text
    unknown = sorted({c for c in signs if c.isalnum() and c not in known})
    if unknown:
        raise no_sign(f"the model '{name}'", unknown, text)
