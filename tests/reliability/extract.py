"""Extract a corpus; with ``--kills``, be killed at random times first.

The work is done in forks, so that the imports are paid for once. Nothing of
torch has run before a fork.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from units_example import LoudnessTokenizer, extract, results


def start(manifest, folder, tokenizer, utterances_per_shard=4):
    """Fork a process that extracts, and return its id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            extract(
                manifest,
                folder,
                tokenizer,
                utterances_per_shard=utterances_per_shard,
            )
            status = 0
        finally:
            os._exit(status)
    return child


def finished(child):
    """Wait for a process, and tell whether it ended by itself."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0, "the extraction failed"
    return True


def main():
    """Print the digests of an uninterrupted run and of the killed ones."""
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--codebook", default="a")
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--kills", type=int, default=0)
    arguments = parser.parse_args()
    tokenizer = LoudnessTokenizer(arguments.codebook, arguments.delay)
    if not arguments.kills:
        extract(arguments.manifest, arguments.folder, tokenizer)
        return
    whole = arguments.folder / "whole"
    begin = time.monotonic()
    assert finished(start(arguments.manifest, whole, tokenizer))
    duration = time.monotonic() - begin
    generator = random.Random(0)
    folder, killed, found = arguments.folder / "killed", 0, []
    while killed < arguments.kills or not found or folder.exists():
        shard = generator.randint(1, 9)
        child = start(arguments.manifest, folder, tokenizer, shard)
        if killed < arguments.kills:
            time.sleep(generator.uniform(0, 0.6 * duration))
            os.kill(child, signal.SIGKILL)
        if finished(child):
            found.append(results(folder))
            shutil.rmtree(folder)
        else:
            killed += 1
    print(json.dumps({"whole": results(whole), "killed": found}))


if __name__ == "__main__":
    main()
