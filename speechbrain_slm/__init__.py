"""Cross-lingual speech language models as SpeechBrain recipes."""

__version__ = "0.1.0"
