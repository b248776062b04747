"""Units of SpeechTokenizer: its first codebook, or more of them.

Needs the package ``speechtokenizer``. A model on the hub comes through
SpeechBrain's integration; a local folder, which that does not take, through
the package itself.
"""

from pathlib import Path

import numpy as np
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from speechbrain_slm.units.tokenizers.codec import Codec
from speechbrain_slm.units.tokenizers.pretrained import inference, require

PACKAGES = "speechtokenizer beartype"
FILES = ("config.json", "SpeechTokenizer.pt")
# Of the model in the hub's repository.
SUBFOLDER = "speechtokenizer_hubert_avg"


class SpeechTokenizer(Codec):
    """SpeechTokenizer: 50 frames a second, whose first code is semantic.

    Its encoder has convolutions and an LSTM that run backwards in time and
    know of no padding, so utterances are encoded one by one.

    Arguments are those of :class:`Codec`; a local folder has ``config.json``
    and ``SpeechTokenizer.pt``.
    """

    kind = "speech_tokenizer"

    def _load(self):
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
        self._check_codebooks(model.n_q)
        return model.eval()

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

    @property
    def sample_rate(self):
        """Of the waveforms that the model expects, in Hz."""
        return self._model.sample_rate

    @property
    def _frames_per_second(self):
        return self.sample_rate / int(self._model.downsample_rate)

    @property
    def _codebook_size(self):
        return self._model.quantizer.bins

    def _codes(self, wavs, lengths):
        for wav, length in zip(wavs, lengths, strict=True):
            codes = np.zeros((self.num_codebooks, 0), dtype=np.int64)
            if length:
                wav = wav[None, None, : int(length)].to(self.device)
                with inference(self.device, self.precision):
                    found = self._model.encode(wav, n_q=self.num_codebooks)
                codes = found[:, 0].cpu().numpy()
            yield codes

    def _waveform(self, codes):
        return self._model.decode(codes[:, None])[0, 0]
