"""Fit a tokenizer with several ranks, slowly; each prints its identity."""

import datetime
import sys
import time

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
    distributed.TIMEOUT = datetime.timedelta(seconds=2)
    distributed.init_distributed("cpu")
    fitting.UTTERANCES_PER_SHARD = 4
    table = read_manifest(manifest, ["en", "fr"])
    tokenizer = fitting.fit_tokenizer(
        SlowKMeans(int(clusters)), {"train": table}, folder, 4.0, 0
    )
    # In one call: lines of two ranks shall not run into each other.
    sys.stdout.write(f"{tokenizer.identity}\n")
