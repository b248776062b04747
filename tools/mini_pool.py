"""Commands of jobs, several jobs at a time, each with a log of its own."""

import shlex
import shutil
import subprocess
import time
from collections import deque
from pathlib import Path

from mini_jobs import ROOT, Job

POLL = 0.2  # seconds
LINES = 12  # of a log, that say why a job has failed
# What a child gets to end after SIGTERM, before this process is ended, too.
PATIENCE = 2.0  # seconds


class Pool:
    """Runs the commands of jobs, several jobs at a time.

    Arguments
    ---------
    workers : How many.
    logs : Gets a log a job, to which a rerun appends.
    """

    def __init__(self, workers: int, logs: Path) -> None:
        self.workers, self.logs = workers, logs
        self.failed: list[str] = []
        self._running: dict[str, subprocess.Popen] = {}
        self._left: dict[str, deque[list[str]]] = {}
        self._began: dict[str, float] = {}
        # Of what has been finished: seconds of work, tokens.
        self._seconds = self._tokens = 0.0

    def run(self, jobs: dict[Job, list[list[str]]]) -> None:
        """Run job -> its commands to the end; ``failed`` names those that are.

        The jobs of one model follow each other.
        """
        waiting, total, done = list(jobs), len(jobs), 0
        running: list[Job] = []
        try:
            while waiting or running:
                busy = {job.model for job in running}
                for job in list(waiting):
                    if len(running) < self.workers and job.model not in busy:
                        waiting.remove(job)
                        running.append(job)
                        busy.add(job.model)
                        self._left[job.name] = deque(jobs[job])
                        self._began[job.name] = time.monotonic()
                        self._next(job.name)
                time.sleep(POLL)
                for job in list(running):
                    if self._ended(job):
                        running.remove(job)
                        done += 1
                        self._tell(job, done, total, [*waiting, *running])
        finally:
            self._stop()

    def _next(self, name):
        command = self._left[name].popleft()
        path = self.logs / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as log:
            log.write(f"\n+ {shlex.join(command)}\n".encode())
            log.flush()
            self._running[name] = subprocess.Popen(
                with_me(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )

    def _ended(self, job):
        """Start a job's next command, or tell that there is none."""
        code = self._running[job.name].poll()
        if code is None:
            return False
        del self._running[job.name]
        if code == 0 and self._left[job.name]:
            self._next(job.name)
            return False
        if code:
            self.failed.append(job.name)
        return True

    def _tell(self, job, done, total, left):
        seconds = time.monotonic() - self._began[job.name]
        line = f"[{done} of {total}] {job.name}: "
        if job.name in self.failed:
            path = self.logs / f"{job.name}.log"
            lines = path.read_text("utf-8", "replace").splitlines()[-LINES:]
            told = "\n".join(f"    {one}" for one in lines)
            print(
                f"{line}failed; the last lines of {path}:\n{told}", flush=True
            )
            return
        self._seconds += seconds
        self._tokens += job.tokens
        line += f"{seconds:.0f} s"
        if left and self._tokens:
            tokens = sum(one.tokens for one in left)
            rest = self._seconds / self._tokens * tokens / self.workers
            line += f"; about {rest / 60:.0f} min left"
        print(line, flush=True)

    def _stop(self):
        for process in self._running.values():
            process.terminate()
        end = time.monotonic() + PATIENCE
        for process in self._running.values():
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def with_me(command: list[str]) -> list[str]:
    """Let a command end with this process, whatever ends that."""
    tool = shutil.which("setpriv")
    return [tool, "--pdeathsig", "KILL", *command] if tool else command
