"""Cross-lingual speech language models as SpeechBrain recipes."""

from speechbrain_slm import renamed

__version__ = "0.1.0"
renamed.install()
