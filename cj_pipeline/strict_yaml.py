"""YAML without its traps: what would be read otherwise than it is written is an error."""

from __future__ import annotations

import re
from typing import Any

import yaml


class StrictLoader(yaml.SafeLoader):
    """YAML's safe subset, without its traps: what is read otherwise than written is an error.

    That is a key given twice, and a number that YAML reads in another base: `010` as 8, `1:30` as
    90.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping's keys and values, or raise where a key is given twice."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in sorted({str(key) for key in keys if keys.count(key) > 1}):
            self.flaw(f"the key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)

    def number(self, node: yaml.ScalarNode) -> Any:
        """Return an integer or a float, or raise where YAML would read another than is written."""
        written = node.value
        is_float = node.tag.endswith(":float")
        plain: Any = self.construct_yaml_float if is_float else self.construct_yaml_int
        if ":" in written or re.fullmatch(r"[-+]?0[0-7_]+", written):
            read = plain(node)
            self.flaw(
                f"{written} would be read as {read}: put it in quotes if it is a name or a grade,"
                " or write the number plainly",
                node.start_mark,
            )
        return plain(node)

    def flaw(self, problem: str, mark: yaml.Mark) -> None:
        """Raise what is wrong, where it stands."""
        raise yaml.constructor.ConstructorError(None, None, problem, mark)


StrictLoader.add_constructor("tag:yaml.org,2002:int", StrictLoader.number)
StrictLoader.add_constructor("tag:yaml.org,2002:float", StrictLoader.number)


def load_yaml(text: str) -> Any:
    """Return what YAML holds, read by `StrictLoader`.

    Raises:
        yaml.YAMLError: Whatever is wrong with it: also where it names a day that no calendar has,
            or is nested too deeply to be read.
    """
    try:
        return yaml.load(text, StrictLoader)  # noqa: S506 - a SafeLoader
    except (ValueError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise yaml.YAMLError(said) from error


class _ListingLoader(StrictLoader):
    """The same, but each flaw is listed and reading goes on."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.flaws: list[str] = []

    def flaw(self, problem: str, mark: yaml.Mark) -> None:
        """List what is wrong, where it stands."""
        self.flaws.append(f"is not YAML as meant on line {mark.line + 1}: {problem}")


def _yaml_hint(error: yaml.MarkedYAMLError) -> str:
    """Return what helps with the two mistakes that people make in YAML; empty for others."""
    said = error.problem or ""
    if "mapping values are not allowed" in said:
        return ": put a text that holds a colon in quotes"
    if "'\\t'" in said:
        return ": indent with blanks, not with tabs"
    return ""


def read_yaml(text: str) -> tuple[dict[Any, Any] | None, list[str]]:
    """Return what a YAML file of settings holds, and everything that is wrong with it.

    Each problem goes on from the file's name. What can be used is returned beside problems, so
    that the rest can be checked too; None where nothing can.
    """
    loader = _ListingLoader(text)
    try:
        content = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" on line {mark.line + 1}" if mark is not None else ""
        said = f"is not YAML{where}: {error.problem or error.context}{_yaml_hint(error)}"
        return None, [*loader.flaws, said]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return None, [*loader.flaws, f"is not YAML: {type(error).__name__}: {error}"]
    finally:
        loader.dispose()
    if not isinstance(content, dict):
        return None, [*loader.flaws, "must hold `key: value` lines, nothing else"]
    return content, loader.flaws
