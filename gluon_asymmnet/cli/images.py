"""Shared loop of ``predict`` and ``detect`` over pictures and videos."""

import contextlib
import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import Callable, NamedTuple

from tqdm import tqdm

from gluon_asymmnet.cli.engine import add_engine_flags, print_engine
from gluon_asymmnet.cli.options import add_import_flag, add_threads_flag, require_positive
from gluon_asymmnet.cli.outputs import Annotated, CsvFile, JsonFile, check_targets
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.predict.inputs import (
    CAMERA,
    URL,
    Frame,
    Reading,
    count_frames,
    find_inputs,
    read_frames,
)

INPUTS = """\
INPUT is a picture, a video, a folder, a quoted pattern ('photos/**/*.jpg'), a URL of a picture,
video or stream, the number of a camera (0), or - for standard input.  What cannot be read is
skipped and reported at the end; the exit status is then 1.  Ctrl-C ends a camera or stream."""


class Task(NamedTuple):
    """The steps that differ between the commands; there is one result per picture or frame."""

    open: Callable  # args -> predictor
    predict: Callable  # predictor, frames, args -> results
    rows: Callable  # name of the picture, result, width of the longest name -> text
    draw: Callable  # image, result -> the image with the result drawn on it
    content: Callable  # result -> dict for JSON; its one value is a list of dicts, the rows of CSV
    columns: tuple[str, ...]  # of CSV, the keys in these dicts
    extra: Callable = lambda args, predictor: []  # more outputs, as in ``cli.outputs``
    reading: Callable = lambda args, predictor: Reading(every=args.every)


def add_image_flags(parser, *, batch_size: int):
    """Add images, model, engine and output; return the group of the outputs."""
    parser.add_argument("images", nargs="+", metavar="INPUT")
    parser.add_argument("--model", required=True, help="exported folder or file, or run directory")
    add_import_flag(parser)
    add_engine_flags(parser)
    parser.add_argument(
        "--batch-size", type=int, default=batch_size, help=f"(default {batch_size})"
    )
    add_threads_flag(parser)
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="of videos, use each Nth frame"
    )
    parser.add_argument(
        "--frames", type=int, default=0, metavar="N", help="stop after N pictures and frames"
    )
    out = parser.add_argument_group("output")
    out.add_argument(
        "--json", default="", metavar="FILE", help="write the results: an entry per picture or "
        "frame of a video, with its number from 0 and its second",
    )  # fmt: skip
    out.add_argument("--csv", default="", metavar="FILE", help="write the results as a table")
    out.add_argument(
        "--annotate", default="", metavar="DIR", help="write the pictures, and videos as MP4, with "
        "the result on them",
    )  # fmt: skip
    return out


def run_on_images(args, task: Task) -> int:
    """Predict and print; 1 if something could not be read."""
    require_positive(args, "batch_size", "every")
    if args.frames < 0:
        raise InputError(f"--frames must be at least 0 (all), got {args.frames}")
    inputs = find_inputs(args.images)
    if args.annotate:
        check_targets(inputs, args.annotate)
    predictor = task.open(args)
    print_engine(predictor, args)
    quiet = not sys.stderr.isatty()
    total = None if quiet else count_frames(inputs, args.every)
    how = task.reading(args, predictor)._replace(threads=args.threads, say=_say)
    frames = read_frames(inputs, how)
    if args.frames > 0:
        frames, total = itertools.islice(frames, args.frames), min(total or 1 << 60, args.frames)
    width, skipped = max(len(one.shown) for one in inputs), []
    with contextlib.ExitStack() as stack:
        outputs = _outputs(args, task, predictor, skipped)
        for output in outputs:
            stack.enter_context(output)
        bar = stack.enter_context(tqdm(total=total, disable=quiet or total == 1, unit="image"))
        try:
            for batch in batches(frames, args.batch_size):
                good = [frame for frame in batch if not frame.problem]
                skipped += [frame for frame in batch if frame.problem]
                results = task.predict(predictor, good, args)
                for frame, result in zip(good, results):
                    tqdm.write(task.rows(_name(frame), result, width))  # above the bar
                    for output in outputs:
                        output.add(frame, result)
                bar.update(len(batch))
        except KeyboardInterrupt:
            if not any(one.kind in (CAMERA, URL) for one in inputs):
                raise
            print("stopped", file=sys.stderr)
    for frame in skipped:
        print(f"skipped {frame.problem}", file=sys.stderr)
    return 1 if skipped else 0


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)  # above the bar


def batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Yield lists of ``size`` frames; a live frame is not kept waiting for others."""
    waiting: list[Frame] = []
    for frame in frames:
        waiting.append(frame)
        if len(waiting) == size or frame.live:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _outputs(args, task: Task, predictor, skipped: list[Frame]) -> list:
    found = list(task.extra(args, predictor))
    if args.json:
        found.append(JsonFile(args.json, predictor, task.content, skipped))
    if args.csv:
        found.append(CsvFile(args.csv, task.columns, task.content))
    if args.annotate:
        found.append(Annotated(args.annotate, task.draw))
    return found


def _name(frame: Frame) -> str:
    shown = frame.input.shown
    return shown if frame.number is None else f"{shown}#{frame.number}"
