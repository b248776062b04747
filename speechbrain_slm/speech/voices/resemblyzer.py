"""Resemblyzer's speaker encoder, whose weights are on PyPI.

Only the weights of the package are used. To import it would take webrtcvad,
which has no wheels, and does not import beside a setuptools of 82 or later.
"""

import functools
import importlib.util
from pathlib import Path

import numpy as np
import torch
from torchaudio.transforms import MelSpectrogram

from speechbrain_slm.speech.voices.encoders import Pretrained

_WINDOW, _STEP, _HOP = 160, 77, 160  # frames, frames, samples a frame
_COVERED = 0.75  # of a last window that has samples
_LOUDNESS = 10 ** (-30 / 20)  # to which what is more quiet is raised


class ResemblyzerEncoder(Pretrained):
    """Three LSTM layers over mel bands (GE2E, arXiv:1710.10467).

    Trained on English speech, in windows of 1.6 s. An utterance is embedded as
    the package does, but that silences are not cut out: synthesis has trimmed
    its files.

    Arguments
    ---------
    source : A ``pretrained.pt``; None: that of the installed package.
    """

    kind, sample_rate = "resemblyzer", 16000

    def __init__(self, source: str | None = None) -> None:
        super().__init__(source or "Resemblyzer")
        self._path = Path(source) if source else _in_package()

    @functools.cached_property
    def _network(self) -> torch.nn.ModuleDict:
        network = torch.nn.ModuleDict(
            {
                "lstm": torch.nn.LSTM(40, 256, num_layers=3, batch_first=True),
                "linear": torch.nn.Linear(256, 256),
            }
        )
        whole = torch.load(self._path, "cpu", weights_only=True)["model_state"]
        # The two others are of the loss alone.
        weights = {k: v for k, v in whole.items() if "similarity" not in k}
        network.load_state_dict(weights)
        return network.eval().to(self.device)

    @functools.cached_property
    def _mel(self) -> MelSpectrogram:
        return MelSpectrogram(
            self.sample_rate,
            n_fft=400,
            hop_length=_HOP,
            n_mels=40,
            norm="slaney",
            mel_scale="slaney",
            pad_mode="constant",
        )

    def _embed(self, wav: np.ndarray) -> torch.Tensor:
        frames = len(wav) // _HOP + 1
        starts = list(range(0, max(1, frames - _WINDOW + _STEP + 1), _STEP))
        covered = (len(wav) / _HOP - starts[-1]) / _WINDOW
        if covered < _COVERED and len(starts) > 1:
            del starts[-1]
        loudness = np.sqrt(np.mean(wav**2))
        if 0 < loudness < _LOUDNESS:
            wav = wav * (_LOUDNESS / loudness)
        missing = (starts[-1] + _WINDOW) * _HOP - len(wav)
        wav = np.pad(wav, (0, max(0, missing)))
        mel = self._mel(torch.as_tensor(wav, dtype=torch.float32)).T
        windows = torch.stack([mel[one : one + _WINDOW] for one in starts])
        _, (hidden, _) = self._network["lstm"](windows.to(self.device))
        vectors = self._network["linear"](hidden[-1]).relu()
        return torch.nn.functional.normalize(vectors, dim=1).mean(dim=0)


def _in_package() -> Path:
    # Not imported: see above.
    found = importlib.util.find_spec("resemblyzer")
    folders = (found and found.submodule_search_locations) or []
    for path in (Path(folder) / "pretrained.pt" for folder in folders):
        if path.is_file():
            return path
    raise FileNotFoundError(
        "The package Resemblyzer, whose weights this encoder takes, is not "
        "installed: pip install --no-deps Resemblyzer==0.1.4"
    )
