"""Cross-lingual speech language models as SpeechBrain recipes."""

from typing import Any

from speechbrain_slm import renamed

__version__ = "0.1.0"
renamed.install()


def __getattr__(name: str) -> Any:
    # When it is asked for: its import takes torch's seconds.
    if name == "SpeechLM":
        from speechbrain_slm.inference.speech_lm import SpeechLM

        return SpeechLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
