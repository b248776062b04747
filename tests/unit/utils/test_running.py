"""How a run starts and ends, in small processes of their own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BEGIN = "from speechbrain_slm.utils import running\nrunning.begin_process()\n"
LOG = """\
import logging
logging.basicConfig(handlers=[logging.FileHandler("log.txt")])
"""
# What runs in a shell's background has Ctrl-C ignored; these tests may, too.
HEED = """\
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
# A main thread that is deep in something, and others that wait with it.
WAITING = """\
import threading, time
from concurrent.futures import ThreadPoolExecutor
running.GRACE = 0.1
with ThreadPoolExecutor(2) as pool:
    for _ in range(2):
        pool.submit(time.sleep, 60)
    print("waiting", flush=True)
"""
SCRIPT = """\
from speechbrain_slm.utils.running import run_script
def main(arguments):
    print(arguments)
    raise ValueError("two\\nlines")
run_script(main)
"""


def start(folder, text, *arguments, **environment):
    script = folder / "script.py"
    script.write_text(text, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, script, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def finish(process):
    output, errors = process.communicate(timeout=50)
    return process.returncode, output.decode(), errors.decode()


GONE = "[Errno 2] No such file or directory:"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("raise ValueError('a\\n  b')", "a b"),
        ("raise OSError(28, 'No room', 'a')", "[Errno 28] No room: 'a'"),
        ("open('none/x')", f"{GONE} 'none/x' (relative to {{folder}})"),
        ("open('/none/x')", f"{GONE} '/none/x'"),
        (
            "{}['a']",
            "KeyError: 'a' (a fault of the program; see {folder}/log.txt)",
        ),
    ],
)
def test_an_error_is_one_line_on_stderr(tmp_path, text, line):
    status, output, errors = finish(start(tmp_path, LOG + BEGIN + text))
    assert (status, output) == (1, "")
    assert errors == f"error: {line.replace('{folder}', str(tmp_path))}\n"
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert log.count("Traceback") == 1
    assert "script.py" in log


def test_debug_shows_the_traceback(tmp_path):
    for text, line in (
        ("running.set_debug(True)\nraise ValueError('a')", "a"),
        # Without a log, a fault of the program is not swallowed.
        ("{}['a']", "KeyError: 'a'"),
    ):
        status, _, errors = finish(start(tmp_path, BEGIN + text))
        assert status == 1
        assert errors.startswith("Traceback")
        assert errors.endswith(f"\nerror: {line}\n")


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")],
)
def test_a_stop_is_obeyed_while_threads_wait(tmp_path, number, name):
    process = start(tmp_path, LOG + HEED + BEGIN + WAITING)
    assert process.stdout.readline() == b"waiting\n"
    process.send_signal(number)
    status, output, errors = finish(process)
    assert (status, output) == (128 + number, "")
    line = f"stopped by {name}; run the same command again, it goes on from"
    assert errors.startswith(f"\n{line}")
    assert errors.count("\n") == 2
    assert line in (tmp_path / "log.txt").read_text(encoding="utf-8")


def test_a_script_ends_with_a_line_and_knows_the_home_folder(tmp_path):
    arguments = ["--output=~/x", "en=~/y", "~/z", "a~"]
    process = start(tmp_path, SCRIPT, *arguments, HOME="/somewhere")
    status, output, errors = finish(process)
    assert (status, errors) == (1, "error: two lines\n")
    assert output == (
        "['--output=/somewhere/x', 'en=/somewhere/y', '/somewhere/z', 'a~']\n"
    )


def test_a_locale_without_utf8_decides_nothing(tmp_path):
    text = "import sys\nprint('é', sys.argv[1], ascii(open('ö').read()))"
    text += "\nprint('a\\udcff')"  # no text: it is printed all the same
    (tmp_path / "ö").write_bytes("ü\n".encode())
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    status, output, errors = finish(start(tmp_path, text, "ß", **plain))
    assert status == 1, output
    status, output, errors = finish(start(tmp_path, BEGIN + text, "ß", **plain))
    assert (status, errors) == (0, "")
    assert output == "é ß '\\xfc\\n'\na\\udcff\n"


def test_an_error_that_is_no_text_is_logged_without_a_traceback(tmp_path):
    code = (
        "from speechbrain_slm.utils.experiment import begin_experiment\n"
        "begin_experiment('run', 'a.yaml', 'a: 1')\n"
        "raise ValueError('a\\udcff')"
    )
    status, _, errors = finish(start(tmp_path, BEGIN + code))
    assert (status, errors.splitlines()[-1]) == (1, "error: a\\udcff")
    assert "Logging error" not in errors
    assert "a\\udcff" in (tmp_path / "run" / "log.txt").read_text()
