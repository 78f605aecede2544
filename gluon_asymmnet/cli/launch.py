"""``asymmnet launch``: a training command in several processes."""

import argparse

from gluon_asymmnet.distributed.launch import LaunchPlan, launch, read_hosts
from gluon_asymmnet.errors import InputError


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``launch``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Start the workers of a training command, on this machine or over ssh. Their "
        "output is printed with their ranks, and signals are passed on to them. If a worker fails "
        "or is lost, all are stopped, and the exit status is that of the first that failed. Slurm, "
        "MPI and Kubernetes need no launcher: see docs/scaling.md.",
        epilog="example: asymmnet launch -n 4 --hosts hosts.txt -- python train_imagenet.py "
        "--recipe published --batch-size 64 --lr-base-batch 2048",
    )
    parser.add_argument("-n", "--workers", type=int, required=True, help="processes that train")
    parser.add_argument("--hosts", default="", metavar="FILE",
                        help="lines of `host [slots=N]`: start workers there by ssh, in the same "
                        "folder and with the same Python")  # fmt: skip
    parser.add_argument("--engine", choices=("kvstore", "horovod"), default="kvstore",
                        help="library that sums the gradients (default kvstore)")  # fmt: skip
    parser.add_argument("--servers", type=int, default=0,
                        help="servers of the kvstore (default: one per host)")  # fmt: skip
    parser.add_argument("--elastic-restart", type=int, default=0, metavar="N",
                        help="restarts from the last checkpoint after a loss")  # fmt: skip
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS",
                        help="a worker silent for so long is lost (default 300)")  # fmt: skip
    parser.add_argument("--port", type=int, default=0, help="of worker 0 (default: a free one)")
    parser.add_argument("--ssh", default="ssh", metavar="COMMAND", help="e.g. 'ssh -p 2222'")
    parser.add_argument("line", nargs=argparse.REMAINDER, metavar="-- COMMAND",
                        help="the command of one worker")  # fmt: skip
    parser.set_defaults(run=run)
    return parser


def run(args) -> int:
    """Start the workers, wait for them, return the exit status."""
    command = args.line[1:] if args.line[:1] == ["--"] else args.line
    if not command:
        raise InputError("no command given: asymmnet launch -n 2 -- python train_imagenet.py ...")
    for flag, value, least in (("-n", args.workers, 1), ("--servers", args.servers, 0),
                               ("--elastic-restart", args.elastic_restart, 0),
                               ("--timeout", args.timeout, 1)):  # fmt: skip
        if not value >= least:  # nan is not, either
            raise InputError(f"{flag} must be at least {least}, got {value:g}")
    if not 0 <= args.port < 2**16:
        raise InputError(f"--port must be 0 (a free one) to {2**16 - 1}, got {args.port}")
    hosts = read_hosts(args.hosts, args.workers) if args.hosts else []
    plan = LaunchPlan(
        command, args.workers, hosts, args.servers, args.engine, args.timeout, args.port,
        args.elastic_restart, args.ssh,
    )  # fmt: skip
    return launch(plan)
