"""Named training recipes: what was run, by whom, and what it is said to reach.

A recipe is a JSON file: ``source``, ``claim``, ``run`` (whether it was run here), and ``settings``,
those that differ from the defaults.  The package's are in ``gluon_asymmnet/recipes/``.
"""

import dataclasses
from pathlib import Path
from typing import Any

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.utils.json_objects import make, parse_object

FOLDER = Path(__file__).parents[1] / "recipes"
_RECIPE = "a recipe"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings that differ from the defaults, with their source and claim."""

    settings: dict
    source: str = ""
    claim: str = ""
    run: str = ""


def read_recipe(path: Path) -> Recipe:
    """Read a recipe's file.  Raises: FormatError; FileNotFoundError."""
    return make(Recipe, parse_object(Path(path).read_bytes(), path, _RECIPE), path, _RECIPE)


RECIPES = {path.stem: read_recipe(path) for path in sorted(FOLDER.glob("*.json"))}


def recipe_settings(name: str, config_class) -> dict[str, Any]:
    """Return the settings of a recipe, as values of the fields of ``config_class``.

    Args:
        name: one of ``RECIPES``, or the path of a file (.json).

    Raises: InputError for an unknown recipe; FormatError for a damaged file, an unknown setting or
        a value of another type.
    """
    if name not in RECIPES and not name.endswith(".json"):
        raise InputError(f"unknown recipe {name!r}: one of {', '.join(RECIPES)}, or a .json file")
    if name not in RECIPES and not Path(name).is_file():
        raise InputError(f"--recipe {name}: no such file")
    recipe = RECIPES[name] if name in RECIPES else read_recipe(Path(name))
    config = make(config_class, recipe.settings, name, _RECIPE)
    return {setting: getattr(config, setting) for setting in recipe.settings}
