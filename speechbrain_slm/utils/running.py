"""How a process starts, and how it ends: encodings, errors, Ctrl-C."""

import argparse
import codecs
import locale
import logging
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from speechbrain_slm.utils.heartbeat import first_failure

# What a stopped run gets to put its things in order. Whatever it leaves lying
# is cleared by the next one, as after a kill.
GRACE = 3.0  # seconds
# Errors that say what to do; others are faults of a program, and of them the
# place matters, too.
_EXPECTED: tuple = (ValueError, OSError, RuntimeError)
_EXPECTED += (ImportError, FloatingPointError)
_STOPS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
# "stop": the signal that has asked for the end; "said": why, if an error does.
_state: dict[str, Any] = dict(debug=False, failed=False, watched=False, stop=0)
_state["said"] = False
_ending = threading.Lock()


def begin_process() -> None:
    """Prepare the process of a recipe: call it first.

    Text is UTF-8 whatever the locale says, an error becomes one line on stderr,
    and Ctrl-C or SIGTERM end the process soon, also while its threads wait.
    """
    _speak_utf8()
    sys.excepthook = report_error
    if threading.current_thread() is threading.main_thread():
        _obey_signals()


def run_script(main: Callable) -> None:
    """Run a script's ``main`` on its arguments, errors as one line."""
    _speak_utf8()
    try:
        # A shell does not see the ~ in --output=~/x.
        parts = [argument.rpartition("=") for argument in sys.argv[1:]]
        main([a + sign + os.path.expanduser(b) for a, sign, b in parts])
    except _EXPECTED as error:
        sys.exit(f"error: {_sentence(error)}")
    except KeyboardInterrupt:
        print("\nstopped by Ctrl-C", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def script_parser(description: str | None) -> argparse.ArgumentParser:
    """Make the parser of a script whose docstring says how it is called."""
    return argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # --run would become --runs today and mean something else tomorrow.
        allow_abbrev=False,
    )


def set_debug(debug: bool) -> None:
    """Say whether tracebacks are printed; ``log.txt`` always has them."""
    _state["debug"] = debug


def has_failed() -> bool:
    """Tell whether an error is ending this process."""
    return _state["failed"]


def report_error(
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    """Print an error as one line on stderr, its traceback to ``log.txt``."""
    _state["failed"] = True
    if issubclass(kind, KeyboardInterrupt):
        _end(_state["stop"] or signal.SIGINT)
        return
    _state["said"] = True
    line = _sentence(error)
    first, speaks = first_failure(line)
    # The heart repeats what the first one has said.
    again = first in (None, line)
    reason = line if again else f"{line} (after {first})"
    files = _write_log(logging.ERROR, reason, (kind, error, trace))
    if not speaks and not _state["debug"]:
        return  # Another rank has spoken; this one fails since that one did.
    expected = isinstance(error, _EXPECTED)
    # Without a log, a fault of the program is not swallowed.
    if _state["debug"] or not (files or expected):
        traceback.print_exception(kind, error, trace)
    elif not expected:
        reason += f" (a fault of the program; see {files[0].baseFilename})"
    print(f"error: {reason}", file=sys.stderr, flush=True)


def _sentence(error):
    """Put on one line what an error says."""
    text = " ".join(part.strip() for part in str(error).splitlines())
    if not isinstance(error, _EXPECTED) or not text:
        text = f"{type(error).__name__}: {text}".rstrip(": ")
    missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    # The paths of YAML files are relative, and a run is started from anywhere;
    # an absolute path needs no explanation.
    if missing and not re.search(r"(^|[\s'\"(=:])/", text):
        text += f" (relative to {Path.cwd()})"
    return text


def _write_log(level, line, info=None):
    """Write to the log files, and return them."""
    every, record = logging.root.handlers, logging.LogRecord
    files = [one for one in every if isinstance(one, logging.FileHandler)]
    # Past the loggers: stderr gets a line of its own.
    for handler in files:
        handler.handle(record(__name__, level, "", 0, line, (), info))
    return files


def _speak_utf8():
    """Start again in Python's UTF-8 mode where the locale has no UTF-8."""
    # The names of files, and what libraries read, are in the locale's encoding,
    # too; nothing but the mode of the process reaches them.
    used = {locale.getpreferredencoding(False), sys.getfilesystemencoding()}
    if any(codecs.lookup(name).name != "utf-8" for name in used):
        script = Path(sys.argv[0]).is_file() or sys.argv[0] == "-c"
        if script and os.environ.get("PYTHONUTF8") != "1":
            os.environ["PYTHONUTF8"] = "1"
            sys.stdout.flush()
            sys.stderr.flush()
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A name that is no text must not end the run that prints it.
            stream.reconfigure(errors="backslashreplace")


def _obey_signals():
    if _state["watched"]:
        return
    _state["watched"] = True
    for number in _STOPS:
        # A shell starts what runs in the background with SIGINT ignored.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _raise_stop)
    # The interpreter calls handlers between two steps of the main thread,
    # which may be deep in a library. A thread that reads the signals' numbers
    # as they arrive ends the process all the same.
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(read,), daemon=True).start()


def _raise_stop(number, frame):
    if _state["stop"]:
        _end(number)  # asked twice
    _state["stop"] = number
    raise KeyboardInterrupt


def _watch(read):
    while (number := os.read(read, 1)[0]) not in _STOPS:
        pass
    time.sleep(GRACE)
    _end(number)


def _end(number):
    """Say that the run was stopped, and end it without waiting."""
    if not _ending.acquire(blocking=False):
        return
    line = f"stopped by {_STOPS[number]}; run the same command again, it goes "
    line += "on from here"
    # torchrun stops the other ranks where one has failed, and has said why.
    if not _state["said"] and first_failure(line)[0] is None:
        print(f"\n{line}", file=sys.stderr)
    _write_log(logging.INFO, line)
    for child in multiprocessing.active_children():
        child.terminate()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(128 + number)
