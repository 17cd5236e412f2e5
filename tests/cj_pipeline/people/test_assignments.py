"""Pairs handed out to people: one at a time, the same after a reload, each answer counted once."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from cj_pipeline.errors import SettingsError
from cj_pipeline.outputs.readings.reading_queue import moderation_queue
from cj_pipeline.people.assignments import HELD_FOR, Answer, Desk, desk_of, store_answer
from cj_pipeline.people.links import JudgeLink, link_of, make_links, revoke_links
from cj_pipeline.people.statistics import infit_limit, infit_of, person_statistics
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.queries.history import read_history
from cj_pipeline.runtime import Runtime
from tests.support.people import QUALITIES, graded_batch


@pytest.fixture
def judged(tmp_path: Path) -> tuple[Runtime, str]:
    """A batch with 30 pairs for people."""
    people = {"share": 0.3, "repeat_every": 5}
    return graded_batch(tmp_path / "home", "both", judges=["quality", "people"], people=people)


def _links(
    runtime: Runtime, batch_id: str, *persons: str, quota: int | None = None
) -> list[JudgeLink]:
    made = make_links(runtime, batch_id, persons, by="test", quota=quota)
    with runtime.store.read() as db:
        found = [link_of(db, each.token, runtime.clock()) for each in made]
    return [link for link in found if link is not None]


def _desk(runtime: Runtime, link: JudgeLink) -> Desk:
    with runtime.store.write() as db:
        return desk_of(db, load_batch(db, link.batch_id), link, runtime.clock())


def _send(runtime: Runtime, link: JudgeLink, answer: Answer) -> bool:
    with runtime.store.write() as db:
        record = load_batch(db, link.batch_id)
        return store_answer(db, record, link, answer, runtime.clock())


def _judge(runtime: Runtime, link: JudgeLink, n: int, active_s: float = 30.0) -> None:
    """Judge by quality, as a careful person would."""
    for _ in range(n):
        pair = _desk(runtime, link).held[0]
        winner = "A" if QUALITIES[pair.essay_a] > QUALITIES[pair.essay_b] else "B"
        _send(runtime, link, Answer(pair.assignment_id, winner, active_s=active_s))  # type: ignore[arg-type]
        runtime.clock.sleep(active_s)  # type: ignore[attr-defined]


def test_a_reload_or_a_second_tab_shows_the_same_pair(judged: tuple[Runtime, str]) -> None:
    """So that nobody reloads for an easier one."""
    runtime, batch_id = judged
    (anna,) = _links(runtime, batch_id, "anna")

    first = _desk(runtime, anna)
    again = _desk(runtime, anna)

    assert [a.assignment_id for a in first.held] == [a.assignment_id for a in again.held]
    assert len(first.held) == 2


def test_an_answer_sent_twice_counts_once(judged: tuple[Runtime, str]) -> None:
    """A double click, or a request repeated after a lost reply."""
    runtime, batch_id = judged
    (anna,) = _links(runtime, batch_id, "anna")
    pair = _desk(runtime, anna).held[0]

    assert _send(runtime, anna, Answer(pair.assignment_id, "A"))
    assert not _send(runtime, anna, Answer(pair.assignment_id, "B"))

    with runtime.store.read() as db:
        rows = db.rows("SELECT winner FROM comparisons WHERE sequence > 10000000")
    assert rows == [{"winner": "A"}]


def test_several_people_get_different_pairs_and_each_counts_once(
    judged: tuple[Runtime, str],
) -> None:
    """A pair of the second part goes to two of them; no other does."""
    runtime, batch_id = judged
    links = _links(runtime, batch_id, "anna", "ben", "cara")

    while any(_desk(runtime, link).held for link in links):
        for link in links:
            if _desk(runtime, link).held:
                _judge(runtime, link, 1)

    with runtime.store.read() as db:
        tasks = db.rows("SELECT part, n_verdicts FROM v_judging_tasks")
        counted = db.rows("SELECT essay_a, essay_b FROM comparisons WHERE sequence > 10000000")
        by_person = db.rows(
            "SELECT person, essay_a, essay_b FROM human_answers WHERE comparison_id IS NOT NULL"
        )
    assert len(tasks) == 30
    assert {task["n_verdicts"] for task in tasks} == {1}
    assert len(counted) == 30
    per_person = Counter((r["person"], frozenset((r["essay_a"], r["essay_b"]))) for r in by_person)
    assert set(per_person.values()) == {1}
    assert len({r["person"] for r in by_person}) == 3


def test_positions_are_fair_to_every_essay_for_every_person(judged: tuple[Runtime, str]) -> None:
    """First about as often as second."""
    runtime, batch_id = judged
    (anna,) = _links(runtime, batch_id, "anna")
    while _desk(runtime, anna).held:
        _judge(runtime, anna, 1)

    with runtime.store.read() as db:
        rows = db.rows("SELECT essay_a, essay_b FROM judging_assignments WHERE repeats IS NULL")
    lean = Counter[str]()
    for row in rows:
        lean[row["essay_a"]] += 1
        lean[row["essay_b"]] -= 1
    assert max(abs(n) for n in lean.values()) <= 3


def test_a_pair_held_by_somebody_gone_goes_to_another_person(judged: tuple[Runtime, str]) -> None:
    """A closed laptop does not keep pairs for ever; coming back shows what was left."""
    runtime, batch_id = judged
    anna, ben = _links(runtime, batch_id, "anna", "ben")
    left = _desk(runtime, anna)
    held = {frozenset((a.essay_a, a.essay_b)) for a in left.held}

    def shown_to_ben() -> set[frozenset[str]]:
        with runtime.store.read() as db:
            rows = db.rows("SELECT essay_a, essay_b FROM judging_assignments WHERE person = 'ben'")
        return {frozenset((r["essay_a"], r["essay_b"])) for r in rows}

    while _desk(runtime, ben).held and runtime.clock() - left.held[0].assigned_at < HELD_FOR / 2:
        _judge(runtime, ben, 1, active_s=20)
    with runtime.store.read() as db:
        single = db.rows(
            "SELECT essay_a, essay_b FROM judging_tasks GROUP BY ALL HAVING count(*) = 1"
        )
    alone = held & {frozenset((r["essay_a"], r["essay_b"])) for r in single}
    assert not shown_to_ben() & alone
    runtime.clock.sleep((HELD_FOR + timedelta(minutes=1)).total_seconds())  # type: ignore[attr-defined]
    while _desk(runtime, ben).held:
        _judge(runtime, ben, 1)
    assert shown_to_ben() >= held
    assert [a.assignment_id for a in _desk(runtime, anna).held] == [
        a.assignment_id for a in left.held
    ]


def test_the_last_verdict_can_be_changed_once_and_the_old_one_stays(
    judged: tuple[Runtime, str],
) -> None:
    """Until the next is given; the scale has the new one alone."""
    runtime, batch_id = judged
    (anna,) = _links(runtime, batch_id, "anna")
    one, two = _desk(runtime, anna).held
    _send(runtime, anna, Answer(one.assignment_id, "A"))

    assert _send(runtime, anna, Answer(one.assignment_id, "B", is_change=True))
    with pytest.raises(SettingsError, match="changed already"):
        _send(runtime, anna, Answer(one.assignment_id, "A", is_change=True))
    _send(runtime, anna, Answer(two.assignment_id, "A"))
    with pytest.raises(SettingsError, match=r"changed already|only until the next"):
        _send(runtime, anna, Answer(one.assignment_id, "A", is_change=True))

    with runtime.store.read() as db:
        counted = db.rows(
            "SELECT winner FROM comparisons WHERE sequence > 10000000 ORDER BY sequence"
        )
        kept = db.rows("SELECT winner, is_replaced FROM v_human_verdicts ORDER BY number")
    assert [row["winner"] for row in counted] == ["B", "A"]
    assert [tuple(row.values()) for row in kept] == [("A", True), ("B", False), ("A", False)]


def test_a_skipped_pair_comes_back_to_others_only_and_a_concern_heads_the_queue(
    judged: tuple[Runtime, str],
) -> None:
    """Skips are counted and their reasons kept."""
    runtime, batch_id = judged
    anna, ben = _links(runtime, batch_id, "anna", "ben")
    pair = _desk(runtime, anna).held[0]

    _send(runtime, anna, Answer(pair.assignment_id, skip="concern", comment="sounds afraid"))

    while _desk(runtime, anna).held:
        _judge(runtime, anna, 1)
    while _desk(runtime, ben).held:
        _judge(runtime, ben, 1)
    with runtime.store.read() as db:
        shown = db.rows(
            "SELECT person, count(*) AS n FROM judging_assignments WHERE task_id = ?"
            " GROUP BY person ORDER BY person",
            [pair.task_id],
        )
        queue = moderation_queue(read_history(db, batch_id))
    assert shown == [{"person": "anna", "n": 1}, {"person": "ben", "n": 1}]
    assert {entry.essay_id for entry in queue[:2]} == {pair.essay_a, pair.essay_b}
    assert "a person raised a concern: sounds afraid" in queue[0].reasons[0].text


def test_own_pairs_come_back_with_their_sides_exchanged_and_do_not_count(
    judged: tuple[Runtime, str],
) -> None:
    """They only show how steady a person is."""
    runtime, batch_id = judged
    (anna,) = _links(runtime, batch_id, "anna")
    _judge(runtime, anna, 13)

    with runtime.store.read() as db:
        repeats = db.rows(
            "SELECT r.number, r.essay_a, r.essay_b, o.essay_a AS old_a, o.essay_b AS old_b,"
            " o.number AS old_number FROM judging_assignments r JOIN judging_assignments o"
            " ON r.repeats = o.assignment_id ORDER BY r.number"
        )
        counted = db.one("SELECT count(*) AS n FROM comparisons WHERE sequence > 10000000")
        (statistics,) = person_statistics(db, load_batch(db, batch_id))
    assert [row["number"] for row in repeats] == [6, 12]
    assert all((r["essay_a"], r["essay_b"]) == (r["old_b"], r["old_a"]) for r in repeats)
    assert counted == {"n": 11}
    assert (statistics.n_verdicts, statistics.n_repeats, statistics.n_alike) == (11, 2, 2)


def test_a_quota_ends_a_persons_work(judged: tuple[Runtime, str]) -> None:
    """And says so."""
    runtime, batch_id = judged
    (anna,) = _links(runtime, batch_id, "anna", quota=3)
    _judge(runtime, anna, 3)

    desk = _desk(runtime, anna)

    assert desk.held == ()
    assert desk.why_nothing == "You have judged your share. Thank you."


def test_links_that_expired_were_revoked_or_made_up_open_nothing(
    judged: tuple[Runtime, str],
) -> None:
    """And the store has no token, only its hash."""
    runtime, batch_id = judged
    one, two = make_links(runtime, batch_id, ["anna", "ben"], by="test", days=1)
    with runtime.store.read() as db:
        assert link_of(db, one.token, runtime.clock()) is not None
        stored = str(db.rows("SELECT * FROM judge_links"))
    assert one.token not in stored

    revoke_links(runtime, batch_id, "anna", by="test")
    with runtime.store.read() as db:
        assert link_of(db, one.token, runtime.clock()) is None
        assert link_of(db, two.token, runtime.clock()) is not None
        assert link_of(db, two.token, runtime.clock() + timedelta(days=1)) is None
        assert link_of(db, "made-up", runtime.clock()) is None
    with pytest.raises(SettingsError, match="no link to batch"):
        revoke_links(runtime, batch_id, "anna", by="test")


def test_ties_need_a_judge_that_allows_them(judged: tuple[Runtime, str]) -> None:
    """As for a model."""
    runtime, batch_id = judged
    (anna,) = _links(runtime, batch_id, "anna")
    pair = _desk(runtime, anna).held[0]

    with pytest.raises(SettingsError, match="has no ties"):
        _send(runtime, anna, Answer(pair.assignment_id, "tie"))


def test_another_persons_pair_is_refused(judged: tuple[Runtime, str]) -> None:
    """Whatever the request says."""
    runtime, batch_id = judged
    anna, ben = _links(runtime, batch_id, "anna", "ben")
    pair = _desk(runtime, anna).held[0]

    with pytest.raises(SettingsError, match="not yours"):
        _send(runtime, ben, Answer(pair.assignment_id, "A"))


def test_the_band_flags_a_careless_judge_and_spares_careful_ones() -> None:
    """One careful judge of a hundred is above it, at few verdicts and at many."""
    rng = np.random.default_rng(1)
    for n, share_caught in ((12, 0.4), (60, 0.95)):
        p = 1 / (1 + np.exp(-rng.normal(0, 2.5, n)))
        limit = infit_limit(p)
        careful = [infit_of(p, (rng.random(n) < p).astype(float)) for _ in range(2000)]
        clicking = [infit_of(p, (rng.random(n) < 0.5).astype(float)) for _ in range(300)]
        assert np.mean(np.array(careful) > limit) == pytest.approx(0.01, abs=0.01)
        assert np.mean(np.array(clicking) > limit) > share_caught
