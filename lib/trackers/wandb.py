"""Weights & Biases: online when a login is found, else files that `wandb sync` sends later; never a prompt."""

from __future__ import annotations

import contextlib
import gc
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from lib.trackers.base import TrackedRun, Tracker, one_line, warn

INIT_TIMEOUT_S = 30  # without an answer from the server by then, the run is written offline
FINISH_TIMEOUT_S = 120  # what is not uploaded by then stays on disk


class WandbTracker(Tracker):
    """Writes `<workspace>/runs/<name>/wandb/`; the folds of a run are a group.

    WANDB_API_KEY, netrc, WANDB_MODE, WANDB_BASE_URL and W&B's settings files act as in any W&B program. A
    resumed offline run is a second folder with the same id; `wandb sync` of the folder above uploads both to one run, in order.
    W&B closes a step's row with the next step or at the end: a killed process loses its last row here.
    """
    package = "wandb"

    def __init__(self, run: TrackedRun):
        import wandb

        super().__init__(run)
        self._wandb, self._name = wandb, run.name
        folder = run.workspace / "runs" / run.group
        known = wandb.setup(wandb.Settings(silent=True)).settings  # silent must come before login and init
        logged_in = wandb.login(prompt=False, verify=False)  # looks, asks nobody, needs no network
        arguments = dict(project=run.project, name=run.name, group=run.group, job_type=run.job_type, config=dict(run.config),
                         id=run.resume_id or None, resume="allow", settings=self._settings(folder))
        if not logged_in and known.mode not in ("disabled", "offline", "dryrun"):
            arguments["mode"] = "offline"
        try:
            self._run = wandb.init(**arguments)
        except wandb.errors.CommError as error:  # a login, but no way to the server: common on cluster nodes
            warn(f"tracker wandb: the server did not take the run ({one_line(error)}); it is written offline")
            self._run = wandb.init(**arguments | {"mode": "offline"})
        if known.mode != "disabled":
            self.id = self._run.id
            # the folder that holds all runs of this name: a fold that was interrupted has more than one
            later = f"offline, `wandb sync {shlex.quote(str(folder / 'wandb'))}` sends it later"
            self.where = f"wandb {self._run.url or later}"

    def _settings(self, folder: Path):
        """Only what we log is recorded: no console, code, git, host, command line or package list."""
        wanted = dict(
            root_dir=str(folder.absolute()), use_dot_wandb=False, symlink=False, silent=True, console="off",
            reinit="create_new", init_timeout=INIT_TIMEOUT_S, finish_timeout=FINISH_TIMEOUT_S,
            save_code=False, disable_code=True, disable_git=True, disable_job_creation=True,
            x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True, x_save_requirements=False,
            program="FoldScan",  # in place of the path of the running script, which goes to the server
            x_transaction_log_flush_interval=2.0,  # a killed run loses what was not flushed; default 15 s
        )
        fields = self._wandb.Settings.model_fields  # x_ settings may go, and unknown ones are refused
        return self._wandb.Settings(**{key: value for key, value in wanted.items() if key in fields})

    def log(self, step, values):
        self._run.log(dict(values), step=step)

    def pictures(self, step, pictures):
        images = {name: self._wandb.Image(pixels, file_type="png") for name, pixels in pictures.items()}
        self._run.log(images, step=step)

    def summary(self, values):
        self._run.summary.update(dict(values))

    def artifact(self, path, name, about):
        """An artifact of the project where we are online. Offline, a file of the run: an artifact that waits for its upload
        would note where it lies on this machine, and could not be sent from another one."""
        if self._run.disabled:
            return
        models = "models" if self._run.offline else "../models"  # beside files/, which W&B uploads of its own
        folder = Path(self._run.dir) / models
        folder.mkdir(parents=True, exist_ok=True)
        note = folder / f"{name}.json"
        note.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        files = [note]
        if path is not None:
            shutil.copyfile(path, folder / name)  # the original may be replaced before it is sent
            files.append(folder / name)
        if self._run.offline:
            for file in files:
                self._run.save(str(file), base_path=self._run.dir, policy="now", glob=False)
            return
        artifact = self._wandb.Artifact(re.sub(r"[^\w.-]", "_", f"{self._name}-{name}", flags=re.ASCII)[:128], type="model",
                                        metadata=dict(about))
        for file in files:
            artifact.add_file(str(file.resolve()), name=file.name, policy="immutable", skip_cache=True)
        self._run.log_artifact(artifact)

    def figures(self, figures):
        self._run.summary.update({f"figures/{name}": self._wandb.Image(str(path)) for name, path in figures.items()})

    def finish(self, failed=False):
        self._run.finish(exit_code=int(failed))

    @staticmethod
    def abandon(error):
        hangs = isinstance(error, TimeoutError)
        if hangs:
            for service in services():
                service.kill()
        if hangs or isinstance(error, ConnectionError) or type(error).__name__ == "HandleAbandonedError":
            # its service process is dead: without this, W&B's exit hook would print a traceback
            with contextlib.suppress(Exception, SystemExit):
                sys.modules["wandb"].teardown()


def services() -> list[subprocess.Popen]:
    """W&B's service processes among those that this one has started. W&B waits at its exit for their end, whether they answer
    or not. They are found by their program's name, since W&B keeps them in private parts."""
    started = [one for one in gc.get_objects() if type(one) is subprocess.Popen]
    return [one for one in started if isinstance(one.args, list) and one.args and Path(one.args[0]).name.startswith("wandb-core")]
