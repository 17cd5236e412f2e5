"""Feedback as teachers edit it before it is released; each version is a row for good."""

from __future__ import annotations

from cj_pipeline.errors import SettingsError
from cj_pipeline.outputs.students.student_page import check_feedback, student_ids
from cj_pipeline.queries.history import BatchHistory, read_history
from cj_pipeline.runtime import Runtime

MAX_CHARACTERS = 20_000


def edit_feedback(
    runtime: Runtime, batch_id: str, essay_id: str | None, text: str, *, by: str
) -> BatchHistory:
    """Store feedback that a teacher edited, and return the batch with it.

    Args:
        runtime: The pipeline's connections.
        batch_id: The batch.
        essay_id: Whose feedback it is; None for the class's.
        text: As edited; each line ends with the comparison it comes from, or with [teacher].
        by: Who edited it.

    Raises:
        SettingsError: With everything that is wrong with the text; nothing is stored then.
    """
    with runtime.store.write() as db:
        history = read_history(db, batch_id)
        whose = f"'{essay_id}'" if essay_id else "the class"
        problems = check_feedback(history, essay_id, text)
        if essay_id is not None and essay_id not in student_ids(history):
            problems = [f"the batch has no student's essay '{essay_id}'"]
        if len(text) > MAX_CHARACTERS:
            problems.append(f"it has {len(text):,} characters; at most {MAX_CHARACTERS:,} are kept")
        if not by.strip():
            problems.append("say who edited it (--by)")
        if problems:
            listed = "\n".join(f"  - {problem}" for problem in problems)
            msg = f"Feedback for {whose} in batch '{batch_id}' was not stored:\n{listed}"
            raise SettingsError(msg)
        if history.edited_feedback(essay_id or "") != text:
            number = max((row["number"] for row in history.feedback_edits), default=0) + 1
            db.insert(
                "feedback_edits",
                [
                    {
                        "batch_id": batch_id,
                        "number": number,
                        "essay_id": essay_id or "",
                        "text": text,
                        "edited_by": by.strip(),
                        "edited_at": runtime.clock(),
                    }
                ],
            )
        return read_history(db, batch_id)
