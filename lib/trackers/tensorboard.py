"""TensorBoard: event files in `<workspace>/tb_logs/<name>/fold<k>` and `.../summary`; nothing leaves the machine."""

from __future__ import annotations

import io
import json
import shlex
import struct
import time
from pathlib import Path

from lib.trackers.base import TrackedRun, Tracker, flat

PREFIX = "events.out.tfevents."  # what TensorBoard looks for; it reads the files of a folder in the order of their names


class TensorboardTracker(Tracker):
    """Writes one event file per call of a script, with a number in its name: the usual names hold the host's.

    A fold that goes on begins its next step with a mark that takes back later steps of an earlier, killed call. A run that
    begins anew replaces what was there. What is of the whole run has the number of its call, from 0, in place of the step: the
    last one counts.
    """
    package = "tensorboard"

    def __init__(self, run: TrackedRun):
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        super().__init__(run)
        self._event, self._summary, self._make_writer, self._writer = event_pb2, summary_pb2, RecordWriter, None
        self.id = "summary" if run.fold is None else f"fold{run.fold}"
        logs = run.workspace / "tb_logs"
        self._folder = logs / run.group / self.id
        self._folder.mkdir(parents=True, exist_ok=True)
        if not run.resume_id:
            empty(self._folder)
        self._call = max(self._numbers(), default=0)
        self._goes_on = bool(run.resume_id)
        self.where = f"tensorboard --logdir {shlex.quote(str(logs))}"
        if not self._goes_on and run.config:
            self._settings(flat(run.config), run.group)

    # --- events ---------------------------------------------------------------------------------------------------

    def _write(self, *values, step: int = 0, **event) -> None:
        """One event, on disk before this returns, so that a full disk is met here."""
        if self._writer is None:
            number = max(self._numbers(), default=0) + 1
            file = (self._folder / f"{PREFIX}{number:010d}.foldscan").open("xb")
            self._writer = self._make_writer(file)
            self._record(file_version="brain.Event:2")
        self._record(step=step, **({"summary": self._summary.Summary(value=values)} if values else {}), **event)
        self._writer.flush()

    def _numbers(self) -> list[int]:
        return [int(path.name[len(PREFIX):].partition(".")[0]) for path in self._folder.glob(f"{PREFIX}*.foldscan")]

    def _record(self, **event) -> None:
        self._writer.write(self._event.Event(wall_time=time.time(), **event).SerializeToString())

    def _begin(self, step: int) -> None:
        """Before the first step: what an earlier call wrote from there on does not count."""
        if self._goes_on:
            self._goes_on = False
            self._write(step=step, session_log=self._event.SessionLog(status=self._event.SessionLog.START))

    def _text(self, tag: str, text: str):
        """A value of the tab Text, which reads Markdown."""
        from tensorboard.plugins.text.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto
        return self._summary.Summary.Value(tag=tag, metadata=create_summary_metadata("", ""),
                                           tensor=make_tensor_proto(text.encode()))

    def _image(self, tag: str, png: bytes):
        width, height = struct.unpack(">II", png[16:24])  # of the header that every PNG begins with
        image = self._summary.Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
        return self._summary.Summary.Value(tag=tag, image=image)

    def _settings(self, config: dict, group: str) -> None:
        """The configuration in the tabs HParams and Text."""
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2
        session = plugin_data_pb2.SessionStartInfo(group_name=group, start_time_secs=time.time())
        for key, value in config.items():
            if isinstance(value, bool):
                session.hparams[key].bool_value = value
            elif isinstance(value, (int, float)):
                session.hparams[key].number_value = value
            else:
                session.hparams[key].string_value = str(value)
        content = plugin_data_pb2.HParamsPluginData(session_start_info=session)
        self._write(self._summary.Summary.Value(tag=metadata.SESSION_START_INFO_TAG, tensor=metadata.NULL_TENSOR,
                                                metadata=metadata.create_summary_metadata(content)),
                    self._text("configuration", table(config)))

    # --- the face -------------------------------------------------------------------------------------------------

    def log(self, step, values):
        self._begin(step)
        self._write(*(self._summary.Summary.Value(tag=key, simple_value=value) for key, value in values.items()), step=step)

    def pictures(self, step, pictures):
        from PIL import Image
        self._begin(step)
        for name, pixels in pictures.items():
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "png")
            self._write(self._image(name, file.getvalue()), step=step)

    def summary(self, values):
        numbers = {key: float(value) for key, value in values.items() if isinstance(value, (int, float))}
        self._write(*(self._summary.Summary.Value(tag=key, simple_value=value) for key, value in numbers.items()),
                    self._text("summary", table(values)), step=self._call)

    def artifact(self, path, name, about):
        """TensorBoard keeps no files: what identifies the model, as a text."""
        self._write(self._text(f"models/{name}", table(about)), step=self._call)

    def figures(self, figures):
        for name, path in figures.items():
            self._write(self._image(f"figures/{name}", Path(path).read_bytes()), step=self._call)

    def finish(self, failed=False):
        if self._writer is not None:
            self._writer.close()

    @staticmethod
    def forget(workspace, group):
        empty(workspace / "tb_logs" / group / "summary")


def empty(folder: Path) -> None:
    """Remove the event files of a run, if there are any."""
    for old in folder.glob(f"{PREFIX}*"):
        old.unlink(missing_ok=True)


def table(values: dict) -> str:
    """Markdown of two columns."""
    rows = [f"| {key} | {value if isinstance(value, str) else json.dumps(value)} |" for key, value in values.items()]
    return "\n".join(["| | |", "|---|---|", *rows])
