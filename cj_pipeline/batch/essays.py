"""What a batch is made of: its essays, anchors among them, and the documents judges are shown.

Reading them from a folder is `ingestion`; keeping them is `store`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cj_pipeline.ids import same_name


@dataclass(frozen=True)
class Essay:
    """One text in a batch, a student's or (with a grade) an anchor.

    Attributes:
        essay_id: Matches `^[a-z0-9_-]{3,64}$`; unique in its batch.
        text: As submitted, only encoding and line ends normalised.
        grade: The grade known beforehand; None for a student's essay.
        file_name: The file or CSV it came from, its last part.
        source_path: Relative to the batch folder, for instance `essays/anna.txt`.
        sha256: Of the file's bytes (of the CSV cell's UTF-8 for a CSV).
        n_bytes: How many bytes that checksum covers.
        given_id: The name or number under which it was handed in, as it was written.
        name: The student's name, where the batch says it.
        group: The class or group, where the batch says it.
        attributes: What else a class register says of the student, by the register's columns.
        notes: What was left out or changed when the text was read from its file.
        masked_text: What judges are shown in place of the text, where names are masked in it.
    """

    essay_id: str
    text: str
    grade: str | None
    file_name: str
    source_path: str
    sha256: str
    n_bytes: int
    given_id: str = ""
    name: str | None = None
    group: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    masked_text: str | None = None

    @property
    def shown_text(self) -> str:
        """What judges are shown."""
        return self.text if self.masked_text is None else self.masked_text

    @property
    def is_anchor(self) -> bool:
        """Whether the essay's grade is known beforehand."""
        return self.grade is not None


@dataclass(frozen=True)
class SharedText:
    """An essay whose text is that of another, and the id of the one that is judged for both."""

    essay: Essay
    judged_id: str


def label(essay_id: str, given_id: str | None, name: str | None) -> str:
    """Return what people call an essay: the student's name, or what it was handed in as."""
    return name or given_id or essay_id


def matching(known: Iterable[tuple[str, str | None, str | None]], typed: str) -> list[str]:
    """Return the ids of the essays that a person means by an id or a name.

    What is exactly an id or a name as it was handed in goes before what is one with other capitals
    or blanks. Several ids mean that the name is not enough; none, that it is unknown.

    Args:
        known: For each essay its id, `given_id` and `name`.
        typed: As the person wrote it.
    """
    essays = list(known)
    wanted = same_name(typed)
    for is_meant in (
        lambda essay: essay[0] == wanted,
        lambda essay: same_name(essay[1] or "") == wanted,
        lambda essay: same_name(essay[2] or "") == wanted,
        lambda essay: _loosely(wanted) in {_loosely(essay[1] or ""), _loosely(essay[2] or "")},
    ):
        found = [essay[0] for essay in essays if is_meant(essay)]
        if wanted and found:
            return found
    return []


def _loosely(name: str) -> str:
    return " ".join(same_name(name).casefold().split())


@dataclass(frozen=True)
class Document:
    """A text that is not judged: the instructions, the rubric, `batch.yaml` itself."""

    kind: str  # instructions | rubric | batch
    content: str
    source_path: str
    sha256: str
    n_bytes: int
