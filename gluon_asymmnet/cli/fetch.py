"""``asymmnet fetch published``: the authors' checkpoint, downloaded once and checked."""

import sys


def add_parser(subparsers) -> None:
    """Add ``fetch`` to the subcommands of ``asymmnet``."""
    parser = subparsers.add_parser(
        "fetch",
        help="download the authors' published checkpoint and check it",
        description="Print the path of the authors' published checkpoint, downloaded if needed.  "
        "Its git blob id is checked; an interrupted download continues.",
    )
    parser.add_argument("what", choices=["published"], help="the one thing there is to fetch")
    parser.add_argument("--url", help="another address: http, https or file")
    parser.add_argument("--from", dest="source", metavar="FILE", help="take a local copy instead")
    parser.add_argument("--blob-id", metavar="ID", help="git blob id that the file must have")
    parser.add_argument("--root", metavar="FOLDER", help="keep it here, not in ~/.cache")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Fetch, and print the path."""
    from gluon_asymmnet.weights.published import BLOB_ID, URL, fetch

    path = fetch(
        url=args.url or URL,
        blob_id=args.blob_id or BLOB_ID,
        root=args.root,
        source=args.source,
        progress=_show if sys.stderr.isatty() else None,
    )
    print(path)
    return 0


def _show(received: int, total) -> None:
    of = f" of {total:,}" if total else ""
    end = "\n" if received == total else ""
    print(f"\r{received:,}{of} bytes", end=end, file=sys.stderr, flush=True)
