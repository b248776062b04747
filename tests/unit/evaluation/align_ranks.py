"""Evaluate the alignment with the ranks that torchrun starts, slowly."""

import sys
import time

import torch

from speechbrain_slm.evaluation.alignment import evaluate as alignment
from speechbrain_slm.utils.distributed import init_distributed

if __name__ == "__main__":
    model, corpus, output, pause = sys.argv[1:]
    torch.set_num_threads(1)
    init_distributed("cpu")
    states = alignment._states

    def slowly(*arguments):
        time.sleep(float(pause))
        return states(*arguments)

    alignment._states = slowly
    alignment.evaluate_alignment(
        model,
        f"{corpus}/store",
        output,
        ["en", "fr"],
        f"{corpus}/manifest.parquet",
        pairs_per_shard=4,
    )
