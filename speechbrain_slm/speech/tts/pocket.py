"""Pocket TTS (PyPI ``pocket-tts``, Kyutai): one voice in several languages.

English, French, German, Italian, Spanish, Portuguese and Dutch have a model of
100 M parameters each, and all models know the same voices: a speaker keeps his
voice where he changes the language, as in the paper. ``pip install
'speechbrain_slm[pocket]'``.
"""

import copy
import importlib.metadata
import logging
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from speechbrain_slm.speech.tts import Voice
from speechbrain_slm.speech.tts.neural import NeuralVoice
from speechbrain_slm.utils.hashing import identity_of, sha256_file
from speechbrain_slm.utils.pretrained import not_there

_threads = torch.get_num_threads()
try:
    from pocket_tts import TTSModel
    from pocket_tts.default_parameters import MAX_TOKEN_PER_CHUNK
    from pocket_tts.models.text_chunking import (
        prepare_text_prompt,
        split_into_best_sentences,
    )
    from pocket_tts.utils.config import CONFIGS_DIR
    from pocket_tts.utils.utils import (
        download_if_necessary,
        get_predefined_voice,
    )
except ImportError as error:
    raise ImportError(
        "The pocket back-end needs the package pocket-tts: "
        "pip install -e '.[pocket]'"
    ) from error
finally:
    # Its import leaves one thread to the whole process.
    torch.set_num_threads(_threads)
# Some lines for every utterance. What fails is raised besides, or refused
# below before it would warn.
logging.getLogger("pocket_tts").setLevel(logging.CRITICAL)

HUB = "kyutai/pocket-tts-without-voice-cloning"
_WEIGHTS = "weights_path_without_voice_cloning"
# What a tokenizer makes of a sign that it does not know: one token, or bytes.
_UNKNOWN = re.compile(r"<unk>|<0x[0-9A-F]{2}>")


class PocketTTS(NeuralVoice):
    """Kyutai's Pocket TTS, a model a language.

    A voice is ``<model>/<speaker>``, e.g. ``french/alba``. pocket-tts 4.0 has
    no call for a batch of texts: it speaks one at a time, here on one thread,
    so several processes share a CPU or GPU.

    Arguments
    ---------
    models
        Language -> its model, as the package names its configurations:
        ``french``, or ``french_24l``, which is larger.
    speakers : Of each model; a file of ``languages/<model>/embeddings`` each.
    source
        None: Kyutai's files on the hub, in the revisions that the package
        names. Or a folder of such files, where a ``<model>.yaml`` takes the
        place of the package's.
    temperature : Of the noise; None: what the model recommends.

    Raises
    ------
    FileNotFoundError
        If a file of a model or of a voice cannot be had.
    """

    sample_rate = 24000
    pitch = speed = (1.0, 1.0)  # a voice is a recording's own

    def __init__(
        self,
        models: dict[str, str],
        speakers: list[str],
        source: str | None = None,
        temperature: float | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(device)
        self._source = source and Path(source)
        self._temperature = temperature
        self._configs = {n: self._config(n) for n in models.values()}
        self._voices = {
            f"{name}/{speaker}": self._file(get_predefined_voice(name, speaker))
            for name in self._configs
            for speaker in speakers
        }
        voices = {n: sha256_file(path) for n, path in self._voices.items()}
        self.identity = {
            "name": "pocket",
            "version": importlib.metadata.version("pocket-tts"),
            "models": identity_of(
                list(map(_by_content, self._configs.items()))
            ),
            "voices": identity_of(voices),
            "temperature": temperature,
        }

    def _config(self, model: str) -> dict:
        """Read a configuration, with local files in place of the hub's."""
        paths = [CONFIGS_DIR / f"{model}.yaml"]
        if self._source:
            paths.insert(0, self._source / f"{model}.yaml")
        path = next(filter(Path.is_file, paths), None)
        if path is None:
            known = ", ".join(
                sorted(p.stem for p in CONFIGS_DIR.glob("*.yaml"))
            )
            raise ValueError(f"models names '{model}'; expected of {known}")
        config = yaml.safe_load(path.read_text("utf-8"))
        weights = config.get(_WEIGHTS) or config["weights_path"]
        config["weights_path"] = str(self._file(weights))
        config[_WEIGHTS] = None
        table = config["flow_lm"]["lookup_table"]
        table["tokenizer_path"] = str(self._file(table["tokenizer_path"]))
        return config

    def _file(self, name: str) -> Path:
        """Return a file, named hf://<repository>/<path>@<revision>."""
        path, _, _ = name.removeprefix("hf://").partition("@")
        if self._source:
            below = path if path == name else path.split("/", 2)[2]
            found = self._source / below
            if not found.is_file():
                raise FileNotFoundError(
                    f"{found} is not there; expected the files of {HUB}: hf "
                    f"download {HUB} --local-dir {self._source}"
                )
            return found
        try:
            return Path(download_if_necessary(name))
        # What the hub's client raises has no common base.
        except Exception as error:
            raise not_there(HUB, path, error) from error

    def _check_name(self, voice: Voice) -> None:
        if voice.name not in self._voices:
            known = ", ".join(self._voices)
            raise ValueError(
                f"there is no voice '{voice.name}'; expected one of {known}"
            )

    def _models(self, voice: Voice) -> tuple[Any, Any]:
        name = voice.name.partition("/")[0]
        if name not in self._engine:
            self._engine[name] = self._load(name)
        model = self._engine[name]
        if voice.name not in self._engine:
            state = model.get_state_for_audio_prompt(self._voices[voice.name])
            self._engine[voice.name] = state
        return model, self._engine[voice.name]

    def _load(self, name: str) -> Any:
        # It would say something for as long as it may, and warn of it.
        os.environ["KPOCKET_TTS_ERROR_WITHOUT_EOS"] = "1"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.yaml"
            path.write_text(yaml.safe_dump(self._configs[name]), "utf-8")
            model = TTSModel.load_model(config=path, temp=self._temperature)
        # Frame by frame: how many frames wait for the decoder depends on time,
        # and sums over several are not those over one to the last digit.
        model.max_decoder_frames_per_call = 1
        return model.eval().to(self.device)

    def _wav(self, models: tuple, text: str, voice: Voice) -> torch.Tensor:
        model, state = models
        _refuse_in_part(model, text)
        # It generates in threads, which have no inference mode of their own.
        with torch.inference_mode(False), torch.no_grad():
            try:
                return model.generate_audio(state, text)
            except RuntimeError as error:
                if "EOS" not in str(error):
                    raise
                raise ValueError(f"no end was found to {text!r}") from error


def same_voices(
    models: dict[str, str], names: list[str]
) -> dict[str, dict[str, Voice]]:
    """Return speakers who have one voice in all languages.

    Example
    -------
    >>> same_voices({"en": "english", "fr": "french"}, ["alba"])["alba"]["fr"]
    Voice(name='french/alba', pitch=1.0, speed=1.0)
    """
    return {
        name: {key: Voice(f"{model}/{name}") for key, model in models.items()}
        for name in names
    }


def _by_content(named: tuple[str, dict]) -> tuple[str, dict]:
    """A configuration that has the sums of its files, wherever they lie."""
    name, config = named[0], copy.deepcopy(named[1])
    table = config["flow_lm"]["lookup_table"]
    for holder, key in ((config, "weights_path"), (table, "tokenizer_path")):
        holder[key] = sha256_file(holder[key])
    return name, config


def _refuse_in_part(model: Any, text: str) -> None:
    """Refuse a text of which a part would be babbled, or skipped.

    The model speaks it in chunks of at most 50 tokens, split where sentences
    end and else at commas. Where a phrase is longer, it may skip words, which
    ``Limits.shortest`` only finds if most are gone; a pause of ours within the
    phrase would be one that nobody makes.
    """
    tokenizer = model.flow_lm.conditioner.tokenizer
    how = (
        model.pad_with_spaces_for_short_inputs,
        model.remove_semicolons,
        model.append_terminal_punctuation,
        model.capitalize_first_letter,
        model.replace_characters,
    )
    # Before it is split: a chunk no longer has the signs that are unknown.
    signs = tokenizer.tokenizer.encode(prepare_text_prompt(text, *how)[0])
    if any(map(_UNKNOWN.fullmatch, signs.tokens)):
        raise ValueError(f"the model has no sign for a part of {text!r}")
    most = MAX_TOKEN_PER_CHUNK
    for chunk in split_into_best_sentences(tokenizer, text, most, *how):
        if (found := len(tokenizer.encode(chunk))) > most:
            raise ValueError(
                f"{chunk!r}, of the text {text!r}, is {found} tokens without "
                f"a pause; expected at most {most}, or the model may skip words"
            )
