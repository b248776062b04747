"""A Brain that counts optimizer steps, stops on NaN, and resumes exactly.

SpeechBrain's Brain iterates epochs of a DataLoader. A language model is
trained for a budget of tokens, so here ``fit`` takes a token plan (of it:
``num_steps``, ``first_steps``, ``rows_per_step``, ``row_length``, ``rows``,
``count`` and ``identity``). The state of the data, of the learning rate and of
the random generators is a function of the step, which is why a checkpoint
holds weights, optimizer and step alone.
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.data_utils import recursive_to
from speechbrain.utils.distributed import ddp_broadcast
from tqdm.auto import tqdm

from speechbrain_slm.brains.checkpoints import AtomicCheckpointer
from speechbrain_slm.brains.compilation import explained
from speechbrain_slm.brains.options import (
    LearningRate,
    check_division,
    check_options,
    describe_optimizer,
    fewest_parts,
)
from speechbrain_slm.brains.parallel import sum_over_ranks
from speechbrain_slm.brains.progress import Monitor, TrainLog, draw_curves
from speechbrain_slm.brains.update import UpdateBrain
from speechbrain_slm.utils import heartbeat
from speechbrain_slm.utils.distributed import is_main, rank, world_size
from speechbrain_slm.utils.experiment import work_begins
from speechbrain_slm.utils.hashing import difference

if TYPE_CHECKING:
    from speechbrain_slm.dataio.plan import TokenPlan

logger = logging.getLogger(__name__)


class StepBrain(UpdateBrain):
    """Train by optimizer steps over a plan.

    Subclasses define ``compute_forward`` and ``compute_objectives`` (the mean
    loss of a micro-batch over its scored positions), and, where their batch
    is more than the rows, ``collate`` and ``scored``.

    Of SpeechBrain's run options, ``grad_accumulation_factor`` splits each
    rank's rows into so many micro-batches (without it ``micro_batch_rows``, of
    the YAML file, says how many rows one has at most), ``ckpt_interval_steps``
    counts optimizer steps, ``max_grad_norm <= 0`` disables clipping, and
    ``eval_precision`` follows ``precision`` unless it is set.

    Arguments
    ---------
    hparams
        Read here: ``output_folder``, ``seed``, ``learning_rate`` (peak),
        ``warmup`` and ``schedule`` (see :class:`LearningRate`), ``parallel``
        (``ddp`` or ``fsdp``, which matters under ``torchrun`` alone),
        ``log_interval``, ``valid_interval``, ``keep_checkpoints``,
        ``peak_tflops`` (of one device, or None), ``tensorboard`` and, where
        there is one, ``train_logger`` (see ``loggers.TrainLoggerBoard``).
    checkpointer : Without it nothing is saved or resumed.
    """

    def __init__(
        self,
        modules: dict | None = None,
        opt_class: Callable | None = None,
        hparams: dict | None = None,
        run_opts: dict | None = None,
        checkpointer: AtomicCheckpointer | None = None,
    ) -> None:
        run_opts, hparams = dict(run_opts or {}), dict(hparams or {})
        check_options(run_opts, hparams)
        super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        self.log = TrainLog(self.hparams.output_folder)

    def flops_per_token(self) -> float | None:
        """Return what a token costs, forward and backward; for subclasses."""

    def on_fit_end(self) -> None:
        """Do what follows the last step; for subclasses."""

    def on_step(self) -> None:
        """Follow an optimizer step, before its checkpoint; for subclasses.

        A run that was killed in between makes the step again.
        """

    def log_more(self) -> dict[str, float]:
        """Return more for a log line, of the steps since the last one."""
        return {}

    def on_validation(self, valid_sets: dict[str, np.ndarray]) -> None:
        """Show more than losses, on every rank; for subclasses."""

    def identity(self) -> dict:
        """Name what a resumed run must share with the one that was saved."""
        values = ("learning_rate", "warmup", "schedule")
        options = ("remove_vector_weight_decay", "max_grad_norm", "precision")
        return {
            **self.plan.identity,
            "optimizer": describe_optimizer(self.optimizer),
            **{name: getattr(self.hparams, name) for name in values},
            **{name: getattr(self, name) for name in options},
        }

    def fit(
        self,
        train_plan: "TokenPlan",
        valid_sets: dict[str, np.ndarray] | None = None,
    ) -> None:
        """Train until the token plan's last step.

        ``valid_sets``: name -> rows, int64 ``[N, row_length]``. ValueError if
        the ranks and ``grad_accumulation_factor`` cannot divide the global
        batch, or the checkpoint belongs to another run.
        """
        if self.test_only:
            logger.info("Test only mode: no training.")
            return
        self.plan, hparams = train_plan, self.hparams
        rows = train_plan.rows_per_step // world_size()
        if micro := getattr(hparams, "micro_batch_rows", None):
            self.grad_accumulation_factor = fewest_parts(rows, micro)
        factor = self.grad_accumulation_factor
        check_division(train_plan.rows_per_step, world_size(), factor)
        limits = [train_plan.num_steps, self.optimizer_step_limit]
        limits += [self.debug_batches] if self.debug else []
        self.num_steps = min(int(n) for n in limits if n is not None)
        self.learning_rate = LearningRate(
            hparams.learning_rate,
            hparams.warmup,
            train_plan.first_steps,
            hparams.schedule,
        )
        self.on_fit_start()
        work_begins()
        self.modules.train()
        self.zero_grad(set_to_none=True)
        self._reset_averages()
        self.monitor = Monitor(
            self.log,
            self.optimizer_step,
            self.num_steps,
            train_plan.row_length * train_plan.rows_per_step,
            self.device_type,
            self.flops_per_token(),
            hparams.peak_tflops,
        )
        if is_main():
            shown = getattr(hparams, "train_logger", None)
            self.monitor.open(hparams.tensorboard, shown)
        with explained(rows, train_plan.row_length, factor):
            self._train(valid_sets or {})
        # The result first: what only shows it never stands in its way.
        self.on_fit_end()
        if is_main():
            self.monitor.close()
            path = Path(hparams.output_folder) / "curves.png"
            try:
                draw_curves(self.log.entries(), path)
            except Exception as error:
                logger.warning("%s could not be drawn: %s", path, error)

    def on_fit_start(self) -> None:
        """Compile, wrap, make the optimizer, and resume if possible."""
        self._compile()
        self._wrap_distributed()
        self.init_optimizers()
        # Each rank has read the stores and the YAML file for itself, and they
        # may have been replaced in between.
        mine = self.identity()
        if lines := "; ".join(difference(ddp_broadcast(mine), mine)):
            raise ValueError(
                f"Rank {rank()} would train another run than rank 0 ({lines}). "
                "Was something replaced while they started? Start again."
            )
        checkpointer = self.checkpointer
        found = checkpointer.find_checkpoint() if checkpointer else None
        if found is None:
            return
        if lines := "; ".join(difference(found.meta["identity"], mine)):
            raise ValueError(
                f"{found.path} belongs to another run ({lines}). Set the "
                "values back, or choose another output_folder."
            )
        checkpointer.load_checkpoint(found)
        checkpointer.give_up_after(found)
        logger.info(
            "Resumed at step %d of %d", self.optimizer_step, self.num_steps
        )

    def _train(self, valid_sets: dict) -> None:
        heartbeat.tell(
            lambda: f"after step {self.optimizer_step} of {self.num_steps}"
        )
        show = is_main() and not self.noprogressbar
        with (
            # Rows are ready in a fraction of a step, and NumPy and torch leave
            # the interpreter to others meanwhile: one thread, one step ahead.
            ThreadPoolExecutor(1, "prepare-batches") as pool,
            tqdm(
                total=self.num_steps,
                initial=self.optimizer_step,
                # None: on a terminal alone; a log file holds the log's lines.
                disable=None if show else True,
                dynamic_ncols=True,
                colour=self.tqdm_barcolor["train"],
            ) as bar,
        ):
            ahead = None
            while (step := self.optimizer_step) < self.num_steps:
                ready = (ahead or pool.submit(self.prepare, step)).result()
                if step + 1 < self.num_steps:
                    ahead = pool.submit(self.prepare, step + 1)
                self.fit_step(ready)
                self.monitor.after_step()
                bar.update()
                self._after_step(valid_sets)

    def _due(self, interval: int) -> bool:
        step = self.optimizer_step
        return step == self.num_steps or (interval > 0 and not step % interval)

    def _after_step(self, valid_sets: dict) -> None:
        step, checkpointer = self.optimizer_step, self.checkpointer
        saving = checkpointer is not None and self._due(
            self.ckpt_interval_steps
        )
        # A line at every checkpoint: the averages of a log line then never
        # reach back over a place where a run may resume.
        if saving or self._due(self.hparams.log_interval):
            self._log_training()
        if valid_sets and self._due(self.hparams.valid_interval):
            losses = self.valid_losses(valid_sets)
            if is_main():
                self.monitor.write({"step": step, "valid": losses})
            self.on_validation(valid_sets)
        self.on_step()
        if saving:
            # Every rank: each holds a slice, and the call waits for all.
            checkpointer.save_and_keep_only(
                meta={"step": step, "identity": self.identity()},
                name=f"step-{step:08d}",
                num_to_keep=self.hparams.keep_checkpoints,
            )
        self.monitor.skip()

    def _reset_averages(self) -> None:
        self._loss = torch.zeros((), device=self.device)
        self._steps = 0

    def _log_training(self) -> None:
        if not self._steps:
            return
        loss = sum_over_ranks(self._loss / self._steps / world_size())
        more = self.log_more()
        self._reset_averages()
        if is_main():
            entry = {
                "step": self.optimizer_step,
                "loss": loss.item(),
                **more,
                "grad_norm": self._norm.item(),
                "lr": self.optimizer.param_groups[0]["lr"],
                **self.monitor.progress(self.optimizer_step),
                "seen": self.plan.count(self.optimizer_step),
            }
            self.monitor.write(entry)

    @torch.no_grad()
    def valid_losses(
        self, valid_sets: dict[str, np.ndarray]
    ) -> dict[str, float]:
        """Return each set's mean loss over the scored positions of its rows.

        Every rank must call it, with modules in training mode, as after it.
        """
        self.modules.eval()
        losses = {name: self._mean(rows) for name, rows in valid_sets.items()}
        self.modules.train()
        return losses

    def _mean(self, rows: np.ndarray) -> float:
        mine = rows[rank() :: world_size()]
        ranks = world_size() * self.grad_accumulation_factor
        size = self.plan.rows_per_step // ranks
        total = torch.zeros(2, device=self.device, dtype=torch.float64)
        # The same number of passes on every rank, since a wrapped module may
        # synchronise in them: a rank without rows takes one that counts 0.
        for begin in range(0, -(-len(rows) // world_size()), size):
            part = mine[begin : begin + size]
            some = part if len(part) else rows[:1]
            # A graph is compiled for one shape.
            some = self.filled(some, size) if self.compile else some
            batch = self.collate(some)
            count = self.scored(batch) if len(part) else 0
            batch = recursive_to(batch, self.device)
            with self.evaluation_ctx:
                outputs = self.compute_forward(batch, sb.Stage.VALID)
                loss = self.compute_objectives(outputs, batch, sb.Stage.VALID)
            total[0] += loss.double() * count
            total[1] += count
        loss, count = sum_over_ranks(total)
        return (loss / count).item()
