"""Any program that speaks from the command line.

The command is a list of words, run without a shell, so no text can become a
command of its own (where the command is itself a shell that would take the
text for one, it is refused):
``[my-tts, -v, "{voice}", "--text={text}", -o, "{out}"]``. ``--text={text}``, in
one word, also keeps a text that begins with a dash from being taken for an
option. Without ``{text}`` the text goes to standard input.
"""

import io
import logging
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from speechbrain_slm.speech.tts import SilentSpeech, check_speech
from speechbrain_slm.speech.tts.programs import refuse_code, run_program
from speechbrain_slm.utils.audio import BadAudio, read_audio
from speechbrain_slm.utils.files import read_regular

logger = logging.getLogger(__name__)
_PLACEHOLDER = re.compile(r"\{(text|voice|out|pitch|speed)\}")
_SHOWN = 500  # characters of what the program printed


class CommandLine:
    """Speaks by running a program once an utterance.

    Arguments
    ---------
    command
        The program and its arguments. ``{text}``, ``{voice}`` and ``{out}``
        (a ``.wav`` file that the program writes, mono) are filled in, so are
        ``{pitch}`` and ``{speed}``; without these two, a voice must leave
        them at 1.
    sample_rate : Hz of what the program writes.
    voices : The names that ``{voice}`` may take.
    version
        Whatever else decides the samples: the program's version, its model.
        Another one gives the audio files other names.
    pure
        Whether the same text and voice always give the same samples. If so,
        the first utterance of a process is spoken twice to see. If not, an
        audio file that is lost cannot be made again as it was.
    timeout : Seconds that an utterance may take.

    Example
    -------
    >>> script = "import sys, wave; w = wave.open(sys.argv[1], 'wb');"
    >>> script += "w.setparams((1, 2, 8000, 0, 'NONE', ''));"
    >>> script += "w.writeframes(b'ab' * 8000)"
    >>> import sys
    >>> from speechbrain_slm.speech.tts import Voice
    >>> tts = CommandLine([sys.executable, "-c", script, "{out}"], 8000,
    ...     voices=["a"], version="1", pure=True, timeout=20)
    >>> len(tts.synthesize("Anna sourit.", Voice("a")))
    8000
    """

    def __init__(
        self,
        command: list[str],
        sample_rate: int,
        voices: list[str],
        version: str,
        pure: bool,
        timeout: float,
    ) -> None:
        self.command = [str(word) for word in command]
        text = " ".join(self.command)
        if "{out}" not in text:
            raise ValueError(
                f"command {self.command}: no word holds {{out}}, the file that "
                "the program writes"
            )
        refuse_code(self.command)
        if shutil.which(self.command[0]) is None:
            raise FileNotFoundError(
                f"the program '{self.command[0]}' is not installed, or not on "
                "the PATH"
            )
        self.sample_rate = sample_rate
        self.voices = list(voices)
        self.timeout = timeout
        self.pure = pure
        self.identity = {
            "name": "command_line",
            "command": self.command,
            "version": version,
            "pure": pure,
        }
        self._free = {name for name in ("pitch", "speed") if name in text}
        self._checked = not pure
        if not pure:
            logger.warning(
                "'%s' is not a pure function of text and voice: lost audio "
                "cannot be made again as it was",
                self.command[0],
            )

    def check_voice(self, voice) -> None:
        """Refuse a voice that the program is not said to have.

        Arguments
        ---------
        voice : Voice
            The voice.

        Raises
        ------
        ValueError
            Names what is wrong and what there is.
        """
        if voice.name not in self.voices:
            raise ValueError(
                f"the command has no voice '{voice.name}'; expected one of "
                f"{', '.join(self.voices)}"
            )
        for name in {"pitch", "speed"} - self._free:
            if getattr(voice, name) != 1:
                raise ValueError(
                    f"voice '{voice.name}': {name} is {getattr(voice, name)}, "
                    f"but no word of the command holds {{{name}}}"
                )

    def synthesize(self, text: str, voice) -> np.ndarray:
        """Speak a text.

        Arguments
        ---------
        voice : Voice
            Who speaks.

        Returns
        -------
        int16 [T].

        Raises
        ------
        ValueError
            If the program fails, takes too long, or writes no speech: holds
            what it printed.
        RuntimeError
            If it is said to be pure and is not.
        """
        self.check_voice(voice)
        samples = self._run(text, voice)
        if not self._checked:
            again = self._run(text, voice)
            if not np.array_equal(samples, again):
                raise RuntimeError(
                    f"'{self.command[0]}' spoke {text!r} twice and gave other "
                    "samples; expected the same, as it is said to be pure. "
                    "Fix its seed, or set pure to False."
                )
            self._checked = True
        return check_speech(samples, text, voice)

    def _run(self, text, voice):
        if "\0" in text:
            raise ValueError(f"the text {text!r} holds a NUL; remove it")
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.wav"
            values = {
                "text": text,
                "voice": voice.name,
                "out": str(out),
                "pitch": str(voice.pitch),
                "speed": str(voice.speed),
            }
            words = [
                _PLACEHOLDER.sub(lambda found: values[found[1]], word)
                for word in self.command
            ]
            # A text may be long, and its error is a line of a ledger.
            shown = str(words)
            if len(shown) > _SHOWN:
                shown = f"{shown[:_SHOWN]}..."
            as_argument = any("{text}" in word for word in self.command)
            done = run_program(
                words,
                b"" if as_argument else text.encode() + b"\n",
                self.timeout,
            )
            if done.status is None:
                raise ValueError(
                    f"{shown} took more than {self.timeout} s{_printed(done)}"
                )
            if done.status:
                raise ValueError(
                    f"{shown} ended with status {done.status}{_printed(done)}"
                )
            return self._read(out, shown, done)

    def _read(self, out, shown, done):
        try:
            sound = read_audio(out, dtype="int16")
        except BadAudio as error:
            if _num_samples(out) == 0:
                raise SilentSpeech(f"{shown} wrote no sample") from error
            raise ValueError(
                f"{shown} wrote no audio file that can be read ({error})"
                f"{_printed(done)}"
            ) from error
        if sound.sample_rate != self.sample_rate or sound.channels != 1:
            raise RuntimeError(
                f"{shown} wrote {sound.channels} channel(s) at "
                f"{sound.sample_rate} Hz; expected 1 at {self.sample_rate} Hz. "
                "Correct sample_rate, or the program's options."
            )
        return sound.samples[:, 0]


def _num_samples(path):
    try:
        return soundfile.info(io.BytesIO(read_regular(path))).frames
    except (OSError, soundfile.SoundFileError):
        return None


def _printed(process):
    """Show the end of what a process printed."""
    shown = ""
    for name in ("stdout", "stderr"):
        text = (getattr(process, name) or b"").decode(errors="replace").strip()
        if text:
            shown += f"; {name}: {text[-_SHOWN:]}"
    return shown
