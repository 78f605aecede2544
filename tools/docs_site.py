"""MkDocs hooks: the site has the folders of the repository, and API pages made from the source.

Links between documents therefore work on the site as they do in the repository.
"""

import ast
import logging
import re
from pathlib import Path

import griffe
from mkdocs.structure.files import File, Files

_PUBLISHED = (
    "*.md", "docs/*.md", "symbols/README.md", "benchmarks/*.md", "LICENSE", "docs/*.svg",
    "docs/images/*", "docs/*.yaml", "gluon_asymmnet/report/published_curve.json",
)  # fmt: skip
_FORWARD = {"forward", "hybrid_forward", "gates"}  # the docstring of the class describes them
_log = logging.getLogger("mkdocs.docs_site")


def on_config(config):
    """List the API pages in the navigation, in place of the entry ``API: reference``."""
    root = Path(config.config_file_path).parent
    package = griffe.load("gluon_asymmnet", search_paths=[str(root)])
    for fault in faults(package):
        _log.warning(fault)  # an error, as the build is strict
    config.extra["api_pages"] = api_pages(package)
    for entry in config.nav:
        if "API" in entry:
            entry["API"] = list(config.extra["api_pages"])
    return config


def on_files(files, config):
    """Take the documents from the root of the repository, and add the API pages."""
    root = Path(config.config_file_path).parent
    site = Files([file for file in files if file.src_dir != config.docs_dir])
    for pattern in _PUBLISHED:
        for path in sorted(root.glob(pattern)):
            uri = path.relative_to(root).as_posix()
            site.append(File(uri, str(root), config.site_dir, config.use_directory_urls))
    for uri, text in config.extra["api_pages"].items():
        site.append(File.generated(config, uri, content=text))
    return site


def faults(package) -> list[str]:
    """Return a line for each public name without docstring or with one of other parameters."""
    found = []
    for member in _public_members(package):
        if not member.docstring:
            if member.name not in _FORWARD:
                found.append(f"{member.path} has no docstring")
            continue
        for section in member.docstring.parse("google", warnings=False):
            if section.kind is griffe.DocstringSectionKind.parameters and not member.is_module:
                described = {
                    name.strip(" *") for entry in section.value for name in entry.name.split(",")
                }
                known = {one.name for one in member.parameters} | set(member.members)
                for name in sorted(described - known):
                    found.append(f"{member.path}: the docstring describes {name!r}, no parameter")
    return found


def _public_members(owner):
    yield owner
    for name, member in owner.members.items():
        if name.startswith("_") or member.is_alias:
            continue
        if member.is_function:
            yield member
        elif member.is_module or member.is_class:
            yield from _public_members(member)


def api_pages(package) -> dict[str, str]:
    """Return path -> Markdown: the public names of the package, then a page for each room."""
    public = ast.literal_eval(str(package.members["_PUBLIC"].value))
    names = [f"::: gluon_asymmnet.{module}.{name}" for name, module in public.items()]
    pages = {"reference/index.md": _page("Public names", package.docstring.value, names)}
    files = []
    for name, room in sorted(package.members.items()):
        if room.is_alias or not room.is_module or name.startswith("_"):
            continue
        if not room.is_init_module:
            files.append(f"::: {room.path}")
            continue
        modules = [f"::: {one.path}" for one in _public_members(room) if one.is_module]
        pages[f"reference/{name}.md"] = _page(f"{name}/", "", modules)
    pages["reference/modules.md"] = _page("Top-level modules", "", files)
    return pages


def _page(title: str, text: str, entries: list[str]) -> str:
    return "\n\n".join([f"# {title}", text, *entries]) + "\n"


class OneLineSections(griffe.Extension):
    """Show sections such as ``Raises: InputError if ...`` as paragraphs with a bold beginning.

    The Google parser knows only sections with an indented block of ``name: text`` entries.
    """

    _SECTION = re.compile(r"^(Returns|Raises|Yields|Source|Sources): (?=\S)", re.MULTILINE)

    def on_instance(self, *, obj, **_) -> None:
        """Rewrite the docstring of an object that was just loaded."""
        if not obj.is_alias and obj.docstring:
            obj.docstring.value = self._SECTION.sub(r"\n**\1**: ", obj.docstring.value)
