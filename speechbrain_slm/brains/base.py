"""A Brain that counts optimizer steps, stops on NaN, and resumes exactly.

SpeechBrain's Brain iterates epochs of a DataLoader. A language model is
trained for a budget of tokens, so here ``fit`` takes a plan: an object with
``num_steps``, ``first_steps``, ``rows_per_step``, ``row_length``,
``rows(step, rank, world_size)``, ``count(step)`` and ``identity``. The state
of the data, of the learning rate and of the random generators is a function
of the step, which is why a checkpoint holds weights, optimizer and step alone.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.utils.distributed import ddp_broadcast
from tqdm.auto import tqdm

from speechbrain_slm.brains.curves import draw_curves
from speechbrain_slm.brains.monitor import Monitor
from speechbrain_slm.brains.options import check_options, describe_optimizer
from speechbrain_slm.brains.parallel import check_division
from speechbrain_slm.brains.prefetch import Ahead
from speechbrain_slm.brains.progress import TrainLog
from speechbrain_slm.brains.schedule import LearningRate
from speechbrain_slm.brains.update import UpdateBrain
from speechbrain_slm.brains.validation import valid_losses
from speechbrain_slm.utils.distributed import is_main, rank, world_size
from speechbrain_slm.utils.experiment import work_begins
from speechbrain_slm.utils.hashing import difference

logger = logging.getLogger(__name__)


class StepBrain(UpdateBrain):
    """Train by optimizer steps over a plan.

    Subclasses define ``compute_forward`` and ``compute_objectives`` (the mean
    loss of a micro-batch over its scored positions), and, where their batch
    is more than the rows, ``collate`` and ``scored``.

    Of SpeechBrain's run options, ``grad_accumulation_factor`` splits each
    rank's rows into so many micro-batches, ``ckpt_interval_steps`` counts
    optimizer steps, ``max_grad_norm <= 0`` disables clipping, and
    ``eval_precision`` follows ``precision`` unless it is set.

    Arguments
    ---------
    opt_class : Takes parameters, returns an optimizer.
    hparams
        Read here: ``output_folder``, ``seed``, ``learning_rate`` (peak),
        ``warmup`` and ``schedule`` (see :class:`LearningRate`), ``parallel``
        (``ddp`` or ``fsdp``, which matters under ``torchrun`` alone),
        ``log_interval``, ``valid_interval``, ``keep_checkpoints``,
        ``peak_tflops`` (of one device, or None) and ``tensorboard``.
    checkpointer : speechbrain_slm.brains.checkpoints.AtomicCheckpointer
        Optional; without it nothing is saved or resumed.
    """

    def __init__(
        self,
        modules: dict | None = None,
        opt_class: Callable | None = None,
        hparams: dict | None = None,
        run_opts: dict | None = None,
        checkpointer=None,
    ) -> None:
        run_opts, hparams = dict(run_opts or {}), dict(hparams or {})
        check_options(run_opts, hparams)
        super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        self.log = TrainLog(self.hparams.output_folder)

    def fit(
        self,
        train_plan,
        valid_sets: dict | None = None,
        progressbar: bool | None = None,
    ) -> None:
        """Train until the plan's last step.

        Arguments
        ---------
        train_plan : speechbrain_slm.dataio.plan.TokenPlan
            What to train on.
        valid_sets : Name -> rows, int64 ``[N, row_length]``.
        progressbar
            Shown on the main process unless ``--noprogressbar`` is given.

        Raises
        ------
        ValueError
            If the ranks and ``grad_accumulation_factor`` cannot divide the
            global batch, or the checkpoint belongs to another run.
        """
        if self.test_only:
            logger.info("Test only mode: no training.")
            return
        self.plan = train_plan
        check_division(train_plan.rows_per_step, self.grad_accumulation_factor)
        self.num_steps = self._limit(train_plan.num_steps)
        self.learning_rate = LearningRate(
            self.hparams.learning_rate,
            self.hparams.warmup,
            train_plan.first_steps,
            self.hparams.schedule,
        )
        self.on_fit_start()
        work_begins()
        flops = self.flops_per_token()
        if self.hparams.peak_tflops and flops is None:
            logger.warning(
                "The operations a token costs are not known: the log gets no "
                "MFU, though peak_tflops is set"
            )
        self.modules.train()
        self.zero_grad(set_to_none=True)
        self._reset_averages()
        self.monitor = Monitor(
            self.log,
            self.optimizer_step,
            self.num_steps,
            train_plan.row_length * train_plan.rows_per_step,
            self.device_type,
            flops,
            self.hparams.peak_tflops,
        )
        if is_main():
            self.monitor.open(self.hparams.tensorboard)
        show = (
            progressbar if progressbar is not None else not self.noprogressbar
        )
        with (
            Ahead(self.prepare, self.num_steps) as ahead,
            tqdm(
                total=self.num_steps,
                initial=self.optimizer_step,
                # None: on a terminal alone; a log file holds the log's lines.
                disable=None if show and is_main() else True,
                dynamic_ncols=True,
                colour=self.tqdm_barcolor["train"],
            ) as bar,
        ):
            while self.optimizer_step < self.num_steps:
                self.fit_step(ahead.take(self.optimizer_step))
                self.monitor.after_step()
                bar.update()
                self._after_step(valid_sets or {}, ahead)
        # The result first: what only shows it never stands in its way.
        self.on_fit_end()
        if is_main():
            self.monitor.close()
            self._draw_curves()

    def _draw_curves(self):
        path = Path(self.hparams.output_folder) / "curves.png"
        try:
            draw_curves(self.log.entries(), path)
        except Exception as error:
            logger.warning("%s could not be drawn: %s", path, error)

    def flops_per_token(self) -> float | None:
        """Return the operations a token costs; for subclasses.

        Returns
        -------
        Forward and backward; None where it is not known.
        """

    def on_fit_end(self) -> None:
        """Do what follows the last step; for subclasses."""

    def _limit(self, num_steps):
        limits = [num_steps]
        if self.optimizer_step_limit is not None:
            limits.append(int(self.optimizer_step_limit))
        if self.debug:
            limits.append(self.debug_batches)
        return min(limits)

    def identity(self) -> dict:
        """Name what a resumed run must share with the one that was saved.

        Returns
        -------
        Compared field by field; a difference is refused.
        """
        return {
            **self.plan.identity,
            "optimizer": describe_optimizer(self.optimizer),
            "learning_rate": self.hparams.learning_rate,
            "warmup": self.hparams.warmup,
            "schedule": self.hparams.schedule,
            "remove_vector_weight_decay": self.remove_vector_weight_decay,
            "max_grad_norm": self.max_grad_norm,
            "precision": self.precision,
        }

    def on_fit_start(self) -> None:
        """Compile, wrap, make the optimizer, and resume if possible."""
        self._compile()
        self._wrap_distributed()
        self.init_optimizers()
        self._check_ranks()
        checkpoint = None
        if self.checkpointer is not None:
            checkpoint = self.checkpointer.find_checkpoint()
        if checkpoint is not None:
            self._resume(checkpoint)

    def _check_ranks(self):
        """Refuse ranks that would train another run than the main one.

        Each has read the stores and the YAML file for itself, and they may
        have been replaced in between.
        """
        lines = difference(ddp_broadcast(self.identity()), self.identity())
        if lines:
            raise ValueError(
                f"Rank {rank()} would train another run than rank 0 ("
                + "; ".join(lines)
                + "). Was something replaced while they started? Start again."
            )

    def _resume(self, checkpoint):
        lines = difference(checkpoint.meta["identity"], self.identity())
        if lines:
            raise ValueError(
                f"{checkpoint.path} belongs to another run ("
                + "; ".join(lines)
                + "). Set the values back, or choose another output_folder."
            )
        self.checkpointer.load_checkpoint(checkpoint)
        self.checkpointer.give_up_after(checkpoint)
        logger.info(
            "Resumed at step %d of %d", self.optimizer_step, self.num_steps
        )

    def _due(self, interval):
        step = self.optimizer_step
        return step == self.num_steps or (interval > 0 and not step % interval)

    def _after_step(self, valid_sets, ahead):
        saving = self.checkpointer is not None and self._due(
            self.ckpt_interval_steps
        )
        # A line at every checkpoint: the averages of a log line then never
        # reach back over a place where a run may resume.
        if saving or self._due(self.hparams.log_interval):
            self._log_training(ahead)
        if valid_sets and self._due(self.hparams.valid_interval):
            losses = valid_losses(self, valid_sets)
            if is_main():
                self.monitor.write(
                    {"step": self.optimizer_step, "valid": losses}
                )
        if saving:
            step = self.optimizer_step
            self.checkpointer.save_and_keep_only(
                meta={"step": step, "identity": self.identity()},
                name=f"step-{step:08d}",
                num_to_keep=self.hparams.keep_checkpoints,
            )
        self.monitor.skip()

    def _reset_averages(self):
        self._loss = torch.zeros((), device=self.device)
        self._steps = 0

    def _log_training(self, ahead):
        if not self._steps:
            return
        loss = self._loss / self._steps / world_size()
        sb.utils.distributed.ddp_all_reduce(
            loss, torch.distributed.ReduceOp.SUM
        )
        self._reset_averages()
        if is_main():
            step = self.optimizer_step
            entry = {
                "step": step,
                "loss": loss.item(),
                "grad_norm": self._norm.item(),
                "lr": self.optimizer.param_groups[0]["lr"],
                **self.monitor.progress(step),
                "seen": ahead.call(self.plan.count, step),
            }
            self.monitor.write(entry)
