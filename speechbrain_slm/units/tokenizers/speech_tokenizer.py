"""Units of SpeechTokenizer: its first codebook, or more of them.

Needs the package ``speechtokenizer``. A model on the hub comes through
SpeechBrain's integration; a local folder, which that does not take, through
the package itself.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from torch import Tensor

from speechbrain_slm.units.tokenizers.codec import Codec
from speechbrain_slm.units.tokenizers.pretrained import inference
from speechbrain_slm.utils.pretrained import not_there

FILES = ("config.json", "SpeechTokenizer.pt")
SUBFOLDER = "speechtokenizer_hubert_avg"  # of the hub's repository


class SpeechTokenizer(Codec):
    """SpeechTokenizer: 50 frames a second, whose first code is semantic.

    Arguments are those of :class:`Codec`; a local folder has ``config.json``
    and ``SpeechTokenizer.pt``.
    """

    kind = "speech_tokenizer"

    def _load(self) -> torch.nn.Module:
        try:
            import speechtokenizer
        except ImportError as error:
            raise ImportError(
                f"SpeechTokenizer needs a package ({error}). Install it with: "
                "pip install speechtokenizer beartype"
            ) from error
        if Path(self.source).is_dir():
            paths = [Path(self.source) / name for name in FILES]
            for path in paths:
                if not path.is_file():
                    raise FileNotFoundError(
                        f"{path} does not exist; expected it as in "
                        f"{SUBFOLDER} of the hub's repository"
                    )
            load = speechtokenizer.SpeechTokenizer.load_from_checkpoint
            model = load(*map(str, paths))
        else:
            from speechbrain.integrations.audio_tokenizers import (
                speechtokenizer_interface,
            )

            load = speechtokenizer_interface.SpeechTokenizer
            try:
                model = load(self.source, save_path=HF_HUB_CACHE).model
            except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
                told = (FILES[1], error, f"/{SUBFOLDER}")
                raise not_there(self.source, *told) from error
        self._check_number("num_codebooks", model.n_q)
        return model.eval()

    @property
    def _measures(self) -> tuple[int, float, int]:
        rate, samples = self._model.sample_rate, self._model.downsample_rate
        return rate, rate / int(samples), self._model.quantizer.bins

    def _codes(self, wavs: Tensor, lengths: Tensor) -> Iterator[np.ndarray]:
        # One by one: its encoder has convolutions and an LSTM that run
        # backwards in time and know of no padding.
        for wav, length in zip(wavs, lengths, strict=True):
            codes = np.zeros((self.num_codebooks, 0), dtype=np.int64)
            if length:  # its convolutions take nothing empty
                wav = wav[None, None, : int(length)].to(self.device)
                with inference(self.device, self.precision):
                    found = self._model.encode(wav, n_q=self.num_codebooks)
                codes = found[:, 0].cpu().numpy()
            yield codes

    def _waveform(self, codes: Tensor) -> Tensor:
        return self._model.decode(codes[:, None])[0, 0]
