"""MLflow: a SQLite file in the workspace, or the server of MLFLOW_TRACKING_URI; folds are runs nested under their parent."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import shlex
import sqlite3
import time
from pathlib import Path
from typing import Iterator

from lib.trackers.base import TrackedRun, Tracker, flat

# A server that is away should cost seconds, once; each is MLflow's own variable, and stays as the user has set it.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": 1, "MLFLOW_HTTP_REQUEST_TIMEOUT": 10, "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": 1}
LOCK_TIMEOUT_S = 60  # folds that train at once write one after the other


class MlflowTracker(Tracker):
    """Parameters, metrics, pictures and files of a run, through MLflow's client.

    The client, and not `mlflow.start_run`: that one records the user, the script's path and the git commit. Writers of the
    SQLite file take turns by a lock beside it, since SQLite lets a second writer fail rather than wait.
    """
    package = "mlflow"
    nests = True

    def __init__(self, run: TrackedRun):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read once, while mlflow is imported: no other way in
        import mlflow

        super().__init__(run)
        logging.getLogger("mlflow").setLevel(logging.CRITICAL + 1)  # what goes wrong is one line of ours
        for name, value in PATIENCE.items():
            variable = getattr(mlflow.environment_variables, name)
            if not variable.is_set():
                variable.set(value)
        self._mlflow, self._lock = mlflow, None
        if mlflow.is_tracking_uri_set():
            uri, location, look = mlflow.get_tracking_uri(), None, ""
        else:
            folder = run.workspace.absolute() / "mlflow"
            if {"?", "%"} & set(str(folder)):  # MLflow would write elsewhere
                raise ValueError(f"MLflow takes no folder with ? or % in its path ({folder})")
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = folder / ".lock"
            uri, location = f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts")
            look = "MLFLOW_DISABLE_TELEMETRY=true mlflow ui --backend-store-uri " + shlex.quote(
                f"sqlite:///{run.workspace / 'mlflow' / 'mlflow.db'}")
            with self._alone():
                prepare(folder / "mlflow.db", location)
        self._client = mlflow.MlflowClient(uri)
        with self._alone():
            experiment = self._experiment(run.project, location)
            self.id = self._earlier(run.resume_id, experiment) or self._new(run, experiment)
        self.where = look or f"mlflow {uri.rstrip('/')}/#/experiments/{experiment}/runs/{self.id}"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else of us writes to the SQLite file meanwhile. Raises TimeoutError."""
        if self._lock is None:
            yield
            return
        with self._lock.open("w") as file:
            end = time.monotonic() + LOCK_TIMEOUT_S
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise TimeoutError(f"another process has held mlflow/.lock for {LOCK_TIMEOUT_S} s") from None
                    time.sleep(0.02)
            yield

    def _experiment(self, name: str, location: str | None) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return self._client.create_experiment(name, artifact_location=location)
            except self._mlflow.MlflowException:  # another fold was quicker, on a server
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return found.experiment_id

    def _earlier(self, identity: str, experiment: str) -> str:
        """The run of an earlier call, taken up again; "" if it is gone (another database, or deleted in MLflow)."""
        if not identity:
            return ""
        try:
            found = self._client.get_run(identity)
        except self._mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return ""
        if found.info.lifecycle_stage != "active" or found.info.experiment_id != experiment:
            return ""
        self._client.update_run(identity, status="RUNNING")
        return identity

    def _new(self, run: TrackedRun, experiment: str) -> str:
        tags = {"group": run.group, "job_type": run.job_type}
        if run.parent_id:
            tags["mlflow.parentRunId"] = run.parent_id
        made = self._client.create_run(experiment, run_name=run.name, tags=tags)
        parameters = [self._mlflow.entities.Param(plain_name(key), text(value)[:6000]) for key, value in flat(run.config).items()]
        self._client.log_batch(made.info.run_id, params=parameters)
        return made.info.run_id

    def log(self, step, values):
        now = int(time.time() * 1000)
        metrics = [self._mlflow.entities.Metric(plain_name(key), value, now, step) for key, value in values.items()]
        with self._alone():
            self._client.log_batch(self.id, metrics=metrics)

    def pictures(self, step, pictures):
        with self._alone():
            for name, pixels in pictures.items():
                self._client.log_image(self.id, pixels, key=re.sub(r"[^\w. /-]", "_", name, flags=re.ASCII), step=step,
                                       synchronous=True)

    def summary(self, values):
        """Numbers as metrics, the rest as tags."""
        numbers = {key: float(value) for key, value in values.items() if isinstance(value, (int, float))}
        self.log(0, numbers)
        tags = [self._mlflow.entities.RunTag(plain_name(key), text(value)) for key, value in values.items() if key not in numbers]
        with self._alone():
            self._client.log_batch(self.id, tags=tags)

    def artifact(self, path, name, about):
        with self._alone():
            self._client.log_text(self.id, json.dumps(about, indent=1) + "\n", f"models/{name}.json")
            if path is not None:
                self._client.log_artifact(self.id, str(path), "models")

    def figures(self, figures):
        with self._alone():
            for name, path in figures.items():
                beneath = Path("figures", name).parent
                self._client.log_artifact(self.id, str(path), beneath.as_posix())

    def finish(self, failed=False):
        with self._alone():
            self._client.set_terminated(self.id, "FAILED" if failed else "FINISHED")


def prepare(database: Path, location: str) -> None:
    """Make the SQLite file, whole or not at all. In a workspace that was moved, let its runs know where their files are now."""
    if not database.exists():
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
        partial = database.with_name(".partial.db")
        partial.unlink(missing_ok=True)
        SqlAlchemyStore(f"sqlite:///{partial}", location).engine.dispose()  # some seconds of migrations
        os.replace(partial, database)
    with contextlib.closing(sqlite3.connect(database, timeout=LOCK_TIMEOUT_S)) as connection:
        known = [old for old, in connection.execute("SELECT DISTINCT artifact_location FROM experiments")
                 if old and old != location and old.endswith("/mlflow/artifacts")]
        for old in known:
            with connection:
                connection.execute("UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?", (location, old))
                connection.execute("UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                                   "WHERE substr(artifact_uri, 1, ?) = ?", (location, len(old) + 1, len(old) + 1, f"{old}/"))


def plain_name(name: str) -> str:
    """With the characters that MLflow allows in names: "map@[.5:.95]" -> "map_at_.5:.95"."""
    kept = re.sub(r"[^\w\-. :/]", "_", name.replace("@", "_at_").replace("[", "").replace("]", ""))
    return "/".join(part for part in kept.split("/") if part not in ("", ".", ".."))[:250]


def text(value) -> str:
    return value if isinstance(value, str) else json.dumps(value)
