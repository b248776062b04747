"""Log-mel spectrograms of speech, and speech of these by Griffin-Lim."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torchaudio.functional import griffinlim, melscale_fbanks

FLOOR = 1e-5  # of magnitudes, below which their logarithm does not go
ITERATIONS = 32
MOMENTUM = 0.99


class LogMel(nn.Module):
    """Waveforms to log-mel spectrograms, and back.

    Arguments
    ---------
    sample_rate : Hz.
    hop, window : Samples.

    Example
    -------
    >>> log_mel = LogMel(16000, hop=160, window=512, num_mels=80)
    >>> found = log_mel(torch.randn(1600))
    >>> found.shape, log_mel.speech(found).shape
    (torch.Size([10, 80]), torch.Size([1600]))
    """

    filters: Tensor
    inverse: Tensor
    hann: Tensor

    def __init__(
        self, sample_rate: int, hop: int, window: int, num_mels: int
    ) -> None:
        super().__init__()
        self.hop, self.window = hop, window
        filters = melscale_fbanks(
            window // 2 + 1,
            *(0.0, sample_rate / 2, num_mels, sample_rate),
            norm="slaney",
            mel_scale="slaney",
        )
        inverse = torch.linalg.pinv(filters)
        hann = torch.hann_window(window)
        for name, tensor in (
            ("filters", filters),
            ("inverse", inverse),
            ("hann", hann),
        ):
            # Made anew each time, hence no weights.
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, wav: Tensor) -> Tensor:
        """Return the frames, ``[T // hop, M]``, of a waveform, ``[T]``."""
        # As if silence was around it: reflection needs long waveforms.
        found = torch.stft(
            wav,
            self.window,
            self.hop,
            window=self.hann,
            pad_mode="constant",
            return_complex=True,
        ).abs()
        frames = found[:, : len(wav) // self.hop].T @ self.filters
        return frames.clamp(min=FLOOR).log()

    def speech(self, log_mel: Tensor) -> Tensor:
        """Return a waveform, ``[F * hop]``, of frames, ``[F, M]``."""
        frames = (log_mel.exp() @ self.inverse).clamp(min=FLOOR)
        # One more, since the last one is the middle of a window.
        magnitudes = pad(frames.T[None], (0, 1), mode="replicate")[0]
        return griffinlim(
            magnitudes,
            *(self.hann, self.window, self.hop, self.window),
            power=1.0,
            n_iter=ITERATIONS,
            momentum=MOMENTUM,
            length=len(log_mel) * self.hop,
            rand_init=False,
        )
