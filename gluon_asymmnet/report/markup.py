"""HTML from Python, in which everything that is not markup is escaped.

A class named ``<script>`` is shown, not run: only ``element`` makes ``Markup``.
"""

import html
import re

_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # controls that HTML does not allow


class Markup(str):
    """Text that is HTML already."""


def escape(value) -> Markup:
    """Return any value as text of a page; itself if it is ``Markup``."""
    if isinstance(value, Markup):
        return value
    text = str(value).encode("utf-8", "replace").decode()  # names of files may be no Unicode
    return Markup(html.escape(_UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text)))


def element(tag: str, *children, **attributes) -> Markup:
    """Return ``<tag attribute="...">children</tag>``.

    Children are escaped unless they are ``Markup``; None and "" are left out, and so are
    attributes that are None.  A trailing or inner underscore of an attribute's name stands for
    nothing or a hyphen: ``class_``, ``stroke_width``.
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
    """Put parts behind each other, escaped unless they are ``Markup``."""
    return Markup("".join(escape(child) for child in children if child is not None))


def breakable(name) -> Markup:
    """Return a name that may be broken where its parts end."""
    return Markup(re.sub("([_/])", r"\1<wbr>", escape(name)))


_VOID = frozenset({"meta", "img", "br", "hr", "col"})
