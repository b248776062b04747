"""Units without a pretrained model: k-means over stacked MFCCs.

Needs nothing but the training split: the tokenizer of all that runs offline.
"""

from typing import Any

import torch
from speechbrain.processing.features import DCT, STFT, Filterbank
from torch import Tensor
from torch.nn.functional import pad

from speechbrain_slm.units.tokenizers.base import check_choice
from speechbrain_slm.units.tokenizers.kmeans import KMeansTokenizer, one_thread

HOP = 10  # ms
WINDOW = 25  # ms
NORMALIZATIONS = ("none", "mean", "mean_variance")


class MelKMeans(KMeansTokenizer):
    """Offline tokenizer: MFCCs, then the nearest of k centroids.

    Arguments
    ---------
    sample_rate : Of the speech, in Hz.
    num_mels : Mel filters under the cepstrum.
    num_mfcc : Coefficients kept, the first (energy) included.
    frames_per_unit : 10 ms frames that are stacked into one unit (4: 25 Hz).
    context_frames
        Further ones on either side that are stacked as well. With 4, units
        tell less of the speaker, and a little less of the phone.
    normalization
        What is taken out of each utterance's MFCCs: ``mean`` (most of what the
        microphone and the voice add), ``mean_variance`` or ``none``.
    deduplicate, codebooks : See :class:`KMeansTokenizer`.

    Example
    -------
    >>> noise = torch.randn(4, 8000, generator=torch.manual_seed(0))
    >>> tokenizer = MelKMeans(num_clusters=8, deduplicate=False)
    >>> frames = tokenizer.features(noise, torch.full((4,), 8000))
    >>> tokenizer.fit({"": [frame.numpy() for frame in frames]}, seed=1)
    >>> units = tokenizer.encode(noise[:2], torch.tensor([8000, 4000]))
    >>> [len(array) for array in units]
    [12, 6]
    """

    batched = False
    scaled = True

    def __init__(
        self,
        num_clusters: int = 100,
        sample_rate: int = 16000,
        num_mels: int = 40,
        num_mfcc: int = 13,
        frames_per_unit: int = 4,
        normalization: str = "mean_variance",
        deduplicate: bool = True,
        codebooks: str = "joint",
        context_frames: int = 0,
    ) -> None:
        super().__init__(num_clusters, codebooks, deduplicate)
        self.config: dict[str, Any] = dict(
            type="mel_kmeans",
            num_clusters=num_clusters,
            sample_rate=sample_rate,
            num_mels=num_mels,
            num_mfcc=num_mfcc,
            frames_per_unit=frames_per_unit,
            normalization=normalization,
            deduplicate=deduplicate,
        )
        if codebooks != "joint":
            # Left out where it is joint, as context_frames where it is 0:
            # the stores made before there was a choice keep their identity.
            self.config["codebooks"] = codebooks
        if context_frames:
            self.config["context_frames"] = context_frames
        check_choice("normalization", normalization, NORMALIZATIONS)
        self.sample_rate = sample_rate
        self.frame_rate = 1000 / (HOP * frames_per_unit)
        self._context = context_frames
        self._width = frames_per_unit + 2 * context_frames
        self.feature_size = self._width * num_mfcc
        n_fft = sample_rate * WINDOW // 1000
        self._stft = STFT(sample_rate, WINDOW, HOP, n_fft)
        rates = dict(sample_rate=sample_rate, f_max=sample_rate // 2)
        self._log_mel = Filterbank(num_mels, n_fft=n_fft, **rates)
        self._cepstrum = DCT(num_mels, num_mfcc)

    def features(self, wavs: Tensor, lengths: Tensor) -> list[Tensor]:
        """Compute the points; frames that do not fill a unit are left out."""
        # One by one: batching saves nothing on a CPU here, and alone an
        # utterance cannot depend on its batch-mates.
        with one_thread(), torch.no_grad():
            return [
                self._points(wav[: int(length)])
                for wav, length in zip(wavs, lengths, strict=True)
            ]

    def _points(self, wav):
        real, imaginary = self._stft(wav[None]).unbind(dim=-1)
        power = real.square() + imaginary.square()
        mfcc = self._cepstrum(self._log_mel(power))[0]
        normalization = self.config["normalization"]
        if normalization != "none":
            mfcc = mfcc - mfcc.mean(dim=0)
        if normalization == "mean_variance":
            # Silence made by a computer has no variance.
            mfcc = mfcc / mfcc.std(dim=0, correction=0).clamp(min=1e-5)
        # Less than one unit: padding would make one of nothing.
        if len(mfcc) < self.config["frames_per_unit"]:
            return mfcc.new_zeros(0, self.feature_size)
        # The first and the last frame stand for what would be beyond them.
        around = (self._context, self._context)
        mfcc = pad(mfcc.T[None], around, mode="replicate")[0]
        # 10 frames, 4 a unit, 1 around: units of frames -1..4 and 3..8.
        windows = mfcc.unfold(1, self._width, self.config["frames_per_unit"])
        return windows.permute(1, 2, 0).flatten(1)
