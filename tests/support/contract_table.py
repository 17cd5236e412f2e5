"""The contract suite as a table, adapter by behaviour, for the documentation.

`python -m tests.support.contract_table` writes it into `docs/judges.md`; a test sees that it is
there as the suite would make it. Differences between adapters stand in the suite's `DIFFERENCES`.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.journeys import test_provider_contract as suite
from tests.journeys import test_provider_definitions as definitions
from tests.support import ROOT

PAGE = ROOT / "docs" / "judges.md"
BEGIN = (
    "<!-- Made by `python -m tests.support.contract_table`: change the suite, not this table. -->"
)
END = "<!-- End of the made table. -->"

BEGIN_DEFINITIONS = BEGIN.replace("Made by", "Made of the definitions by")
END_DEFINITIONS = END.replace("made table", "made table of definitions")

ADAPTERS = {
    "quality": "chat completions",
    "quality-responses": "responses",
    "quality-messages": "Anthropic",
    "quality-gemini": "Gemini",
    "quality-mistral": "Mistral",
    "quality-xai": "xAI",
    "quality-openrouter": "OpenRouter",
}


def contract_table() -> str:
    """Return the table: a row for each behaviour, a column for each adapter."""
    heads = " | ".join(ADAPTERS.values())
    lines = [BEGIN, "", f"| Behaviour | {heads} |", "|---" * (len(ADAPTERS) + 1) + "|"]
    for name, adapters in _behaviours():
        differs = suite.DIFFERENCES.get(name, {})
        cells = [differs.get(a, "✓") if a in adapters else "" for a in ADAPTERS]
        lines.append(f"| {_words(name)} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", END])


def definitions_table() -> str:
    """Return the table: a row for each behaviour of their suite, a column for each definition."""
    names = definitions.LIKE
    lines = [BEGIN_DEFINITIONS, "", f"| Behaviour | {' | '.join(names)} |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for name, test in vars(definitions).items():
        if name.startswith("test_"):
            (run_with,) = [mark.args[1] for mark in test.pytestmark]
            cells = ["✓" if one in run_with else "" for one in names]
            words = _words(name).replace("elses", "else's").replace("judges price", "judge's price")
            lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", END_DEFINITIONS])


def page_with_table(page: str) -> str:
    """Return a page with the tables put where the old ones were."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    page = before + contract_table() + after
    before, _, rest = page.partition(BEGIN_DEFINITIONS)
    _, _, after = rest.partition(END_DEFINITIONS)
    return before + definitions_table() + after


def _behaviours() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each test of the suite, in its order, with the adapters it is run with."""
    for name, test in vars(suite).items():
        if name.startswith("test_"):
            marks = getattr(test, "pytestmark", [])
            all_of_them = [mark.args[1] for mark in marks if mark.args[0] == "name"]
            yield name, all_of_them[0] if all_of_them else suite.ONLY[name]


def _words(name: str) -> str:
    return (
        name.removeprefix("test_").replace("_", " ").replace("submissions job", "submission's job")
    )


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
