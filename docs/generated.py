"""The documentation's pages that are made from the code, so that they cannot go stale.

MkDocs calls the hooks here when it builds the site; nothing is written beside the sources. A page
is made of what a person would otherwise have to copy: command help, keys, comments, docstrings.
"""

from __future__ import annotations

import ast
import configparser
import html
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).parents[1]

PYTHON_PAGES: Mapping[str, tuple[str, Sequence[str]]] = {
    "python-frames": (
        "Python: batches and frames",
        ("cj_pipeline", "cj_pipeline.queries.frames", "cj_pipeline.outputs.verification"),
    ),
    "python-scores": (
        "Python: scores",
        (
            "cj_pipeline.scale.tallies",
            "cj_pipeline.scale.bradley_terry",
            "cj_pipeline.diagnostics.reliability",
            "cj_pipeline.diagnostics.epsilon_adjusted",
            "cj_pipeline.diagnostics.split_half",
            "cj_pipeline.scale.score_posterior",
            "cj_pipeline.scale.certainty",
            "cj_pipeline.scale.ranks",
            "cj_pipeline.diagnostics.fit_statistics",
            "cj_pipeline.diagnostics.consistency",
            "cj_pipeline.diagnostics.panel",
        ),
    ),
    "python-grades": (
        "Python: grades",
        (
            "cj_pipeline.grading.grade_scales",
            "cj_pipeline.grading.projection",
            "cj_pipeline.grading.boundaries",
            "cj_pipeline.grading.population",
            "cj_pipeline.grading.anchors",
            "cj_pipeline.grading.linking",
        ),
    ),
    "python-pairs": (
        "Python: pairs",
        (
            "cj_pipeline.pairing.waves",
            "cj_pipeline.pairing.fixed_design",
            "cj_pipeline.pairing.positions",
            "cj_pipeline.stopping.forecast",
            "cj_pipeline.pairing.warm_start",
            "cj_pipeline.pairing.judge_selection",
        ),
    ),
    "python-judges": (
        "Python: judges and money",
        (
            "cj_pipeline.judging.prompts",
            "cj_pipeline.judging.judges",
            "cj_pipeline.judging.templates",
            "cj_pipeline.judging.pricing",
            "cj_pipeline.providers.base",
        ),
    ),
}

PLAIN_TYPES: Mapping[str, str] = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "yes or no",
    "Mapping": "mapping",
}

CLI_TYPES: Mapping[str, str] = {
    "int": "whole number",
    "int range": "whole number",
    "float": "number",
    "float range": "number",
    "str": "text",
    "list[str]": "text",
    "dir": "folder",
    "path": "file",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the code."""
    pages: dict[str, Callable[[], str]] = {
        "index.md": home,
        "contributing.md": contributing,
        "decisions/index.md": decisions,
        "reference/commands.md": commands,
        "reference/batch-yaml.md": batch_yaml,
        "reference/judge-files.md": judge_files,
        "reference/prices.md": prices,
        "reference/grade-scales.md": grade_scales,
        "reference/assets.md": assets_and_checks,
        "reference/tables.md": tables,
        "reference/errors.md": errors,
    }
    for path, make in pages.items():
        files.append(File.generated(config, path, content=make()))
    for name in PYTHON_PAGES:
        files.append(File.generated(config, f"reference/{name}.md", content=python_page(name)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the picture of the layers where a page asks for it."""
    del page, config, files
    return markdown.replace("<!-- the layers -->", layers())


def layers() -> str:
    """Return the layers as the import contract has them, each package with its charter."""
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter", "utf-8")
    named = contracts["importlinter:contract:layers"]["layers"].split("\n")
    rows = [[package.strip() for package in row.split("|")] for row in named if row.strip()]
    drawn = "\n".join(f"<li>{''.join(map(_package, row))}</li>" for row in rows)
    return f'<ol class="layers">\n{drawn}\n</ol>'


def _package(module: str) -> str:
    """Return one package of the picture: its name, and the first sentence of its charter."""
    path = ROOT.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    charter = ast.get_docstring(ast.parse(source.read_text("utf-8"))) or ""
    sentence = html.escape(re.sub(r"\s+", " ", re.split(r"(?<=\.)\s|\n\n", charter)[0]))
    named = re.sub(r"`([^`]+)`", r"<code>\1</code>", sentence)
    return f"<div><code>{html.escape(module.removeprefix('cj_pipeline.'))}</code> {named}</div>"


def home() -> str:
    """Return the README with its links turned to the site's pages."""
    return _from_top("README.md")


def contributing() -> str:
    """Return CONTRIBUTING.md with its links turned to the site's pages."""
    return _from_top("CONTRIBUTING.md")


def _from_top(name: str) -> str:
    text = (ROOT / name).read_text("utf-8")
    # What lies beside docs/ is not part of the site: its name stays, the link goes.
    text = re.sub(r"\[([^\]]+)\]\((?!https?:|docs/)[^)]+\)", r"`\1`", text)
    text = re.sub(r"\]\(docs/decisions/?\)", "](decisions/index.md)", text)
    text = re.sub(r"\]\(docs/([^)]+)\)", r"](\1)", text)
    return re.sub(r"\[docs/([a-z-]+)(?:\.md|/)\]", r"[\1]", text)


def decisions() -> str:
    """Return the list of decision pages, each with its first heading."""
    lines = ["# Decisions", "", "Choices that had alternatives, one page each.", ""]
    for page in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")):
        title = page.read_text("utf-8").splitlines()[0].removeprefix("# ")
        lines.append(f"- [{title}]({page.name})")
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Return every command's own help, as Typer writes it, with types in plain words."""
    text = subprocess.run(
        [sys.executable, "-m", "typer", "cj_pipeline.cli", "utils", "docs", "--name", "cj"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    first_lines = dict(re.findall(r"^#+ `([^`]+)`\n\n(.+)$", text, flags=re.M))
    named = [*re.finditer(r"^#+ `([^`]+)`$|^\* `([a-z-]+)`: .+\.\.\.$", text, flags=re.M)]
    prefix, whole, at = "cj", [], 0
    for found in named:
        # Typer cuts a command's line in its group's list; the command's own section has it whole.
        if found[1]:
            prefix = found[1]
            continue
        full = first_lines.get(f"{prefix} {found[2]}")
        if full:
            whole += [text[at : found.start()], f"* `{found[2]}`: {full}"]
            at = found.end()
    grouped = _in_plain_types(_under_headings("".join([*whole, text[at:]])))
    return "# Commands\n\n" + grouped.removeprefix("# `cj`").lstrip() + "\n" + _exit_codes()


def _exit_codes() -> str:
    """Return what each exit code says: of every command, and of those with codes of their own."""
    from cj_pipeline.commands.terminal.exit_codes import EVERY_COMMAND, OF_COMMAND

    rows = [("every command", str(code), says) for code, says in EVERY_COMMAND.items()]
    for command, codes in OF_COMMAND.items():
        rows += [(f"`cj {command}`", str(code), says) for code, says in sorted(codes.items())]
    return "\n".join(["## Exit codes", "", *_table(("Command", "Code", "Says"), rows), ""])


def _under_headings(text: str) -> str:
    """Give the list of all commands the headings that `cj --help` has."""
    from cj_pipeline.cli import PANELS, name_of

    for heading, held in PANELS.items():
        first = f"* `{name_of(held[0])}`:"
        text = text.replace(first, f"\n**{heading}**\n\n{first}", 1)
    return text


def _in_plain_types(text: str) -> str:
    """Name the values of options and arguments as the pages of keys do; a flag takes none."""
    text = re.sub(r"^(\* `[^`<]+?) <(?:bool|boolean)>`", r"\1`", text, flags=re.M)
    for typer_word, plain in CLI_TYPES.items():
        text = text.replace(f" <{typer_word}>`", f" <{plain}>`")
    return re.sub(r"([\[ ])(-?[\d.]+&lt;=)?x(&[lg]t;=[\d.]+)?\]$", _plain_range, text, flags=re.M)


def _plain_range(found: re.Match[str]) -> str:
    least, most = found[2], found[3]
    if least and most:
        words = f"{least.removesuffix('&lt;=')} to {most.removeprefix('&lt;=')}"
    elif most and most.startswith("&gt;="):
        words = f"{most.removeprefix('&gt;=')} or more"
    elif most:
        words = f"{most.removeprefix('&lt;=')} or less"
    else:
        return found[0]
    return f"{found[1]}{words}]"


def batch_yaml() -> str:
    """Return the keys of `batch.yaml` with types, defaults and meanings."""
    from cj_pipeline.batch.options import PrecisionTargets
    from cj_pipeline.intake.settings import BatchSettings

    return "\n".join(
        [
            "# batch.yaml",
            "",
            "Every key has a default. `cj explain FOLDER` shows the values of a batch, and where",
            "each came from.",
            "",
            *_fields(BatchSettings),
            "",
            "## precise",
            "",
            *_fields(PrecisionTargets),
            "",
        ]
    )


def judge_files() -> str:
    """Return the keys of a judge's file, and the judges that are built in."""
    from cj_pipeline.judging.judges import JudgeFile, JudgeSettings, known_judges, load_judge

    limits_model = JudgeFile.model_fields["limits"].annotation

    judges = [
        (f"`{j.name}`", j.provider, j.api, f"`{j.model}`", f"`{j.template.name}`")
        for j in map(load_judge, known_judges())
    ]
    return "\n".join(
        [
            "# Judge files",
            "",
            "See [Judges](../judges.md) for what a judge is. The keys of its file:",
            "",
            *_fields(JudgeFile),
            "",
            "## settings",
            "",
            *_fields(JudgeSettings),
            "",
            "## limits",
            "",
            "Without a value, the limits in the provider's documentation apply.",
            "",
            *_fields(limits_model),
            "",
            "## Built-in judges",
            "",
            *_table(("Judge", "Provider", "Endpoint", "Model", "Template"), judges),
            "",
        ]
    )


def prices() -> str:
    """Return the price table as it is shipped."""
    import yaml

    table = yaml.safe_load((ROOT / "cj_pipeline" / "judging" / "prices.yaml").read_text("utf-8"))
    lines = [
        "# Prices",
        "",
        "USD per million tokens outside the batch endpoint; see [Prices and costs](../money.md).",
        "Prices change: compare with the source before you spend.",
    ]
    for provider, entry in table.items():
        batched = ", ".join(f"{name} × {share}" for name, share in entry["batched"].items())
        lines += ["", f"## {provider}", ""]
        lines += [f"As of {entry['as_of']}, from <{entry['source']}>. Batched: {batched}.", ""]
        classes = sorted({key for model in entry["models"].values() for key in model} - {"also"})
        rows = [
            (f"`{name}`", *(str(model.get(key, "")) for key in classes))
            for name, model in entry["models"].items()
        ]
        lines += _table(("Model", *(key.replace("_", " ") for key in classes)), rows)
    return "\n".join(lines) + "\n"


def grade_scales() -> str:
    """Return the grade scales that are built in."""
    from cj_pipeline.grading.grade_scales import known_scales, load_scale

    rows = [
        (
            f"`{s.name}`",
            s.title,
            " ".join(s.grades),
            s.below or "",
            " ".join(map(str, s.priors or ())),
        )
        for s in map(load_scale, known_scales())
    ]
    header = ("Scale", "Title", "Grades, lowest first", "Below them", "Priors")
    return "\n".join(["# Grade scales", "", *_table(header, rows), ""])


def assets_and_checks() -> str:
    """Return Dagster's definitions: assets, checks, jobs, sensors and schedules."""
    from cj_pipeline.checks.standard_checks import CHECKS
    from cj_pipeline.definitions import defs

    repository = defs.get_repository_def()
    lines = ["# Assets and checks", "", "What Dagster loads from `cj_pipeline.definitions`.", ""]
    graph = repository.asset_graph
    nodes = [graph.get(key) for level in graph.toposorted_asset_keys_by_level for key in level]
    lines += _table(
        ("Asset", "Group", "What it is"),
        [
            (f"`{node.key.to_user_string()}`", node.group_name, _line(node.description))
            for node in nodes
        ],
    )
    lines += ["", "## Checks", ""]
    lines += ["If a check that *stops* fails, nothing after it in the run happens. A check that"]
    lines += ["*warns* is shown and stops nothing.", ""]
    lines += _table(
        ("Asset", "Check", "Failing", "Claim"),
        [
            (
                f"`{asset}`",
                f"`{check.name}`",
                "stops" if check.is_blocking else "warns",
                _line(check.claim.__doc__),
            )
            for asset, checks in CHECKS.items()
            for check in checks
        ],
    )
    for title, things in (
        ("Jobs", [job for job in repository.get_all_jobs() if not job.name.startswith("__")]),
        ("Sensors", repository.sensor_defs),
        ("Schedules", repository.schedule_defs),
    ):
        lines += ["", f"## {title}", ""]
        lines += _table(
            (title.removesuffix("s"), "What it does"),
            [(f"`{thing.name}`", _line(thing.description)) for thing in things],
        )
    return "\n".join(lines) + "\n"


def tables() -> str:
    """Return every view and table of a store with its comments, from the migrations themselves."""
    import duckdb

    from cj_pipeline.store.migrations import migrate

    lines = [
        "# Tables and views",
        "",
        "Views begin with `v_` and stay stable for analysts. Tables are internal and may change",
        "between versions.",
    ]
    with duckdb.connect() as db:
        migrate(db)
        named = db.execute(
            "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal"
            " UNION ALL SELECT table_name, comment FROM duckdb_tables() WHERE NOT internal"
        ).fetchall()
        for name, comment in sorted(named, key=lambda row: (not row[0].startswith("v_"), row[0])):
            columns = db.execute(
                "SELECT column_name, data_type, coalesce(comment, '') FROM duckdb_columns()"
                " WHERE table_name = ? ORDER BY column_index",
                [name],
            ).fetchall()
            lines += ["", f"## {name}", ""]
            lines += [comment, ""] if comment else []
            lines += _table(
                ("Column", "Type", "Meaning"),
                [(f"`{column}`", kind.lower(), _line(text)) for column, kind, text in columns],
            )
    return "\n".join(lines) + "\n"


def errors() -> str:
    """Return the family of errors, as the module draws it."""
    from cj_pipeline import errors as family

    introduction, tree, closing = re.split(r"\n\n(?=    CJError)|\n\n(?=`Trans)", family.__doc__)
    return "\n".join(["# Errors", "", introduction, "", "```text", tree, "```", "", closing])


def python_page(name: str) -> str:
    """Return a page of docstrings, which mkdocstrings fills in."""
    title, modules = PYTHON_PAGES[name]
    return "\n\n".join([f"# {title}", *(f"::: {module}" for module in modules)]) + "\n"


def _fields(model: type[BaseModel]) -> list[str]:
    """Return a table of keys; type and default stand under the meaning, to fit on a phone."""
    described = _attributes_section(model.__doc__ or "")
    return _table(
        ("Key", "Meaning"),
        [
            (
                f"`{field.alias or name}`",
                f"{_line(field.description or described.get(name, ''))}"
                f"<br><small>{_type(field)}; {_default_in_words(field)}</small>",
            )
            for name, field in model.model_fields.items()
        ],
    )


def _attributes_section(docstring: str) -> dict[str, str]:
    section = docstring.partition("Attributes:\n")[2]
    found = re.findall(r"^ {8}(\w+): ((?:.+)(?:\n {12}.+)*)", section, flags=re.M)
    return {name: re.sub(r"\s+", " ", text) for name, text in found}


def _default_in_words(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value: Any = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "defaults: see below"
    return "no default" if value is None else f"default: `{_default(value)}`"


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return "{}" if value == {} else str(value) or '""'


def _type(field: FieldInfo) -> str:
    return _type_name(field.annotation)


def _type_name(annotation: Any) -> str:
    if isinstance(annotation, type) and not get_args(annotation):
        if issubclass(annotation, BaseModel):
            annotation = Mapping
        return PLAIN_TYPES.get(annotation.__name__, annotation.__name__)
    origin = getattr(annotation, "__origin__", None)
    arguments = [a for a in get_args(annotation) if a not in (type(None), ...)]
    if str(origin) == "typing.Literal":
        return f"one of {', '.join(f'`{argument}`' for argument in arguments)}"
    if origin is tuple:
        of_what = re.sub(r"^(list|mapping)", r"\1s", _type_name(arguments[0]))
        return f"list of {of_what}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "mapping"
    if hasattr(annotation, "__metadata__"):
        return _type_name(arguments[0])
    return " or ".join(_type_name(a) for a in arguments)


def _line(text: str | None) -> str:
    """Return a text's first paragraph on one line, safe inside a table."""
    first = re.sub(r"\s+", " ", (text or "").strip().split("\n\n")[0])
    return first.replace("|", "\\|").replace("<", "&lt;")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
