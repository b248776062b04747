"""Units of SpeechTokenizer: its first codebook, or more of them.

Needs the package ``speechtokenizer``. A model on the hub comes through
SpeechBrain's integration; a local folder, which that does not take, through
the package itself.
"""

import functools
from pathlib import Path

import numpy as np
import torch
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from speechbrain_slm.units.pretrained import (
    check_precision,
    inference,
    require,
    weights_identity,
)
from speechbrain_slm.units.tokenizer import (
    deduplicate,
    interleave,
    save_description,
    separate,
)
from speechbrain_slm.utils.hashing import identity_of

PACKAGES = "speechtokenizer beartype"
FILES = ("config.json", "SpeechTokenizer.pt")
# Of the model in the hub's repository.
SUBFOLDER = "speechtokenizer_hubert_avg"


class SpeechTokenizer:
    """SpeechTokenizer: 50 frames a second, whose first code is semantic.

    Its encoder has convolutions and an LSTM that run backwards in time and
    know of no padding, so utterances are encoded one by one.

    Arguments
    ---------
    source : str
        A hub name, or a folder with ``config.json`` and
        ``SpeechTokenizer.pt``.
    num_codebooks : int
        1: the semantic codebook alone. More: the others as well, one stream
        of units frame by frame (see
        :func:`speechbrain_slm.units.tokenizer.interleave`).
    deduplicate : bool
        Write a unit that repeats itself once. For one codebook only.
    precision : str
        ``fp32``, or ``bf16``: faster, but then the rounding, and with it a
        unit here and there, may depend on the batch.
    """

    fitted = True
    equal_lengths = False

    def __init__(
        self, source, num_codebooks=1, deduplicate=False, precision="fp32"
    ):
        check_precision(precision)
        if deduplicate and num_codebooks != 1:
            raise ValueError(
                f"deduplicate is True for {num_codebooks} codebooks; expected "
                "False: in their stream of units none follows itself"
            )
        self.source = source
        self.num_codebooks = num_codebooks
        self.deduplicated = deduplicate
        self.precision = precision
        self.device = torch.device("cpu")

    @functools.cached_property
    def _model(self):
        package = require("speechtokenizer", PACKAGES, "SpeechTokenizer")
        folder = Path(self.source)
        if folder.is_dir():
            missing = [n for n in FILES if not (folder / n).is_file()]
            if missing:
                raise FileNotFoundError(
                    f"{folder / missing[0]} does not exist; expected "
                    f"{' and '.join(FILES)} of a SpeechTokenizer, which "
                    f"stand in {SUBFOLDER} of the hub's repository"
                )
            paths = [str(folder / name) for name in FILES]
            model = package.SpeechTokenizer.load_from_checkpoint(*paths)
        else:
            model = self._from_hub()
        if not 1 <= self.num_codebooks <= model.n_q:
            raise ValueError(
                f"num_codebooks is {self.num_codebooks}; {self.source} has "
                f"{model.n_q}"
            )
        return model.eval().requires_grad_(False).to(self.device)

    def _from_hub(self):
        from speechbrain.integrations.audio_tokenizers import (
            speechtokenizer_interface,
        )

        try:
            interface = speechtokenizer_interface.SpeechTokenizer(
                self.source, save_path=HF_HUB_CACHE
            )
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise FileNotFoundError(
                f"{self.source} is neither a folder nor a hub model that is "
                f"downloaded or can be ({str(error).splitlines()[0]}). Where "
                f"there is a network, run: hf download {self.source} "
                f"--local-dir <folder>. Then set source to "
                f"<folder>/{SUBFOLDER}."
            ) from error
        return interface.model

    @functools.cached_property
    def config(self):
        """What was chosen, and which weights it works with."""
        return {
            "type": "speech_tokenizer",
            "weights": weights_identity(self._model),
            "num_codebooks": self.num_codebooks,
            "sample_rate": self.sample_rate,
            "deduplicate": self.deduplicated,
            "precision": self.precision,
        }

    @property
    def identity(self):
        """Hash of the configuration, weights included."""
        return identity_of(self.config)

    @property
    def sample_rate(self):
        """Of the waveforms that the model expects, in Hz."""
        return self._model.sample_rate

    @property
    def frame_rate(self):
        """Units a second of speech, of all codebooks together."""
        rate = self.sample_rate / int(self._model.downsample_rate)
        return rate * self.num_codebooks

    @property
    def _codebook_size(self):
        return self._model.quantizer.bins

    @property
    def vocabulary_size(self):
        """Units are in ``[0, vocabulary_size)``."""
        return self._codebook_size * self.num_codebooks

    def to(self, device):
        """Compute on another device.

        Arguments
        ---------
        device : str
            ``cpu`` or ``cuda...``.

        Returns
        -------
        SpeechTokenizer
            This one.
        """
        self.device = torch.device(device)
        if "_model" in self.__dict__:
            self._model.to(self.device)
        return self

    def encode(self, wavs, lengths, languages=None):
        """Turn waveforms into units, one by one.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, ``[B, T]``, float32.
        lengths : torch.Tensor
            Samples of each waveform that are not padding, ``[B]``.
        languages : list of str, optional
            Not needed: one codebook serves all.

        Returns
        -------
        list of numpy.ndarray
            Units of each utterance, int64.
        """
        encoded = []
        for wav, length in zip(wavs, lengths, strict=True):
            codes = np.zeros((self.num_codebooks, 0), dtype=np.int64)
            if length:
                wav = wav[None, None, : int(length)].to(self.device)
                with inference(self.device, self.precision):
                    found = self._model.encode(wav, n_q=self.num_codebooks)
                codes = found[:, 0].cpu().numpy()
            units = interleave(codes, self._codebook_size)
            encoded.append(deduplicate(units) if self.deduplicated else units)
        return encoded

    def decode(self, units):
        """Turn units into a waveform.

        Arguments
        ---------
        units : sequence of int
            Of one utterance, not de-duplicated.

        Returns
        -------
        torch.Tensor
            Waveform, ``[T]``, float32, of whole frames.

        Raises
        ------
        ValueError
            If the units are not a whole number of frames.
        """
        codes = separate(units, self.num_codebooks, self._codebook_size)
        codes = torch.from_numpy(codes)[:, None].to(self.device)
        with inference(self.device, "fp32"):
            wav = self._model.decode(codes)[0, 0]
        return wav.cpu()

    def save(self, folder):
        """Write what the tokenizer is; the model stays where it is.

        Arguments
        ---------
        folder : str or Path
            Gets ``tokenizer.json``.
        """
        save_description(self, folder)
