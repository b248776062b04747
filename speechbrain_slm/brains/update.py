"""One optimizer step, made of micro-batches on any number of ranks."""

from collections.abc import Mapping

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.data_utils import recursive_to
from torch.distributed.tensor import DTensor

from speechbrain_slm.brains.parallel import ParallelBrain, clip_gradients
from speechbrain_slm.utils.distributed import rank, world_size


class UpdateBrain(ParallelBrain):
    """Train on the rows of one step of ``self.plan``.

    Micro-batches and ranks weigh by their scored positions: the loss of a
    step is the mean over those of the global batch, however it is divided.
    """

    def collate(self, rows: np.ndarray) -> torch.Tensor | dict:
        """Make a batch of rows; runs in a thread, one step ahead.

        Arguments
        ---------
        rows : Of the plan, int64 ``[B, T]``.

        Returns
        -------
        What ``compute_forward`` takes, still on the CPU.
        """
        return torch.from_numpy(rows)

    def scored(self, batch: torch.Tensor | dict) -> int:
        """Count the positions whose mean loss ``compute_objectives`` takes.

        Arguments
        ---------
        batch : What ``collate`` returned.

        """
        return batch.numel()

    def prepare(self, step: int) -> list[tuple]:
        """Build this rank's micro-batches of a step.

        Returns
        -------
        Each batch, and how many of its positions are scored.
        """
        rows = self.plan.rows(step, rank(), world_size())
        parts = []
        for part in np.split(rows, self.grad_accumulation_factor):
            batch = self.collate(part)
            count = self.scored(batch)
            if self.device_type == "cuda":
                batch = _pinned(batch)
            parts.append((batch, count))
        return parts

    def to_device(self, batch: torch.Tensor | dict) -> torch.Tensor | dict:
        """Move a batch to this rank's device.

        Arguments
        ---------
        batch : What ``collate`` returned.

        """
        return recursive_to(batch, self.device, non_blocking=True)

    def fit_step(self, parts: list[tuple]) -> None:
        """Run one optimizer step over this rank's rows.

        Arguments
        ---------
        parts : Micro-batches, and how many positions of each are scored.
        """
        step = self.optimizer_step
        # Dropout, too, is a function of (seed, step, rank).
        key = [self.hparams.seed, step, rank()]
        torch.manual_seed(np.random.SeedSequence(key).generate_state(1)[0])
        rate = self.learning_rate.at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        share = self.share_of(sum(count for _, count in parts))
        loss = torch.zeros((), device=self.device)
        for number, (batch, count) in enumerate(parts):
            batch = self.to_device(batch)
            last = number + 1 == len(parts)
            loss += self.fit_batch(batch, count * share, last)
        self.optimizers_step(loss)
        self._loss += loss
        self._steps += 1

    def fit_batch(
        self,
        batch: torch.Tensor | dict,
        weight: float | torch.Tensor = 1.0,
        should_step: bool = True,
    ) -> torch.Tensor:
        """Add the gradients of one micro-batch.

        Arguments
        ---------
        weight : Its share of the step's loss.
        should_step
            True for the last micro-batch of a step, where ranks synchronise.

        Returns
        -------
        The weighted loss, on the device.
        """
        with self.no_sync(not should_step):
            with self.training_ctx:
                outputs = self.compute_forward(batch, sb.Stage.TRAIN)
                loss = self.compute_objectives(outputs, batch, sb.Stage.TRAIN)
            loss = loss * weight
            self.scaler.scale(loss).backward()
        return loss.detach()

    def optimizers_step(self, loss: torch.Tensor) -> None:
        """Clip and update, or stop on all ranks with the weights untouched.

        Arguments
        ---------
        loss : This rank's loss of the step.

        Raises
        ------
        FloatingPointError
            If the loss or the gradient norm of any rank is not finite.
        """
        self.scaler.unscale_(self.optimizer)
        parameters = [
            parameter
            for group in self.optimizer.param_groups
            for parameter in group["params"]
        ]
        norm = clip_gradients(parameters, self.max_grad_norm)
        # With a gradient scaler (fp16) an overflow is expected now and then:
        # the scaler skips that update by itself.
        checked = loss if self.scaler.is_enabled() else loss + norm
        faulty = (~torch.isfinite(checked)).float()
        sb.utils.distributed.ddp_all_reduce(
            faulty, torch.distributed.ReduceOp.SUM
        )
        if faulty.item():
            raise FloatingPointError(
                f"Step {self.optimizer_step}: loss {loss.item()}, gradient "
                f"norm {norm.item()} on rank {rank()} ({int(faulty.item())} "
                "rank(s) not finite). The weights are those of the step "
                f"before. {self._advice()}"
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1
        self._norm = norm

    def _advice(self):
        """Say where to look when a step is not finite."""
        for name, parameter in self.modules.named_parameters():
            if isinstance(parameter, DTensor):
                parameter = parameter.to_local()
            if not torch.isfinite(parameter).all():
                return (
                    f"Of these, {name} was not finite: look at what the model "
                    "was loaded from, or at the updates before."
                )
        return (
            "Lower the learning rate or look at the batch: "
            f"plan.rows({self.optimizer_step})."
        )


def _pinned(batch):
    """Put a batch where a GPU can fetch it while the host goes on."""
    if isinstance(batch, Mapping):
        return {name: _pinned(value) for name, value in batch.items()}
    return batch.pin_memory() if torch.is_tensor(batch) else batch
