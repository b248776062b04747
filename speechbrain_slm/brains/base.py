"""A Brain that counts optimizer steps, stops on NaN, and resumes exactly.

SpeechBrain's Brain iterates epochs of a DataLoader. A language model is
trained for a budget of tokens, so here ``fit`` takes a plan: an object with
``num_steps``, ``rows(step, rank, world_size)`` and ``identity``. The state of
the data, of the learning rate and of the random generators is a function of
the step, which is why a checkpoint holds weights, optimizer and step alone.
"""

import logging
import time

import numpy as np
import speechbrain as sb
import torch
from speechbrain.nnet.schedulers import LinearWarmupScheduler
from tqdm.auto import tqdm

from speechbrain_slm.brains.options import check_options, describe_optimizer
from speechbrain_slm.brains.progress import TrainLog, format_seconds
from speechbrain_slm.utils.distributed import is_main, rank, world_size
from speechbrain_slm.utils.hashing import difference

logger = logging.getLogger(__name__)


class StepBrain(sb.Brain):
    """Train by optimizer steps over a plan.

    Subclasses define ``compute_forward`` and ``compute_objectives`` (the mean
    loss of a micro-batch; micro-batches of one step must weigh the same).

    Of SpeechBrain's run options, ``grad_accumulation_factor`` splits each
    rank's rows into so many micro-batches, ``ckpt_interval_steps`` counts
    optimizer steps, ``max_grad_norm <= 0`` disables clipping, and
    ``eval_precision`` follows ``precision`` unless it is set.

    Arguments
    ---------
    modules : dict
        Name -> module.
    opt_class : callable
        Takes parameters, returns an optimizer.
    hparams : dict
        Read here: ``output_folder``, ``seed``, ``learning_rate`` (peak),
        ``warmup`` (share of the steps), ``log_interval``, ``valid_interval``
        and ``keep_checkpoints``.
    run_opts : dict
        See SpeechBrain.
    checkpointer : speechbrain_slm.brains.checkpoints.AtomicCheckpointer
        Optional; without it nothing is saved or resumed.
    """

    def __init__(
        self,
        modules=None,
        opt_class=None,
        hparams=None,
        run_opts=None,
        checkpointer=None,
    ):
        run_opts, hparams = dict(run_opts or {}), dict(hparams or {})
        check_options(run_opts, hparams)
        super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        self.log = TrainLog(self.hparams.output_folder)

    def fit(self, train_plan, valid_sets=None, progressbar=None):
        """Train until the plan's last step.

        Arguments
        ---------
        train_plan : speechbrain_slm.dataio.plan.TokenPlan
            What to train on.
        valid_sets : dict, optional
            Name -> rows, int64 ``[N, row_length]``.
        progressbar : bool, optional
            Shown on the main process unless ``--noprogressbar`` is given.
        """
        if self.test_only:
            logger.info("Test only mode: no training.")
            return
        self.plan = train_plan
        self.num_steps = self._limit(train_plan.num_steps)
        self.lr_schedule = LinearWarmupScheduler(
            self.hparams.learning_rate,
            round(self.hparams.warmup * train_plan.num_steps),
            # The last step still trains: zero comes one step later.
            train_plan.num_steps + 1,
        )
        self.on_fit_start()
        self.modules.train()
        self.zero_grad(set_to_none=True)
        self._start = (time.time(), self.optimizer_step)
        self._reset_averages()
        show = (
            progressbar if progressbar is not None else not self.noprogressbar
        )
        with tqdm(
            total=self.num_steps,
            initial=self.optimizer_step,
            # None: on a terminal alone; a log file holds the log's lines.
            disable=None if show and is_main() else True,
            dynamic_ncols=True,
            colour=self.tqdm_barcolor["train"],
        ) as bar:
            while self.optimizer_step < self.num_steps:
                self.fit_step()
                bar.update()
                self._after_step(valid_sets or {})
        self.on_fit_end()

    def on_fit_end(self):
        """Do what follows the last step; for subclasses."""

    def _limit(self, num_steps):
        limits = [num_steps]
        if self.optimizer_step_limit is not None:
            limits.append(int(self.optimizer_step_limit))
        if self.debug:
            limits.append(self.debug_batches)
        return min(limits)

    def identity(self):
        """Name what a resumed run must share with the one that was saved.

        Returns
        -------
        dict
            Compared field by field; a difference is refused.
        """
        return {
            **self.plan.identity,
            "optimizer": describe_optimizer(self.optimizer),
            "learning_rate": self.hparams.learning_rate,
            "warmup": self.hparams.warmup,
            "max_grad_norm": self.max_grad_norm,
            "precision": self.precision,
        }

    def on_fit_start(self):
        """Compile, wrap, make the optimizer, and resume if possible."""
        self._compile()
        self._wrap_distributed()
        self.init_optimizers()
        checkpoint = None
        if self.checkpointer is not None:
            checkpoint = self.checkpointer.find_checkpoint()
        if checkpoint is not None:
            self._resume(checkpoint)
        if is_main():
            self.log.rewind(self.optimizer_step)

    def _resume(self, checkpoint):
        lines = difference(checkpoint.meta["identity"], self.identity())
        if lines:
            raise ValueError(
                f"{checkpoint.path} belongs to another run ("
                + "; ".join(lines)
                + "). Set the values back, or choose another output_folder."
            )
        self.checkpointer.load_checkpoint(checkpoint)
        logger.info(
            "Resumed at step %d of %d", self.optimizer_step, self.num_steps
        )

    def fit_step(self):
        """Run one optimizer step over this rank's rows."""
        step = self.optimizer_step
        # Dropout, too, is a function of (seed, step, rank).
        key = [self.hparams.seed, step, rank()]
        torch.manual_seed(np.random.SeedSequence(key).generate_state(1)[0])
        rate = self.lr_schedule.calculate_lr(step + 1)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        rows = self.plan.rows(step, rank(), world_size())
        parts = self._micro_batches(rows)
        loss = torch.zeros((), device=self.device)
        for number, part in enumerate(parts):
            batch = torch.from_numpy(part).to(self.device, non_blocking=True)
            loss += self.fit_batch(batch, number + 1 == len(parts))
        self.optimizers_step(loss)
        self._loss += loss
        self._steps += 1

    def _micro_batches(self, rows):
        factor = self.grad_accumulation_factor
        if len(rows) % factor:
            raise ValueError(
                f"grad_accumulation_factor is {factor}, which does not divide "
                f"the {len(rows)} rows of a rank; change one of them"
            )
        return rows.reshape(factor, -1, rows.shape[-1])

    def fit_batch(self, batch, should_step=True):
        """Add the gradients of one micro-batch.

        Arguments
        ---------
        batch : torch.Tensor
            Rows of tokens, ``[B, T]``.
        should_step : bool
            True for the last micro-batch of a step, where ranks synchronise.

        Returns
        -------
        torch.Tensor
            This micro-batch's share of the step's loss, on the device.
        """
        with self.no_sync(not should_step):
            with self.training_ctx:
                outputs = self.compute_forward(batch, sb.Stage.TRAIN)
                loss = self.compute_objectives(outputs, batch, sb.Stage.TRAIN)
            loss = loss / self.grad_accumulation_factor
            self.scaler.scale(loss).backward()
        return loss.detach()

    def optimizers_step(self, loss):
        """Clip and update, or stop on all ranks with the weights untouched.

        Arguments
        ---------
        loss : torch.Tensor
            This rank's loss of the step.

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
        limit = self.max_grad_norm if self.max_grad_norm > 0 else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
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
                "before. Lower the learning rate or look at the batch: "
                f"plan.rows({self.optimizer_step})."
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1
        self._norm = norm

    def _due(self, interval):
        step = self.optimizer_step
        return step == self.num_steps or (interval > 0 and not step % interval)

    def _after_step(self, valid_sets):
        saving = self.checkpointer is not None and self._due(
            self.ckpt_interval_steps
        )
        # A line at every checkpoint: the averages of a log line then never
        # reach back over a place where a run may resume.
        if saving or self._due(self.hparams.log_interval):
            self._log_training()
        if valid_sets and self._due(self.hparams.valid_interval):
            self._validate(valid_sets)
        if saving:
            step = self.optimizer_step
            self.checkpointer.save_and_keep_only(
                meta={"step": step, "identity": self.identity()},
                name=f"step-{step:08d}",
                num_to_keep=self.hparams.keep_checkpoints,
            )

    def _reset_averages(self):
        self._loss = torch.zeros((), device=self.device)
        self._steps = 0

    def _log_training(self):
        if not self._steps:
            return
        loss = self._loss / self._steps / world_size()
        sb.utils.distributed.ddp_all_reduce(
            loss, torch.distributed.ReduceOp.SUM
        )
        (began, first), step = self._start, self.optimizer_step
        step_tokens = self.plan.row_length * self.plan.rows_per_step
        speed = (step - first) * step_tokens / (time.time() - began)
        entry = {
            "step": step,
            "loss": loss.item(),
            "grad_norm": self._norm.item(),
            "lr": self.optimizer.param_groups[0]["lr"],
            "tokens": step * step_tokens,
            "tokens_per_second": round(speed, 1),
            "eta": format_seconds(
                (self.num_steps - step) * step_tokens / speed
            ),
        }
        if self.device_type == "cuda":
            entry["memory_GB"] = torch.cuda.max_memory_allocated() / 2**30
        self._reset_averages()
        if is_main():
            self.log.write(entry)

    @torch.no_grad()
    def _validate(self, valid_sets):
        self.modules.eval()
        losses = {
            name: self._valid_loss(rows) for name, rows in valid_sets.items()
        }
        self.modules.train()
        if is_main():
            self.log.write({"step": self.optimizer_step, "valid": losses})

    def _valid_loss(self, rows):
        """Mean loss over fixed rows, which the ranks share out."""
        mine = rows[rank() :: world_size()]
        ranks = world_size() * self.grad_accumulation_factor
        size = max(1, self.plan.rows_per_step // ranks)
        total = torch.zeros(2, device=self.device, dtype=torch.float64)
        # The same number of passes on every rank, since a wrapped module may
        # synchronise in them: a rank without rows takes one that counts 0.
        for begin in range(0, -(-len(rows) // world_size()), size):
            part = mine[begin : begin + size]
            batch = torch.from_numpy(part if len(part) else rows[:1])
            batch = batch.to(self.device)
            with self.evaluation_ctx:
                outputs = self.compute_forward(batch, sb.Stage.VALID)
                loss = self.compute_objectives(outputs, batch, sb.Stage.VALID)
            total[0] += loss.double() * len(part)
            total[1] += len(part)
        sb.utils.distributed.ddp_all_reduce(
            total, torch.distributed.ReduceOp.SUM
        )
        return (total[0] / total[1]).item()
