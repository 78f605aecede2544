"""``asymmnet launch``: a training command by several workers."""

DESCRIPTION = (
    "Start the workers of a training command, here or over ssh, print what they say with their "
    "numbers, pass on signals, and end with the status of the first that failed. One that is lost "
    "ends all. Slurm, MPI and Kubernetes need no launcher: see docs/scaling.md."
)


def add_parser(subparsers) -> None:
    """Add the subcommand."""
    import argparse

    parser = subparsers.add_parser(
        "launch", help="train by several processes or machines", description=DESCRIPTION,
        epilog="example: asymmnet launch -n 4 --hosts hosts.txt -- python train_imagenet.py "
        "--recipe published --batch-size 64 --lr-base-batch 2048",
    )  # fmt: skip
    parser.add_argument("-n", "--workers", type=int, required=True, help="processes that train")
    parser.add_argument("--hosts", default="", metavar="FILE", help="lines of `host [slots=N]`: "
                        "start there by ssh, with the same folder and Python")  # fmt: skip
    parser.add_argument("--engine", choices=("kvstore", "horovod"), default="kvstore",
                        help="what adds up the gradients (default kvstore)")  # fmt: skip
    parser.add_argument("--servers", type=int, default=0,
                        help="servers of the kvstore (default: one per host)")  # fmt: skip
    parser.add_argument("--elastic-restart", type=int, default=0, metavar="N",
                        help="after a loss start again from the last checkpoint")  # fmt: skip
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS",
                        help="a worker silent for so long is lost (default 300)")  # fmt: skip
    parser.add_argument("--port", type=int, default=0, help="of worker 0 (default: a free one)")
    parser.add_argument("--ssh", default="ssh", metavar="COMMAND", help="e.g. 'ssh -p 2222'")
    parser.add_argument("line", nargs=argparse.REMAINDER, metavar="-- COMMAND",
                        help="the command of one worker")  # fmt: skip
    parser.set_defaults(run=run)


def run(args) -> int:
    """Start, wait, return the status."""
    from gluon_asymmnet.distributed.launch import Plan, launch, read_hosts
    from gluon_asymmnet.errors import InputError

    command = args.line[1:] if args.line[:1] == ["--"] else args.line
    if not command:
        raise InputError("say what to run: asymmnet launch -n 2 -- python train_imagenet.py ...")
    for flag, value, least in (("-n", args.workers, 1), ("--servers", args.servers, 0),
                               ("--elastic-restart", args.elastic_restart, 0),
                               ("--timeout", args.timeout, 1)):  # fmt: skip
        if value < least:
            raise InputError(f"{flag} must be at least {least}, got {value:g}")
    hosts = read_hosts(args.hosts, args.workers) if args.hosts else []
    plan = Plan(
        command, args.workers, hosts, args.servers, args.engine, args.timeout, args.port,
        args.elastic_restart, args.ssh,
    )  # fmt: skip
    return launch(plan)
