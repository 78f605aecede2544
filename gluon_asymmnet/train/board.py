"""TensorBoard's file of a run.

``tensorboardX.SummaryWriter`` hands its events to a thread through a queue of ten.  Where the disk
is full that thread dies, and the run would wait for it for ever; here they are written at once.
"""

import time
from pathlib import Path

from gluon_asymmnet.atomic import naming


class Board:
    """Scalars over epochs, in ``folder``.

    Args:
        purge_step: the first epoch of this process; TensorBoard forgets what earlier ones wrote
            from there on.

    Raises: OSError if the disk is full.
    """

    def __init__(self, folder: Path, purge_step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        self._folder = Path(folder)
        with naming(self._folder):
            self._writer = EventsWriter(str(self._folder / "events"))
        self._write(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def add_scalar(self, name: str, value: float, epoch: int) -> None:
        """Write one number."""
        from tensorboardX.summary import scalar

        self._write(step=epoch, summary=scalar(name, value))

    def close(self) -> None:
        """Write what is buffered."""
        with naming(self._folder):
            self._writer.close()

    def _write(self, **values) -> None:
        from tensorboardX.proto.event_pb2 import Event

        with naming(self._folder):
            self._writer.write_event(Event(wall_time=time.time(), **values))
            self._writer.flush()
