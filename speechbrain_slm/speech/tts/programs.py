"""Programs of others: run in bounds, and never given a text as code."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import selectors
import signal
import subprocess
import tempfile
import time
from pathlib import PurePath
from typing import NamedTuple

# What takes a word of its arguments, or of them all, for a program.
_INTERPRETER = re.compile(
    r"((ba|rba|da|z|k|mk|pdk|c|tc|a|fi|ya|po|tcl)?sh|ksh[\d.]+|nu|busybox|env"
    r"|pwsh|powershell|cmd|(i?python|pypy|lua)[\d.]*|perl|ruby|node|deno|bun"
    r"|php|R|Rscript|julia|octave(-cli)?|osascript|flock)"
    r"(\.exe)?"
)
_CODE_OPTION = re.compile(
    r"-[A-Za-z]*[ceEprS][A-Za-z]*|-[Cc]ommand|/[cCkK]"
    r"|--(command|eval|exec|execute|print|split-string)"
)
_GLUED = re.compile(
    r"-[A-Za-z]*[ceEprS][^-=]*\{text\}"
    r"|--(command|eval|exec|execute|print|split-string)=.*\{text\}",
    re.DOTALL,
)
_SHELLS_OF_OTHERS = re.compile(
    r"ssh|su|runuser|parallel|watch|script|expect|xterm|tmux|screen|[gmn]?awk"
    r"|sed|eval|festival"
)
# Where an interpreter reads its program from standard input.
_STDIN = {"-", "-s", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"}
_KEPT = 4096  # bytes of the end of what a program printed
_STEP = 0.05  # seconds between two looks whether a program has ended


# Process groups that would outlive this process.
_running = set()


class Ended(NamedTuple):
    """A program that was run.

    Attributes
    ----------
    status : int or None
        Its exit status; None where its time was up.
    stdout, stderr : bytes
        The end of what it printed.
    """

    status: int | None
    stdout: bytes
    stderr: bytes


def refuse_code(command: list[str]) -> None:
    """Refuse a command in which a text would be a program.

    Arguments
    ---------
    command : Its words; ``{text}`` stands for the text.

    Raises
    ------
    ValueError
        If a shell or an interpreter would take the text, or a word that it
        is put into, for code.

    Example
    -------
    >>> refuse_code(["sh", "-c", 'say "$1" -o "$2"', "x", "{text}", "{out}"])
    >>> refuse_code(["bash", "-lc", "say '{text}' -o {out}"])
    Traceback (most recent call last):
    ...
    ValueError: command ['bash', '-lc', ...
    """
    for place, word in enumerate(command):
        name = PurePath(word).name
        rest = command[place + 1 :]
        if (_INTERPRETER.fullmatch(name) and _takes_code(rest, command)) or (
            _SHELLS_OF_OTHERS.fullmatch(name)
            and any("{text}" in one for one in rest)
        ):
            raise ValueError(
                f"command {command}: '{name}' would take {{text}}, or the "
                "word that holds it, for a program, and any text could run "
                "what it likes. Give the text as a word of its own that the "
                "program reads as data (sh -c 'say \"$1\"' x {text}), or leave "
                "{text} out: it comes on standard input then."
            )


def _takes_code(words, command):
    # What is no option is what it runs; env takes name=value before that.
    run = next((w for w in words if not re.match(r"[-+]|\w+=", w)), "")
    if "{text}" in run:
        return True
    for place, word in enumerate(words):
        if _GLUED.match(word):
            return True
        if not _CODE_OPTION.fullmatch(word):
            continue
        code = [one for one in words[place + 1 :] if not one.startswith("-")]
        if code and "{text}" in code[0]:
            return True
    by_stdin = not any("{text}" in word for word in command)
    return by_stdin and not _STDIN.isdisjoint(words)


def run_program(words: list[str], text: bytes, timeout: float) -> Ended:
    """Run a program, in bounds of time and of what it may print.

    Arguments
    ---------
    words : The program and its arguments; no shell is involved.
    timeout
        Seconds; then it is killed. Whatever it has started is killed at its
        end in any case, unless that has left its process group.

    Raises
    ------
    ValueError
        If its arguments are longer than the system allows.
    """
    with tempfile.TemporaryFile() as stdin:
        stdin.write(text)
        stdin.seek(0)
        try:
            process = subprocess.Popen(
                words,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise
            longest = max(map(len, words))
            raise ValueError(
                f"'{words[0]}' cannot be given a word of {longest} characters: "
                "the system allows no arguments so long. Shorten the text, or "
                "leave {text} out of the command: it comes on standard input "
                "then."
            ) from error
    _running.add(process.pid)
    try:
        in_time, printed = _watch(process, time.monotonic() + timeout)
    finally:
        # While it is not waited for, its number is its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _running.discard(process.pid)
        process.stdout.close()
        process.stderr.close()
    status = process.returncode if in_time else None
    return Ended(status, *printed)


def kill_running() -> None:
    """Kill what :func:`run_program` has started and not ended yet."""
    for group in tuple(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def _watch(process, deadline):
    """Wait for the end; of what is printed, keep the end."""
    printed = {process.stdout: b"", process.stderr: b""}
    with selectors.DefaultSelector() as selector:
        for pipe in printed:
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ)
        while True:
            ended = _has_ended(process)
            left = deadline - time.monotonic()
            if left <= 0 and not ended:
                return False, list(printed.values())
            if not selector.get_map():
                time.sleep(0 if ended else min(_STEP, left))
            for key, _ in selector.select(0 if ended else min(_STEP, left)):
                pipe = key.fileobj
                block = os.read(pipe.fileno(), 1 << 16)
                if not block:
                    selector.unregister(pipe)
                printed[pipe] = (printed[pipe] + block)[-_KEPT:]
            if ended:
                return True, list(printed.values())


def _has_ended(process):
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, flags) is not None
