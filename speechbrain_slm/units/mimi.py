"""Units of the Mimi codec: its semantic codebook, or more of them.

The model of ``transformers`` is used directly. SpeechBrain's wrapper of it
asks the hub even for a model that is already there, passes lengths as rounded
fractions, and returns tokens for padding; and what it returns for a last frame
that is not full depends on what follows in the batch.
"""

import functools

import numpy as np
import torch

from speechbrain_slm.units.codebook import UNDECIDED, border_distance
from speechbrain_slm.units.pretrained import (
    check_precision,
    inference,
    load_config,
    load_model,
    weights_identity,
)
from speechbrain_slm.units.tokenizer import (
    deduplicate,
    interleave,
    save_description,
    separate,
)
from speechbrain_slm.utils.hashing import identity_of


class Mimi:
    """Mimi codec: 12.5 frames a second, of which the first code is semantic.

    A waveform is filled up with zeros to whole frames, as in Mimi's own code
    (``transformers`` leaves that to each convolution). The model is causal,
    so nothing that stands behind an utterance in a batch reaches it then. Where
    the rounding in a batch could decide a code, the utterance is encoded again
    by itself.

    Arguments
    ---------
    source : str
        A hub name or a local folder.
    num_codebooks : int
        1: the semantic codebook alone. More: the acoustic ones as well, one
        stream of units frame by frame (see
        :func:`speechbrain_slm.units.tokenizer.interleave`).
    deduplicate : bool
        Write a unit that repeats itself once. For one codebook only.
    precision : str
        ``fp32``, or ``bf16``: faster, but then the rounding, and with it a
        unit here and there, may depend on the batch.

    Example
    -------
    >>> from transformers import MimiConfig, MimiModel
    >>> config = MimiConfig(hidden_size=16, num_filters=2, codebook_size=8,
    ...     codebook_dim=8, vector_quantization_hidden_dimension=8,
    ...     num_hidden_layers=1,
    ...     num_attention_heads=2, num_key_value_heads=2, head_dim=8,
    ...     intermediate_size=16, upsample_groups=16)
    >>> folder = getfixture("tmp_path")
    >>> MimiModel(config).save_pretrained(folder)
    >>> tokenizer = Mimi(folder)
    >>> units = tokenizer.encode(torch.randn(1, 24000), torch.tensor([24000]))
    >>> len(units[0]), tokenizer.decode(units[0]).shape
    (13, torch.Size([24960]))
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
    def _settings(self):
        config = load_config(self.source, ("mimi",))
        if not 1 <= self.num_codebooks <= config.num_quantizers:
            raise ValueError(
                f"num_codebooks is {self.num_codebooks}; {self.source} has "
                f"{config.num_quantizers}"
            )
        return config

    @functools.cached_property
    def _model(self):
        model = load_model(self.source, self._settings)
        quantizer = model.quantizer
        layers = [
            *quantizer.semantic_residual_vector_quantizer.layers,
            *quantizer.acoustic_residual_vector_quantizer.layers,
        ]
        for layer in layers[: self.num_codebooks]:
            self._watch(layer.codebook)
        return model.to(self.device)

    def _watch(self, codebook):
        """Note how far what is quantized is from the next code."""
        quantize = codebook.quantize

        def watched(hidden):
            codes = quantize(hidden)
            points, centroids = hidden.float(), codebook.embed.float()
            border = border_distance(points, centroids, codes)
            self._borders.append((border, points.norm(dim=1)))
            return codes

        codebook.quantize = watched

    @functools.cached_property
    def config(self):
        """What was chosen, and which weights it works with."""
        return {
            "type": "mimi",
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
        return self._settings.sampling_rate

    @property
    def frame_rate(self):
        """Units a second of speech, of all codebooks together."""
        return float(self._settings.frame_rate * self.num_codebooks)

    @property
    def vocabulary_size(self):
        """Units are in ``[0, vocabulary_size)``."""
        return self._settings.codebook_size * self.num_codebooks

    def to(self, device):
        """Compute on another device.

        Arguments
        ---------
        device : str
            ``cpu`` or ``cuda...``.

        Returns
        -------
        Mimi
            This one.
        """
        self.device = torch.device(device)
        if "_model" in self.__dict__:
            self._model.to(self.device)
        return self

    def encode(self, wavs, lengths, languages=None):
        """Turn waveforms into units.

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
        samples = round(self.sample_rate / self._settings.frame_rate)
        frames = [-(-int(length) // samples) for length in lengths]
        padded = torch.zeros(len(wavs), max(frames) * samples)
        for row, wav, length in zip(padded, wavs, lengths, strict=True):
            row[: int(length)] = wav[: int(length)]
        if not padded.numel():
            return [np.zeros(0, dtype=np.int64) for _ in frames]
        codes, undecided = self._codes(padded)
        size = self._settings.codebook_size
        encoded = []
        for i, count in enumerate(frames):
            row = codes[i, :, :count]
            if len(frames) > 1 and undecided[i, :count].any():
                row = self._codes(padded[i : i + 1, : count * samples])[0][0]
            encoded.append(interleave(row, size))
        if self.deduplicated:
            encoded = [deduplicate(units) for units in encoded]
        return encoded

    def _codes(self, padded):
        """Return codes, ``[B, Q, F]``, and what rounding may decide, [B, F]."""
        # Of each codebook: distances to the border, and norms.
        self._borders = []
        with inference(self.device, self.precision):
            codes = self._model.encode(
                padded[:, None].to(self.device),
                num_quantizers=self.num_codebooks,
            ).audio_codes
        borders, norms = map(torch.stack, zip(*self._borders, strict=True))
        # Residuals are small, but what was rounded was not.
        undecided = borders.amin(dim=0) < UNDECIDED * norms.amax(dim=0)
        undecided &= torch.tensor(self.precision == "fp32")
        undecided = undecided.view(len(codes), -1)
        return codes.cpu().numpy(), undecided.cpu().numpy()

    def decode(self, units):
        """Turn units into a waveform.

        From the semantic codebook alone it says the words, in no good voice.

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
        size = self._settings.codebook_size
        codes = separate(units, self.num_codebooks, size)
        codes = torch.from_numpy(codes)[None].to(self.device)
        with inference(self.device, "fp32"):
            wav = self._model.decode(codes).audio_values[0, 0]
        return wav.cpu()

    def save(self, folder):
        """Write what the tokenizer is; the model stays where it is.

        Arguments
        ---------
        folder : str or Path
            Gets ``tokenizer.json``.
        """
        save_description(self, folder)
