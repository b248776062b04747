import os
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from speech_example import PROGRAM

from speechbrain_slm.speech.tts import SilentSpeech, Voice
from speechbrain_slm.speech.tts.command_line import CommandLine
from speechbrain_slm.utils.config import load_yaml

ROOT = Path(__file__).parents[3]


@pytest.fixture
def command(tmp_path):
    path = tmp_path / "speak.py"
    path.write_text(PROGRAM)
    return [sys.executable, str(path), "{voice}", "{out}"]


def make(command, **changes):
    options = {"sample_rate": 8000, "voices": ["a"], "version": "1"}
    options |= {"pure": True, "timeout": 20}
    return CommandLine(command, **{**options, **changes})


@pytest.mark.parametrize("words", [["{text}"], []])
def test_a_text_reaches_the_program_as_it_is(command, words, tmp_path):
    tts = make(command + words)
    for text in ("Anna sourit.", "$(touch x); `rm y` 'z' {voice} \\n", "-é"):
        samples = tts.synthesize(text, Voice("a"))
        assert len(samples) == 200 * len(text)
    assert [path.name for path in tmp_path.iterdir()] == ["speak.py"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("fail", ValueError, "status 1; stdout: spoke a; stderr: no such word"),
        ("sleep", ValueError, "took more than 1 s"),
        ("silence", SilentSpeech, "gives silence"),
        ("nothing", SilentSpeech, "wrote no sample"),
    ],
)
def test_what_goes_wrong_is_said(command, text, error, message):
    tts = make([*command, "{text}"], timeout=1)
    with pytest.raises(error, match=message):
        tts.synthesize(text, Voice("a"))


def test_purity_is_checked_where_it_is_stated(command):
    command = [*command, "{text}"]
    with pytest.raises(RuntimeError, match="spoke 'random' twice"):
        make(command).synthesize("random", Voice("a"))
    impure = make(command, pure=False)
    assert np.abs(impure.synthesize("random", Voice("a"))).max() > 0
    assert impure.identity != make(command).identity


def test_a_program_that_is_not_what_was_said(command, tmp_path):
    other = make([*command, "{text}"], sample_rate=16000)
    with pytest.raises(RuntimeError, match=r"1 chan.* 8000 Hz; expected 1 at"):
        other.synthesize("Anna.", Voice("a"))
    with pytest.raises(FileNotFoundError, match="'no-such-tts' is not"):
        make(["no-such-tts", "{out}"])
    with pytest.raises(ValueError, match=r"no word holds {out}"):
        make(command[:-1])
    for words, message in (
        ([sys.executable, "-c", ""], "no audio file that can be read"),
        # It is not waited for.
        (["mkfifo"], "is a pipe; expected a regular"),
    ):
        with pytest.raises(ValueError, match=message):
            make([*words, "{out}"]).synthesize("A.", Voice("a"))


@pytest.mark.parametrize("name", ["pitch", "speed"])
def test_a_manner_that_the_command_does_not_hold(command, name):
    with pytest.raises(ValueError, match=f"no word .* holds {{{name}}}"):
        make(command).check_voice(Voice("a", **{name: 1.2}))


@pytest.mark.parametrize(
    "words",
    [
        ["sh", "-c", "say {text} -o {out}"],
        ["/bin/bash", "-lc", "say '{text}' -o {out}"],
        ["env", "LANG=C", "dash", "-e", "-c", "--", "say {text}", "{out}"],
        ["timeout", "5", "sh", "-c", "{text}", "{out}"],
        ["python3", "-c", "print('{text}', '{out}')"],
        ["perl", "-eprint '{text}'", "{out}"],
        ["node", "--eval=say('{text}')", "{out}"],
        ["env", "-S", "say {text} {out}"],
        ["ssh", "host", "say", "{text}", "{out}"],
        ["bash", "-s", "{out}"],
        ["python3", "-", "{out}"],
        ["bash", "/dev/stdin", "{out}"],
        ["bash", "{text}", "{out}"],
        ["env", "LANG=C", "{text}", "{out}"],
        ["rbash", "-c", "say {text}", "{out}"],
        ["node", "-p", "say('{text}')", "{out}"],
        ["flock", "lock", "-c", "say {text}", "{out}"],
        ["festival", "--batch", '(save (SayText "{text}") "{out}")'],
    ],
)
def test_a_text_is_never_code(words):
    with pytest.raises(ValueError, match="for a program"):
        make(words)


def test_a_text_that_is_data_may_pass_through_a_shell():
    for words in (
        ["sh", "-c", 'say "$1" "$2"', "x", "{text}", "{out}"],
        ["sh", "-c", "say -o {out}"],
        ["sh", "say.sh", "{text}", "{out}"],
        ["env", "LANG=C", sys.executable, "a.py", "--text={text}", "{out}"],
    ):
        assert make(words).command == words


# Starts a child that keeps its output open, and tells its number.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(60 * (sys.argv[2] == "hang"))
sys.exit(3)
"""


@pytest.mark.parametrize("text", ["hang", "end"])
def test_a_program_ends_with_all_that_it_started(tmp_path, text):
    told = tmp_path / "child"
    words = [sys.executable, "-c", PARENT, str(told), "{text}", "{out}"]
    tts = make(words, timeout=2 if text == "hang" else 20)
    with pytest.raises(ValueError, match=r"took more than|status 3"):
        tts.synthesize(text, Voice("a"))
    state = Path("/proc", told.read_text(), "stat")
    # Gone, or dead and waited for by nobody yet.
    for _ in range(100):
        if not state.exists() or state.read_bytes().split()[2] == b"Z":
            break
        time.sleep(0.02)
    else:
        pytest.fail("the child goes on")


def test_what_is_printed_without_end_takes_no_memory(tmp_path):
    words = [sys.executable, "-c", "while True: print('x' * 9999)", "{out}"]
    tracemalloc.start()
    with pytest.raises(ValueError, match="took more than 1 s") as error:
        make(words, timeout=1).synthesize("a", Voice("a"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    assert len(str(error.value)) < 2000


def test_a_text_beyond_the_argument_limit_is_refused_alone(command):
    tts = make([*command, "{text}"])
    with pytest.raises(ValueError, match="no arguments so long") as error:
        tts.synthesize("a" * (1 << 18), Voice("a"))
    assert len(str(error.value)) < 1000
    assert len(tts.synthesize("a", Voice("a"))) == 200


# The command lines of Kyutai's scripts, and what each reads from "-"; both
# write float samples as 16 bit at 24 kHz.
DELAYED_STREAMS = """
import argparse, os, stat, sys
import numpy as np, soundfile
parser = argparse.ArgumentParser()
parser.add_argument("inp")
parser.add_argument("out")
parser.add_argument("--voice", default="another.wav")
if "rust" in sys.argv[0]:
    parser.add_argument("--url", default="ws://127.0.0.1:8080")
    parser.add_argument("--api-key", default="public_token")
    # As asyncio's connect_read_pipe does.
    assert stat.S_ISFIFO(os.fstat(0).st_mode), "Pipe transport is for pipes"
else:
    parser.add_argument("--hf-repo")
    parser.add_argument("--voice-repo")
    parser.add_argument("--device", default="cuda")
args = parser.parse_args()
assert args.inp == "-"
text = sys.stdin.read().strip()
if text == "fail":
    sys.exit("no such word")
wave = np.sin(np.arange(1920 * len(text)) * len(args.voice) / 99) / 2
print("generated", len(text), end="\\r")
soundfile.write(args.out, wave, 24000)
"""


@pytest.mark.parametrize("name", ["tts_pytorch.py", "tts_rust_server.py"])
def test_the_form_of_kyutais_delayed_streams(tmp_path, monkeypatch, name):
    """With a stand-in for the scripts: the models were not at hand."""
    script, uv = tmp_path / "it's" / name, tmp_path / "bin" / "uv"
    for path, text in (
        (script, DELAYED_STREAMS),
        (uv, f'#!/bin/sh\n[ "$1" = run ] && shift && {sys.executable} "$@"\n'),
    ):
        path.parent.mkdir()
        path.write_text(text)
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{uv.parent}:{os.environ['PATH']}")
    names = ["alba", "anna", "charles", "eve", "george", "jane", "mary", "paul"]
    hparams = load_yaml(
        ROOT / "hparams" / "tts" / "delayed_streams.yaml",
        {"names": names, "script": str(script)},
    )
    tts, speakers = hparams["tts"], hparams["speakers"]
    assert list(speakers) == names
    for voices in speakers.values():
        assert voices["en"] == voices["fr"]
        tts.check_voice(voices["en"])
    said = {}
    for text in ("Anna sourit.", "$(touch x); `rm y` 'z' \"-e %s\\n"):
        for speaker in ("alba", "anna"):
            samples = tts.synthesize(text, speakers[speaker]["fr"])
            assert len(samples) == 1920 * len(text)
            said[text, speaker] = samples.tobytes()
    assert len(set(said.values())) == 4
    with pytest.raises(ValueError, match=r"status 1.*no such word"):
        tts.synthesize("fail", speakers["anna"]["en"])
