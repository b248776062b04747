"""The loss over fixed rows, which the ranks share out."""

import speechbrain as sb
import torch

from speechbrain_slm.utils.distributed import rank, world_size


@torch.no_grad()
def valid_losses(brain, valid_sets: dict) -> dict:
    """Validate on each set; every rank must call it.

    Arguments
    ---------
    brain : speechbrain_slm.brains.update.UpdateBrain
        Its modules are in training mode, before and after.
    valid_sets : Name -> rows, int64 ``[N, row_length]``.

    Returns
    -------
    Name -> mean loss over the scored positions of all rows.
    """
    brain.modules.eval()
    losses = {name: _mean(brain, rows) for name, rows in valid_sets.items()}
    brain.modules.train()
    return losses


def _mean(brain, rows):
    mine = rows[rank() :: world_size()]
    ranks = world_size() * brain.grad_accumulation_factor
    size = brain.plan.rows_per_step // ranks
    total = torch.zeros(2, device=brain.device, dtype=torch.float64)
    # The same number of passes on every rank, since a wrapped module may
    # synchronise in them: a rank without rows takes one that counts 0.
    for begin in range(0, -(-len(rows) // world_size()), size):
        part = mine[begin : begin + size]
        batch = brain.collate(part if len(part) else rows[:1])
        count = brain.scored(batch) if len(part) else 0
        batch = brain.to_device(batch)
        with brain.evaluation_ctx:
            outputs = brain.compute_forward(batch, sb.Stage.VALID)
            loss = brain.compute_objectives(outputs, batch, sb.Stage.VALID)
        total[0] += loss.double() * count
        total[1] += count
    sb.utils.distributed.ddp_all_reduce(total, torch.distributed.ReduceOp.SUM)
    return (total[0] / total[1]).item()
