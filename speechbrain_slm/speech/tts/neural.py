"""What neural voices share: models, the noise they draw, and their pitch.

A model that draws noise would say a text in another way each time. Here the
noise comes from a seed that is a hash of text and voice, one text at a time
and on one CPU thread, so that the samples are a pure function of both. Another
kind of device or another release of torch may round otherwise.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torchaudio.functional import resample

from speechbrain_slm.speech.tts import check_speech

# Beyond these speech is no longer understood.
PITCH = (0.5, 2.0)
SPEED = (0.5, 2.0)


def model_folder(source: str, patterns: Sequence[str]) -> Path:
    """Return the folder of a model: itself, or the hub's copy of it.

    Arguments
    ---------
    source : A local folder or a hub model.

    Raises
    ------
    FileNotFoundError
        If there is neither; says what to fetch.
    """
    from huggingface_hub import snapshot_download

    folder = Path(source)
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(source, allow_patterns=patterns))
    # What the hub's client raises has no common base.
    except Exception as error:
        raise FileNotFoundError(
            f"{source} is neither a folder nor a hub model that is "
            f"downloaded or can be ({str(error).splitlines()[0]}). Where "
            f"there is a network, run: hf download {source} --local-dir "
            "<folder>. Then give that folder; HF_HUB_OFFLINE=1 keeps later "
            "runs off the network."
        ) from error


def rank_device(device: str) -> str:
    """Return this process's device: under ``torchrun``, the rank's GPU.

    Arguments
    ---------
    device : ``cpu`` or ``cuda``.

    Example
    -------
    >>> rank_device("cpu")
    'cpu'
    """
    if device == "cuda":
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return device


@contextlib.contextmanager
def drawing(
    text: str, voice, device: torch.device | str, speaker: str = ""
) -> Iterator[None]:
    """Draw the same noise whenever a text is said by a voice.

    Arguments
    ---------
    voice : Voice
        The voice; of its name, ``speaker`` counts alone.
    speaker : Which of the model's speakers, if it has several.

    Yields
    ------
    The caller's own state of random numbers comes back afterwards.

    Example
    -------
    >>> from speechbrain_slm.speech.tts import Voice
    >>> drawn = []
    >>> for pitch in (1, 1.0):
    ...     with drawing("Hello.", Voice("en", pitch), "cpu"):
    ...         drawn.append(torch.rand(1).item())
    >>> drawn[0] == drawn[1]
    True
    """
    # 1 and 1.0 are one pitch.
    manner = f"{float(voice.pitch)}\0{float(voice.speed)}"
    key = f"{speaker}\0{manner}\0{text}".encode()
    seed = int.from_bytes(hashlib.sha256(key).digest()[:6], "little")
    device, threads = torch.device(device), torch.get_num_threads()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.inference_mode():
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def as_speech(wav: torch.Tensor, text: str, voice) -> np.ndarray:
    """Turn a model's samples into speech of the voice's pitch.

    Played faster by the factor of the pitch, it takes less time: a model must
    speak so much slower.

    Arguments
    ---------
    wav : [T], on any device.
    voice : Voice
        Who should say it.

    Returns
    -------
    int16 [T].

    Raises
    ------
    SilentSpeech
        If there are none, or only silence.

    Example
    -------
    >>> from speechbrain_slm.speech.tts import Voice
    >>> as_speech(torch.ones(300) / 2, "Oh!", Voice("en", pitch=1.5)).shape
    (200,)
    """
    wav = wav.float().cpu()
    if voice.pitch != 1:
        wav = resample(wav, round(100 * voice.pitch), 100)
    pcm = np.round(wav.numpy().clip(-1, 1) * (2**15 - 1))
    return check_speech(pcm.astype(np.int16), text, voice)
