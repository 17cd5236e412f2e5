"""What a batch is made of: its essays, anchors among them, and the documents judges are shown.

Reading them from a folder is `ingestion`; keeping them is `store`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cj_pipeline.settings import ResolvedSettings


@dataclass(frozen=True)
class Essay:
    """One text in a batch, a student's or (with a grade) an anchor.

    Attributes:
        essay_id: Matches `^[a-z0-9_-]{3,64}$`; unique in its batch.
        text: As handed in, only encoding and line ends normalised.
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


@dataclass(frozen=True)
class Batch:
    """The essays placed on one scale together, as handed in.

    `content_sha256` covers every file's path and checksum: the same folder gives the same value.
    """

    batch_id: str
    source_path: str
    essays: tuple[Essay, ...]
    documents: tuple[Document, ...]
    settings: ResolvedSettings
    content_sha256: str

    def document(self, kind: str) -> str:
        """Return the text of the document of this kind; empty when the batch has none."""
        return next((d.content for d in self.documents if d.kind == kind), "")

    @property
    def anchors(self) -> tuple[Essay, ...]:
        """The essays whose grade is known."""
        return tuple(essay for essay in self.essays if essay.is_anchor)

    @property
    def students(self) -> tuple[Essay, ...]:
        """The essays to be placed."""
        return tuple(essay for essay in self.essays if not essay.is_anchor)
