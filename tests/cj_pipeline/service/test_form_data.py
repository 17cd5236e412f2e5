"""Forms as browsers send them come back as they were filled in; anything else is refused."""

from __future__ import annotations

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cj_pipeline.service.form_data import FormError, read_form

WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=("C",), exclude_characters='"%\\'), min_size=1
)
"""Names without what clients write as they please: quotes, percent signs, control characters."""


@settings(max_examples=40)
@given(
    st.dictionaries(WORDS, st.text(st.characters(codec="utf-8")), max_size=3),
    st.lists(st.tuples(WORDS, WORDS, st.binary(max_size=300)), min_size=1, max_size=4),
)
def test_what_a_client_sends_is_read_to_the_byte(
    fields: dict[str, str], files: list[tuple[str, str, bytes]]
) -> None:
    """Line ends, quotes and whole binaries included."""
    request = httpx2.Request(
        "POST",
        "http://x/",
        data=fields,
        files=[(field, (name, content)) for field, name, content in files],
    )

    form = read_form(request.headers["content-type"], request.read())

    assert dict(form.fields) == fields
    assert [(each.field, each.name, each.content) for each in form.files] == files


@given(st.binary(max_size=200))
def test_a_body_that_is_no_form_is_refused_and_never_raises_otherwise(body: bytes) -> None:
    """Whatever is in it."""
    for kind in ("multipart/form-data; boundary=x", "text/plain", "multipart/form-data", ""):
        try:
            read_form(kind, b"--x\r\n" + body)
        except FormError:
            continue
        assert b"--x--" in body


def test_a_browser_that_had_no_file_chosen_sends_none() -> None:
    """It sends an empty name."""
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename=""\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n\r\n--x--\r\n"
    )

    assert read_form("multipart/form-data; boundary=x", body).files == ()
    with pytest.raises(FormError, match="did not arrive whole"):
        read_form("multipart/form-data; boundary=x", body[:-6])
