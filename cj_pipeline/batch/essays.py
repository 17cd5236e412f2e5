"""What a batch is made of: its essays, anchors among them, and the documents judges are shown.

Reading them from a folder is `ingestion`; keeping them is `store`.
"""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    essay_id: str
    text: str
    grade: str | None
    file_name: str
    source_path: str
    sha256: str
    n_bytes: int

    @property
    def is_anchor(self) -> bool:
        """Whether the essay's grade is known beforehand."""
        return self.grade is not None


@dataclass(frozen=True)
class Document:
    """A text that is not judged: the instructions, the rubric, `batch.yaml` itself."""

    kind: str  # instructions | rubric | batch
    content: str
    source_path: str
    sha256: str
    n_bytes: int
