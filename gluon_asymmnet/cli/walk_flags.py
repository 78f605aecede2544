"""Flags that add what the authors' own validation would have reported."""

BATCH_SIZE = 2048  # of the published run


def add_walk_flags(parser) -> None:
    """Add the flags of the walk to a parser of an evaluation."""
    group = parser.add_argument_group("the authors' validation")
    group.add_argument(
        "--walk", choices=("published",), default="",
        help="print, besides, what passes of their reader over these records would report: it "
        "wraps around, so it counts some records twice or leaves some out",
    )  # fmt: skip
    group.add_argument(
        "--walk-batch-size", type=int, metavar="N",
        help=f"with it, images per step of theirs; --batch-size decides nothing but speed and "
        f"memory (default {BATCH_SIZE})",
    )  # fmt: skip
    group.add_argument(
        "--passes", type=int, metavar="N",
        help="with it, how many passes, one per epoch (default 1)",
    )  # fmt: skip


def check_walk_flags(args, records: int) -> None:
    """Raise InputError, before hours of work, for a walk that ``records`` do not allow."""
    from gluon_asymmnet.errors import InputError
    from gluon_asymmnet.evaluation.published import validation_passes

    if args.walk:
        validation_passes(records, *_settings(args))
        return
    for name in ("walk_batch_size", "passes"):
        if getattr(args, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} goes with --walk published")


def report_walk(result, args) -> tuple[str, dict]:
    """Return the passes of the walk as a table, and for a JSON file; for ``--walk`` only."""
    from gluon_asymmnet.evaluation.published import pass_results, pass_table

    batch_size, passes = _settings(args)
    results = pass_results(result, batch_size, passes)
    content = {"batch_size": batch_size, "passes": [one.as_dict() for one in results]}
    return pass_table(results), content


def _settings(args) -> tuple[int, int]:
    given = (args.walk_batch_size, BATCH_SIZE), (args.passes, 1)
    batch_size, passes = (default if value is None else value for value, default in given)
    return batch_size, passes
