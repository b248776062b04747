"""What neural voices share: models, the noise they draw, and their pitch.

A model that draws noise would say a text in another way each time. Here the
noise comes from a seed that is a hash of text and voice, one text at a time
and on one CPU thread, so that the samples are a pure function of both. Another
kind of device or another release of torch may round otherwise.
"""

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchaudio.functional import resample

from speechbrain_slm.speech.tts import BackEnd, Voice
from speechbrain_slm.utils.pretrained import not_there


class NeuralVoice(BackEnd):
    """Speaks with models, which ``_models(voice)`` loads or has loaded.

    ``_wav(models, text, voice)`` gives float samples [T], with whatever noise
    it likes, of a voice that is ``voice.pitch`` times as slow as wanted:
    played faster by that factor, it has the pitch and takes less time. So the
    formants move too, as in a smaller or larger head, and one voice can serve
    as several that a listener tells apart.

    Arguments
    ---------
    device : ``cpu`` or ``cuda``; under ``torchrun``, the rank's GPU.
    """

    # Beyond these speech is no longer understood.
    pitch = (0.5, 2.0)
    speed = (0.5, 2.0)

    def __init__(self, device: str) -> None:
        self.device = device
        if device == "cuda":
            self.device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"

    @functools.cached_property
    def _engine(self) -> Any:
        """Hold the models that are loaded."""
        return {}

    def _speak(self, text: str, voice: Voice) -> np.ndarray:
        # An engine of rules gives silence then, and a model babbles.
        if not any(sign.isalnum() for sign in text):
            raise ValueError(f"the text {text!r} has no letter, so no word")
        models = self._models(voice)
        with _drawing(text, voice, self.device):
            wav = self._wav(models, text, voice).float().cpu()
            if voice.pitch != 1:
                wav = resample(wav, round(100 * voice.pitch), 100)
        pcm = np.round(wav.numpy().clip(-1, 1) * (2**15 - 1))
        return pcm.astype(np.int16)

    def _models(self, voice: Voice) -> Any:
        raise NotImplementedError

    def _wav(self, models: Any, text: str, voice: Voice) -> torch.Tensor:
        raise NotImplementedError


@contextlib.contextmanager
def _drawing(text: str, voice: Voice, device: str) -> Iterator[None]:
    """Draw the same noise whenever a text is said by a voice.

    The caller's own state of random numbers comes back afterwards.
    """
    # The model may be called otherwise elsewhere; its speaker is a number.
    speaker = voice.name.partition("/")[2]
    # 1 and 1.0 are one pitch.
    manner = f"{float(voice.pitch)}\0{float(voice.speed)}"
    key = f"{speaker}\0{manner}\0{text}".encode()
    seed = int.from_bytes(hashlib.sha256(key).digest()[:6], "little")
    devices = [torch.device(device)] if device.startswith("cuda") else []
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices), torch.inference_mode():
        torch.manual_seed(seed)
        # How a sum is split among threads changes its last digits.
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def no_sign(model: str, signs: list[str], text: str) -> ValueError:
    """Return the error of a text that a model would pass over a part of."""
    return ValueError(
        f"{model} has no sign for {' '.join(signs)} in the text {text!r}; "
        "write it in letters of its language"
    )


def model_folder(source: str, fetch: list[str], needs: dict[str, str]) -> Path:
    """Return the folder of a model: itself, or the hub's copy of it.

    ``fetch`` are patterns of the files to fetch from the hub; ``needs`` those
    of the files that must be there -> what they are called.
    """
    from huggingface_hub import snapshot_download

    folder = Path(source)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(source, allow_patterns=fetch))
        # What the hub's client raises has no common base.
        except Exception as error:
            raise not_there(source, "model", error) from error
    missing = [name for one, name in needs.items() if not any(folder.glob(one))]
    if missing:
        raise FileNotFoundError(
            f"{folder} has no {', '.join(missing)}; expected a model as its "
            "hub publishes it"
        )
    return folder
