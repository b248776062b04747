"""Fit a tokenizer with several ranks, slowly; each prints its identity."""

import datetime
import os
import sys
import time
from pathlib import Path

from speechbrain_slm.units import fitting
from speechbrain_slm.units.manifest import read_manifest
from speechbrain_slm.units.tokenizers.mel_kmeans import MelKMeans
from speechbrain_slm.utils import distributed


class SlowKMeans(MelKMeans):
    """Fits 5 seconds longer than need be."""

    def fit(self, frames, seed, scratch):
        time.sleep(5)
        super().fit(frames, seed, scratch)


if __name__ == "__main__":
    manifest, folder, clusters = sys.argv[1:]
    # The short timeout counts from where both have loaded everything.
    Path(f"{folder}-{os.environ['RANK']}").touch()
    while not all(Path(f"{folder}-{rank}").exists() for rank in (0, 1)):
        time.sleep(0.01)
    distributed.TIMEOUT = datetime.timedelta(seconds=2)
    distributed.init_distributed("cpu")
    fitting.UTTERANCES_PER_SHARD = 4
    table = read_manifest(manifest, ["en", "fr"])
    tokenizer = fitting.fit_tokenizer(
        SlowKMeans(int(clusters)), {"train": table}, folder, 4.0, 0
    )
    # In one call: lines of two ranks shall not run into each other.
    sys.stdout.write(f"{tokenizer.identity}\n")
