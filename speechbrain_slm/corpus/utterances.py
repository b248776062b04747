"""Utterances: one text in one voice, spoken into one audio file."""

import io
from dataclasses import dataclass

import numpy as np
import soundfile

from speechbrain_slm.corpus.tts import Voice
from speechbrain_slm.utils.atomic import write_atomic
from speechbrain_slm.utils.hashing import sha256_file

# Part of every audio file's name: raise it when the code below gives other
# samples or another format, or files of an earlier version would be reused.
AUDIO_VERSION = 1
_FRAME = 0.01  # seconds


@dataclass(frozen=True)
class Trim:
    """Where an utterance begins and ends.

    Arguments
    ---------
    threshold_db : float
        Frames of 10 ms whose RMS is below this level, relative to the
        utterance's peak, count as silence at either end.
    margin : float
        Seconds of it that are kept.
    """

    threshold_db: float
    margin: float

    def __post_init__(self):
        if self.threshold_db >= 0 or self.margin < 0:
            raise ValueError(
                f"{self}: expected threshold_db below 0 and margin of 0 or more"
            )


@dataclass(frozen=True)
class Utterance:
    """What is spoken, by whom, into which file of the output folder."""

    text: str
    voice: Voice
    audio: str


def trim_silence(samples, sample_rate, trim):
    """Cut the silence at both ends down to a margin.

    Arguments
    ---------
    samples : numpy.ndarray
        int16 [T], not all zero.
    sample_rate : int
        Hz.
    trim : Trim
        What counts as silence, and how much of it stays.

    Returns
    -------
    numpy.ndarray
        A part of the samples.

    Example
    -------
    >>> samples = np.array([0] * 50 + [900] * 20 + [0] * 90, np.int16)
    >>> len(trim_silence(samples, 1000, Trim(-40.0, 0.015)))
    50
    """
    # Frames, not samples: Pico ends some sentences with half a second of
    # silence and a click whose peak is that of a soft consonant.
    size = round(_FRAME * sample_rate)
    signal = np.pad(samples.astype(np.float64), (0, -len(samples) % size))
    rms = np.sqrt(np.mean(signal.reshape(-1, size) ** 2, axis=1))
    threshold = np.abs(signal).max() * 10 ** (trim.threshold_db / 20)
    loud = np.flatnonzero(rms >= threshold)
    margin = round(trim.margin * sample_rate)
    start = max(0, loud[0] * size - margin)
    return samples[start : (loud[-1] + 1) * size + margin]


def speak_chunk(context, utterances):
    """Speak utterances into files; called in worker processes.

    Arguments
    ---------
    context : tuple
        The TextToSpeech, the Trim and the output folder (Path).
    utterances : list of Utterance
        What to speak.

    Returns
    -------
    list of tuple
        For each: the file, its number of samples, its SHA-256, and whether
        it was ``spoken``, ``found``, or found ``damaged`` and spoken again.

    Raises
    ------
    RuntimeError
        Names the text, the voice and the file.
    """
    results = []
    for utterance in utterances:
        try:
            results.append((utterance.audio, *_speak(utterance, *context)))
        except Exception as error:
            raise RuntimeError(
                f"cannot speak {utterance.text!r} with {utterance.voice} into "
                f"{context[-1] / utterance.audio}: {error}"
            ) from error
    return results


def _speak(utterance, tts, trim, output_folder):
    path = output_folder / utterance.audio
    state = "spoken"
    if path.is_file():
        # Decoding checks FLAC's checksums: a file that a power cut tore, or
        # that someone changed, does not pass for the real one.
        try:
            samples, _ = soundfile.read(path, dtype="int16")
            return len(samples), sha256_file(path), "found"
        except soundfile.LibsndfileError:
            state = "damaged"
    samples = tts.synthesize(utterance.text, utterance.voice)
    samples = trim_silence(samples, tts.sample_rate, trim)
    content = io.BytesIO()
    soundfile.write(
        content, samples, tts.sample_rate, format="FLAC", subtype="PCM_16"
    )
    write_atomic(path, content.getvalue())
    return len(samples), sha256_file(path), state
