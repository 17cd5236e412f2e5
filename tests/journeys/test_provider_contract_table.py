"""The documentation's table of the contract suite is the suite's own."""

from tests.support.contract_table import PAGE, page_with_table


def test_the_documented_contract_is_the_one_that_is_tested() -> None:
    """Made anew, the page stays as it is; if not, run `python -m tests.support.contract_table`."""
    page = PAGE.read_text(encoding="utf-8")

    assert page_with_table(page) == page
