"""Rich text (.rtf): its words; what striprtf cannot tell apart is told."""

from __future__ import annotations

from striprtf.striprtf import rtf_to_text

from cj_pipeline.intake.readers.extracted import Extracted, UnreadableFileError


def read_rtf(content: bytes) -> Extracted:
    """Return a rich-text file's words.

    Raises:
        UnreadableFileError: If it cannot be read.
    """
    if not content.startswith(b"{\\rtf"):
        msg = "is not a rich-text (RTF) file"
        raise UnreadableFileError(msg)
    raw = content.decode("latin-1")
    try:
        text = rtf_to_text(raw, errors="strict")  # type: ignore[no-untyped-call]
    except (ValueError, LookupError, IndexError, OverflowError) as error:
        msg = "is a rich-text file that cannot be read: save it as .docx or as plain text"
        raise UnreadableFileError(msg) from error
    notes = [
        note
        for word, note in (
            ("\\deleted", "deleted words of tracked changes may be in the text: compare"),
            ("\\footnote", "footnotes left out"),
            ("\\shptxt", "text boxes left out"),
            ("\\pict", "pictures left out"),
            ("\\trowd", "a table taken as lines of text"),
        )
        if word in raw
    ]
    return Extracted(text.replace("\uf095", "-"), notes)
