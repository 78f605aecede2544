"""Candidates that read training data without a net; a call is an epoch of ``train.rec``."""

from pathlib import Path

from benchmarks.candidates import Call, Case


def _records(case: Case) -> tuple[str, str]:
    return str(Path(case.folder) / "train.rec"), str(Path(case.folder) / "train.idx")


def _drained(batches) -> int:
    return sum(1 for _ in batches)


def read_records(case: Case) -> Call:
    """The record reader alone: the checked bytes and label of every record."""
    from gluon_asymmnet.data.sources import open_source

    source = open_source(rec=_records(case)[0])
    return lambda: _drained(source.read(i) for i in range(len(source)))


def input_opencv(case: Case) -> Call:
    """``--data-backend opencv``: read, decode, augment, normalise and stack on threads."""
    from gluon_asymmnet.data.loader import ThreadedInput
    from gluon_asymmnet.data.sources import open_source

    source = open_source(rec=_records(case)[0])
    steps = len(source) // case.batch
    images = ThreadedInput(source, case.batch, case.size, steps=steps, threads=case.threads)
    return lambda: _drained(images.epoch(0))


def input_record_iter(case: Case) -> Call:
    """``--data-backend mxnet``: ImageRecordIter, built anew as for every epoch."""
    from gluon_asymmnet.data.loader import RecordIterInput
    from gluon_asymmnet.data.sources import open_source

    rec, idx = _records(case)
    steps = len(open_source(rec=rec)) // case.batch
    images = RecordIterInput(rec, idx, case.batch, case.size, steps=steps, threads=case.threads)

    def call():
        for batch in images.epoch(0):
            batch.data.wait_to_read()

    return call


INPUT = (read_records, input_opencv, input_record_iter)
CANDIDATES = {function.__name__: function for function in INPUT}
