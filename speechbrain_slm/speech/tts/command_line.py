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
import math
import re
import shutil
import tempfile
import textwrap
from pathlib import Path, PurePath

import numpy as np
import soundfile

from speechbrain_slm.speech.processes import run_program
from speechbrain_slm.speech.tts import BackEnd, SilentSpeech, Voice
from speechbrain_slm.utils.audio import BadAudio, read_audio
from speechbrain_slm.utils.files import read_regular

logger = logging.getLogger(__name__)
_PLACEHOLDER = re.compile(r"\{(text|voice|out|pitch|speed)\}")
_SHOWN = 500  # characters of what the program printed

# What takes a word of its arguments, or of them all, for a program.
_INTERPRETER = re.compile(
    r"((ba|rba|da|z|k|mk|pdk|c|tc|a|fi|ya|po|tcl)?sh|ksh[\d.]+|nu|busybox|env"
    r"|pwsh|powershell|cmd|(i?python|pypy|lua)[\d.]*|perl|ruby|node|deno|bun"
    r"|php|R|Rscript|julia|octave(-cli)?|osascript|flock)"
    r"(\.exe)?"
)
_SHORT = "-[A-Za-z]*[ceEprS]"
_LONG = "--(command|eval|exec|execute|print|split-string)"
_CODE_OPTION = re.compile(rf"{_SHORT}[A-Za-z]*|-[Cc]ommand|/[cCkK]|{_LONG}")
_GLUED = re.compile(rf"({_SHORT}[^-=]*|{_LONG}=.*)\{{text\}}", re.DOTALL)
_SHELLS_OF_OTHERS = re.compile(
    r"ssh|su|runuser|parallel|watch|script|expect|xterm|tmux|screen|[gmn]?awk"
    r"|sed|eval|festival"
)
# Where an interpreter reads its program from standard input.
_STDIN = {"-", "-s", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"}


class CommandLine(BackEnd):
    """Speaks by running a program once an utterance.

    Arguments
    ---------
    command
        The program and its arguments. ``{text}``, ``{voice}``, ``{out}`` (a
        ``.wav`` file that the program writes, mono), ``{pitch}`` and
        ``{speed}`` are filled in; without one of these two, a voice must leave
        it at 1.
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
    >>> tts = CommandLine([sys.executable, "-c", script, "{out}"], 8000,
    ...     voices=["a"], version="1", pure=True, timeout=20)
    >>> len(tts.synthesize("Anna sourit.", Voice("a")))
    8000
    """

    pitch = speed = (0.0, math.inf)

    def __init__(
        self,
        command: list[str],
        sample_rate: int,
        voices: list[str],
        version: str,
        pure: bool,
        timeout: float,
    ) -> None:
        self.command = list(map(str, command))
        held = set(_PLACEHOLDER.findall(" ".join(self.command)))
        if "out" not in held:
            what = "no word holds {out}, the file that the program writes"
            raise ValueError(f"command {self.command}: {what}")
        refuse_code(self.command)
        if shutil.which(program := self.command[0]) is None:
            what = "is not installed, or not on the PATH"
            raise FileNotFoundError(f"the program '{program}' {what}")
        self.sample_rate, self.timeout = sample_rate, timeout
        self.voices = list(voices)
        self.identity = {
            "name": "command_line",
            "command": self.command,
            "version": version,
            "pure": pure,
        }
        self._by_argument = "text" in held
        self._fixed = {"pitch", "speed"} - held
        self._checked = not pure
        if not pure:
            told = "'%s' is not a pure function of text and voice: lost audio"
            logger.warning(f"{told} cannot be made again as it was", program)

    def _check_name(self, voice: Voice) -> None:
        if voice.name not in self.voices:
            known = f"expected one of {', '.join(self.voices)}"
            raise ValueError(
                f"the command has no voice '{voice.name}'; {known}"
            )
        for name in self._fixed:
            if (value := getattr(voice, name)) != 1:
                lacks = f"no word of the command holds {{{name}}}"
                what = f"voice '{voice.name}': {name} is {value}"
                raise ValueError(f"{what}, but {lacks}")

    def _speak(self, text: str, voice: Voice) -> np.ndarray:
        samples = self._run(text, voice)
        if not self._checked:
            if not np.array_equal(samples, self._run(text, voice)):
                raise RuntimeError(
                    f"'{self.command[0]}' spoke {text!r} twice and gave other "
                    "samples; expected the same, as it is said to be pure. "
                    "Fix its seed, or set pure to False."
                )
            self._checked = True
        return samples

    def _run(self, text: str, voice: Voice) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.wav"
            values = vars(voice) | {
                "text": text,
                "voice": voice.name,
                "out": out,
            }
            # In one pass: a text that holds "{voice}" is said as it stands.
            words = [
                _PLACEHOLDER.sub(lambda found: str(values[found[1]]), word)
                for word in self.command
            ]
            # A text may be long, and its error is a line of a ledger.
            shown = textwrap.shorten(str(words), _SHOWN)
            stdin = b"" if self._by_argument else text.encode() + b"\n"
            done = run_program(words, stdin, self.timeout)
            if done.status is None:
                raise ValueError(
                    f"{shown} took more than {self.timeout} s{done}"
                )
            if done.status:
                raise ValueError(
                    f"{shown} ended with status {done.status}{done}"
                )
            try:
                sound = read_audio(out, dtype="int16")
            except BadAudio as error:
                if _is_empty(out):
                    raise SilentSpeech(f"{shown} wrote no sample") from error
                fault = f"wrote no audio file that can be read ({error})"
                raise ValueError(f"{shown} {fault}{done}") from error
        found = f"{sound.channels} channel(s) at {sound.sample_rate} Hz"
        if found != f"1 channel(s) at {self.sample_rate} Hz":
            raise RuntimeError(
                f"{shown} wrote {found}; expected 1 at {self.sample_rate} Hz. "
                "Correct sample_rate, or the program's options."
            )
        assert sound.samples is not None
        return sound.samples[:, 0]


def _is_empty(path: Path) -> bool:
    """Tell whether it is an audio file, of no sample."""
    try:
        return not soundfile.info(io.BytesIO(read_regular(path))).frames
    except (OSError, soundfile.SoundFileError):
        return False


def refuse_code(command: list[str]) -> None:
    """Refuse a command in which a text, ``{text}``, would be a program."""
    for place, word in enumerate(command, 1):
        name, rest, takes = PurePath(word).name, command[place:], False
        if _INTERPRETER.fullmatch(name):
            takes = _takes_code(rest, "{text}" in " ".join(command))
        elif _SHELLS_OF_OTHERS.fullmatch(name):
            takes = "{text}" in " ".join(rest)
        if takes:
            raise ValueError(
                f"command {command}: '{name}' would take {{text}}, or the "
                "word that holds it, for a program, and any text could run "
                "what it likes. Give the text as a word of its own that the "
                "program reads as data (sh -c 'say \"$1\"' x {text}), or leave "
                "{text} out: it comes on standard input then."
            )


def _takes_code(words: list[str], by_argument: bool) -> bool:
    # What is no option is what it runs; env takes name=value before that.
    code = [next((w for w in words if not re.match(r"[-+]|\w+=", w)), "")]
    code += filter(_GLUED.match, words)
    for place, word in enumerate(words, 1):
        if _CODE_OPTION.fullmatch(word):
            code += [w for w in words[place:] if not w.startswith("-")][:1]
    on_stdin = not by_argument and not _STDIN.isdisjoint(words)
    return on_stdin or any("{text}" in word for word in code)
