"""``asymmnet export``, the same as ``export.py``."""


def add_parser(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("export", help="export a model: symbol")
    add_forms(parser)


def add_forms(parser) -> None:
    """Add the forms a model can be exported in; also used by ``export.py``."""
    from gluon_asymmnet.cli.model_flags import add_model_flags

    forms = parser.add_subparsers(dest="form", required=True, metavar="FORM")
    symbol = forms.add_parser(
        "symbol",
        help="MXNet's static symbol and parameters, with a card",
        description="Export, read back with SymbolBlock and with mx.mod.Module, compare with the "
        "network, and put the folder in place only if they agree.",
        epilog="example: export.py symbol checkpoints/imagenet/asymmnet_large_baseline out",
    )
    add_model_flags(symbol)
    symbol.add_argument("out", help="folder to write; must not exist")
    symbol.set_defaults(run=run_symbol)


def run_symbol(args) -> int:
    """Export the symbol and print where it lies and how well it agrees."""
    from gluon_asymmnet.threads import set_threads

    set_threads()
    from gluon_asymmnet.cli.model_flags import open_from
    from gluon_asymmnet.export.symbol import export_symbol

    out = export_symbol(open_from(args), args.out)
    _print_card(out)
    return 0


def _print_card(out) -> None:
    from gluon_asymmnet.card import CARD_FILE, read_card

    for form, parity in read_card(out / CARD_FILE).parity.items():
        print(
            f"{form}: largest difference {parity['absolute']:.2e} ({parity['relative']:.2e} of the "
            f"largest logit), same best class on {100 * parity['top1_agreement']:.0f} % of "
            f"{parity['images']} images"
        )
    print(f"written: {', '.join(sorted(str(p) for p in out.iterdir()))}")
