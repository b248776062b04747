"""One optimizer step, made of micro-batches on any number of ranks."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.data_utils import recursive_to
from torch.distributed.tensor import DTensor

from speechbrain_slm.brains.compilation import compile_layers
from speechbrain_slm.brains.options import LearningRate
from speechbrain_slm.brains.parallel import (
    clip_gradients,
    shard,
    sum_over_ranks,
)
from speechbrain_slm.utils.distributed import rank, world_size

if TYPE_CHECKING:
    from speechbrain_slm.dataio.plan import TokenPlan

Batch = Any  # What collate returns and compute_forward takes.
TRAIN = sb.Stage.TRAIN


class UpdateBrain(sb.Brain):
    """Train on the rows of one step of ``self.plan``.

    Micro-batches and ranks weigh by their scored positions: the loss of a
    step is the mean over those of the global batch, however it is divided.
    """

    plan: "TokenPlan"
    learning_rate: LearningRate

    def collate(self, rows: np.ndarray) -> Batch:
        """Make a batch on the CPU of rows ``[B, T]``; in a thread, ahead."""
        return torch.from_numpy(rows)

    def scored(self, batch: Batch) -> int:
        """Count the positions whose mean loss ``compute_objectives`` takes."""
        return batch.numel()

    def filled(self, rows: np.ndarray, number: int) -> np.ndarray:
        """Add rows that score nothing, up to a number; for subclasses."""
        return rows

    def prepare(self, step: int) -> list[tuple[Batch, int]]:
        """Build this rank's micro-batches of a step, and count the scored."""
        rows = self.plan.rows(step, rank(), world_size())
        parts = np.split(rows, self.grad_accumulation_factor)
        batches = [self.collate(part) for part in parts]
        counts = [self.scored(batch) for batch in batches]
        if self.device_type == "cuda":
            batches = [_pinned(batch) for batch in batches]
        return list(zip(batches, counts, strict=True))

    def fit_step(self, parts: list[tuple[Batch, int]]) -> None:
        """Run one optimizer step over what :meth:`prepare` returned."""
        self.begin_step()
        total = self.accumulate(parts, self.objective)
        self.optimizers_step(total)
        self._loss += total
        self._steps += 1

    def begin_step(self) -> None:
        """Set what is a function of the step: random numbers, learning rate."""
        step = self.optimizer_step
        # Dropout, too, is a function of (seed, step, rank): a run that
        # resumes has no state of a generator to restore.
        key = [self.hparams.seed, step, rank()]
        torch.manual_seed(np.random.SeedSequence(key).generate_state(1)[0])
        for optimizer in self.optimizers_dict.values():
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate.at(step)

    def objective(self, batch: Batch) -> torch.Tensor:
        """Return the loss of a micro-batch to train on."""
        outputs = self.compute_forward(batch, TRAIN)
        return self.compute_objectives(outputs, batch, TRAIN)

    def accumulate(
        self, parts: list[tuple[Batch, int]], objective: Callable
    ) -> torch.Tensor:
        """Add up the gradients of all parts, and return their mean loss."""
        share = self._share_of(sum(count for _, count in parts))
        # Added up on the device: reading a loss makes the host wait for it,
        # so that is done once a step.
        total = torch.zeros((), device=self.device)
        for number, (batch, count) in enumerate(parts, 1):
            batch = recursive_to(batch, self.device, non_blocking=True)
            # Ranks exchange gradients once a step, in its last part.
            with self.no_sync(number < len(parts)):
                with self.training_ctx:
                    loss = objective(batch)
                loss = loss * (count * share)
                self.scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def _share_of(self, count: int) -> float | torch.Tensor:
        """Return what a scored position, of ``count`` here, weighs."""
        if world_size() == 1:
            return 1 / max(1, count)
        # Times the ranks, since their gradients are averaged.
        total = torch.tensor(float(count), device=self.device)
        return world_size() / sum_over_ranks(total).clamp(min=1)

    def optimizers_step(self, loss: torch.Tensor) -> None:
        """Clip and update, or stop on all ranks with the weights untouched.

        FloatingPointError if any rank's loss or gradient norm is not finite.
        """
        self._norm = self.update(self.optimizer, loss)
        self.optimizer_step += 1

    def update(
        self, optimizer: torch.optim.Optimizer, loss: torch.Tensor
    ) -> torch.Tensor:
        """Clip and update by one optimizer; return the gradient's norm."""
        self.scaler.unscale_(optimizer)
        # SpeechBrain clips the first group alone, and flips the gradients
        # where the limit is negative.
        groups = optimizer.param_groups
        parameters = [p for group in groups for p in group["params"]]
        norm = clip_gradients(parameters, self.max_grad_norm)
        # With a gradient scaler (fp16) an overflow is expected now and then:
        # the scaler skips that update by itself.
        checked = loss if self.scaler.is_enabled() else loss + norm
        # Decided together: a rank that stopped alone would leave the others
        # in their next collective call until its timeout.
        faulty = sum_over_ranks((~torch.isfinite(checked)).float())
        if faulty.item():
            raise FloatingPointError(
                f"Step {self.optimizer_step}: loss {loss.item()}, gradient "
                f"norm {norm.item()} on rank {rank()} ({int(faulty.item())} "
                "rank(s) not finite). The weights are those of the step "
                f"before. {self._advice()}"
            )
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def _advice(self) -> str:
        for name, parameter in self.modules.named_parameters():
            if isinstance(parameter, DTensor):
                parameter = parameter.to_local()
            if not torch.isfinite(parameter).all():
                return (
                    f"Of these, {name} was not finite: look at what the model "
                    "was loaded from, or at the updates before."
                )
        batch = f"plan.rows({self.optimizer_step})"
        return f"Lower the learning rate or look at the batch: {batch}."

    @property
    def sharded(self) -> bool:
        """Whether each rank holds a slice of the weights."""
        return self.distributed_launch and self.hparams.parallel == "fsdp"

    def _compile(self) -> None:
        names = [*(self.compile_module_keys or self.modules)]
        for name in names if self.compile else ():
            if name not in self.modules:
                raise ValueError(
                    f"compile_module_keys names {name!r}; expected names of "
                    f"modules: {', '.join(self.modules)}"
                )
            compile_layers(
                self.modules[name],
                mode=self.compile_mode,
                fullgraph=self.compile_using_fullgraph,
                dynamic=self.compile_using_dynamic_shape_tracing,
            )

    def _wrap_distributed(self) -> None:
        if not self.sharded:
            super()._wrap_distributed()
            return
        for module in self.modules.values():
            shard(module, self.device_type, self.precision)

    @contextlib.contextmanager
    def no_sync(self, use: bool = True) -> Iterator[None]:
        """Keep gradients on their rank while they add up, if ``use``."""
        if self.sharded:
            for module in self.modules.values():
                module.set_requires_gradient_sync(not use)
            yield
        else:
            with super().no_sync(use):
                yield


def _pinned(batch):
    """Put a batch where a GPU can fetch it while the host goes on."""
    if isinstance(batch, Mapping):
        return {name: _pinned(value) for name, value in batch.items()}
    return batch.pin_memory() if torch.is_tensor(batch) else batch
