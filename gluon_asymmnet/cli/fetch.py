"""``asymmnet fetch published``: the authors' checkpoint, downloaded once and checked."""

import argparse
import sys

from gluon_asymmnet.weights.published import BLOB_ID, URL, fetch


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``fetch``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Download the authors' published checkpoint if needed, check its git blob id "
        "and print its path.  An interrupted download continues.",
    )
    parser.add_argument("what", choices=["published"], help="the authors' checkpoint")
    parser.add_argument("--url", help="another address: http, https or file")
    parser.add_argument("--from", dest="source", metavar="FILE", help="take a local copy instead")
    parser.add_argument("--blob-id", metavar="ID", help="git blob id that the file must have")
    parser.add_argument("--root", metavar="FOLDER", help="keep it here, not in ~/.cache")
    parser.set_defaults(run=run)
    return parser


def run(args) -> int:
    """Fetch, and print the path."""
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
