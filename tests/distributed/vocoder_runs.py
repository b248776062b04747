"""Train small vocoders, alone or on ranks.

torchrun --nproc_per_node=2 vocoder_runs.py OUTPUT
"""

import sys
from pathlib import Path

import torch
from speechbrain.lobes.models.HifiGAN import VariancePredictor

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tests" / "unit" / "brains")]

import test_neural_vocoders as neural  # noqa: E402
import test_vocoder as mel  # noqa: E402

from speechbrain_slm.utils.distributed import init_distributed  # noqa: E402

KINDS = [f"{kind}_{d}" for kind in ("mel", "gan") for d in (False, True)]


def train(output):
    """Train each kind in its folder under ``output``."""
    for name in KINDS:
        kind, deduplicated = name.split("_")
        room = {"mel": mel, "gan": neural}[kind]
        make = {"mel": mel.make, "gan": neural.gan}[kind]
        brain = make(Path(output) / name, deduplicated=deduplicated == "True")
        brain.distributed_backend = "gloo"
        # What is drawn is another thing on each rank.
        brain.told_languages = lambda batch, stage: batch["languages"]
        for module in brain.modules.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            elif isinstance(module, VariancePredictor):
                module.dropout = 0.0
        held = {"held_out": room.Speech.held[:3, None]}
        brain.fit(room.plan(steps=3), held)


if __name__ == "__main__":
    torch.set_num_threads(1)
    init_distributed("cpu")
    train(sys.argv[1])
    torch.distributed.destroy_process_group()
