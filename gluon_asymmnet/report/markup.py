"""Build HTML; every text is escaped unless it is ``Markup``, which only ``element`` makes.

So a class named ``<script>`` is shown, not run.
"""

import html
import re
from collections.abc import Sequence

_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # controls that HTML does not allow


class Markup(str):
    """Text that is HTML."""


def escape(value) -> Markup:
    """Return any value as text of a page; itself if it is ``Markup``."""
    if isinstance(value, Markup):
        return value
    text = str(value).encode("utf-8", "replace").decode()  # names of files may not be Unicode
    return Markup(html.escape(_UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text)))


def element(tag: str, *children, **attributes) -> Markup:
    """Return ``<tag attribute="...">children</tag>``.

    Children are escaped unless they are ``Markup``; children and attributes that are None are left
    out.  In an attribute's name a trailing underscore is dropped and an inner one is a hyphen:
    ``class_``, ``stroke_width``.
    """
    shown = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{shown}>")
    return Markup(f"<{tag}{shown}>{join(children)}</{tag}>")


def join(children) -> Markup:
    """Concatenate parts, escaped unless they are ``Markup``."""
    return Markup("".join(escape(child) for child in children if child is not None))


def html_table(head: Sequence, rows: Sequence[Markup]) -> Markup:
    """Return a table of ``<tr>`` elements that scrolls where it is too wide."""
    names = element("tr", *(element("th", name, scope="col") for name in head))
    content = element("table", element("thead", names), element("tbody", *rows))
    return element("div", content, class_="scroll", tabindex=0)


def breakable(name) -> Markup:
    """Return a name that may break over lines after ``_`` and ``/``."""
    return Markup(re.sub("([_/])", r"\1<wbr>", escape(name)))


_VOID = frozenset({"meta", "img", "br", "hr", "col"})
