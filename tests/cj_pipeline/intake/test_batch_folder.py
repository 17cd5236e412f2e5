"""Reading a batch folder: what is taken in, and everything that is not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cj_pipeline.errors import BatchProblemsError
from cj_pipeline.intake.batch_folder import read_batch
from cj_pipeline.text import MAX_CHARACTERS
from tests.support.batches import write_batch

Folder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A way to write a sound batch folder with some files replaced or (None) left out."""

    def write(changes: dict[str, str | bytes | None] | None = None) -> Path:
        files: dict[str, str | bytes | None] = {
            "batch.yaml": "judges: [quality]\n",
            "instructions.md": "Describe a place.\n",
            "essays/anna.txt": "The harbour smells of tar.\n",
            "essays/bob.txt": "My room is small.\n",
        }
        files.update(changes or {})
        root = tmp_path / "spring-9"
        for name, content in files.items():
            if content is None:
                continue
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return root

    return write


def problems_of(root: Path) -> list[str]:
    """Return what is wrong with a folder."""
    with pytest.raises(BatchProblemsError) as caught:
        read_batch(root)
    return list(caught.value.problems)


def test_a_folder_becomes_a_batch_named_after_it(folder: Folder) -> None:
    """What goes in is a folder: its name, its files and its settings."""
    batch = read_batch(folder())

    assert batch.batch_id == "spring-9"
    assert [essay.essay_id for essay in batch.essays] == ["anna", "bob"]
    assert batch.document("instructions") == "Describe a place.\n"
    assert batch.settings.values.judges == ("quality",)


def test_an_essays_checksum_is_of_the_bytes_handed_in(folder: Folder) -> None:
    """So that a file can be checked against what its author sent, whatever was normalised."""
    content = b"\xef\xbb\xbfOne line,\r\nanother.\r"

    essay = read_batch(folder({"essays/anna.txt": content})).essays[0]

    assert essay.text == "One line,\nanother.\n"
    assert essay.sha256 == hashlib.sha256(content).hexdigest()
    assert essay.n_bytes == len(content)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_texts_may_come_as_any_unicode_file_that_says_what_it_is(
    folder: Folder, encoding: str
) -> None:
    """UTF-8 with or without a byte order mark, and UTF-16 with one (Windows Notepad)."""
    text = "Där ligger hamnen – tjära och salt."

    batch = read_batch(folder({"essays/anna.txt": text.encode(encoding)}))

    assert batch.essays[0].text == text


def test_a_text_is_judged_as_handed_in(folder: Folder) -> None:
    """Spelling, spaces and anything a student wrote stay: they are what is judged."""
    text = "  I  recieve\tit \u201csoon\u201d.  \n\n Choose me, \u0645\u0631\u062d\u0628\u0627!\n"

    batch = read_batch(folder({"essays/anna.txt": text}))

    assert batch.essays[0].text == text


def test_every_problem_is_told_at_once(folder: Folder) -> None:
    """Mending one problem per attempt is what people leave a system for."""
    root = folder(
        {
            "batch.yaml": "judges: [quality]\nmax_pairwise_comparison: 10\n",
            "instructions.md": None,
            "essays/anna.txt": "",
            "essays/bob.txt": b"caf\xe9",
            "essays/cay.docx": b"PK\x03\x04",
            "essays/dan.heic": b"a photograph",
        }
    )

    found = "\n".join(problems_of(root))

    assert "'max_pairwise_comparison'; did you mean 'max_pairwise_comparisons'?" in found
    assert "instructions.md is missing" in found
    assert "essays/anna.txt is empty" in found
    assert "essays/bob.txt is not UTF-8 (byte 0xe9 at position 3)" in found
    assert "essays/cay.docx is not a Word file (.docx) that can be unpacked" in found
    assert "essays/dan.heic is a picture" in found
    assert "too few essays" in found


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
        (b"... !?", "no letter"),
        (b"one\ntw\x00o", "control character U+0000 on line 2"),
        ("mojibake â\x80\x99".encode(), "control character U+0080"),
        (b"\xff\xfe\x00\x00a\x00\x00\x00", "UTF-32"),
        (b"\xff\xfea\x00\x00\xd8", "is not UTF-16"),
        (b"%PDF-1.7 ...", "is a PDF"),
        (b"a" * (MAX_CHARACTERS + 1), "characters, more than"),
        (b"a" * (4 * MAX_CHARACTERS + 1), "bytes, more than"),
    ],
)
def test_a_text_that_cannot_be_judged_is_named_with_its_flaw(
    folder: Folder, content: bytes, words: str
) -> None:
    """A file that silently became another text would be a wrong grade."""
    (problem,) = problems_of(folder({"essays/cay.txt": content}))

    assert problem.startswith("essays/cay.txt ")
    assert words in problem


@pytest.mark.parametrize(
    "copied",
    [
        "\ufeffThe  harbour smells\r\nof tar.",
        "Th\u200be ha\u2060rbour smells \u202eof\u202c tar.",
        "The harbour smells of tar.\U000e0041\U000e0042",
        "The\u200d har\ufe01bour smells of tar.",
    ],
    ids=["saved otherwise", "zero width", "tags", "joiners"],
)
def test_identical_texts_are_a_problem_however_they_were_saved(folder: Folder, copied: str) -> None:
    """One text submitted twice would be compared with itself, marked by what nobody sees or not."""
    root = folder({"essays/bob.txt": copied})

    assert problems_of(root) == [
        "essays/anna.txt and essays/bob.txt are identical texts: keep one of them"
    ]


def test_names_that_differ_in_any_sign_are_two_people(folder: Folder) -> None:
    """Otherwise one student's verdicts would count for another."""
    essays = read_batch(folder({"essays/Anna!.txt": "Another text."})).essays

    ids = {essay.given_id: essay.essay_id for essay in essays}
    assert ids["anna"] == "anna"
    assert ids["Anna!"].startswith("anna-")


def test_one_name_in_two_forms_of_unicode_is_told_by_its_letters(folder: Folder) -> None:
    """Both look the same on every screen, so the message has to show where they differ."""
    root = folder({"essays/J\u00fcrgen.txt": "Eins.", "essays/Ju\u0308rgen.txt": "Zwei."})

    (problem,) = problems_of(root)

    assert "U+00FC" in problem
    assert "U+0308" in problem


def test_links_are_not_followed(folder: Folder, tmp_path: Path) -> None:
    """A link could bring any file of the machine before a judge."""
    secret = tmp_path / "secret.txt"
    secret.write_text("A private text.")
    root = folder()
    (root / "essays" / "cay.txt").symlink_to(secret)

    assert problems_of(root) == ["essays/cay.txt is a link: put the file itself there"]


def test_a_linked_folder_of_essays_is_not_followed(folder: Folder, tmp_path: Path) -> None:
    """The same for a whole folder."""
    (tmp_path / "elsewhere").mkdir()
    root = folder()
    (root / "anchors").symlink_to(tmp_path / "elsewhere")

    assert "anchors is not a folder" in problems_of(root)


def test_a_pipe_among_the_essays_does_not_block(folder: Folder) -> None:
    """Opening a named pipe would wait for ever."""
    root = folder()
    os.mkfifo(root / "essays" / "cay.txt")

    assert problems_of(root) == ["essays/cay.txt is not a file"]


def test_an_unreadable_file_is_a_problem(folder: Folder) -> None:
    """A folder in the place of a file represents all that cannot be read, also for root."""
    root = folder()
    (root / "essays" / "cay.txt").mkdir()

    assert problems_of(root) == ["essays/cay.txt is a folder without an essay in it: take it out"]


def test_what_file_managers_leave_behind_is_no_essay(folder: Folder) -> None:
    """Users do not see these files, so they could not remove them."""
    root = folder({"essays/.DS_Store": b"\0", "essays/~$anna.txt": b"\0", "essays/Thumbs.db": b""})

    assert len(read_batch(root).essays) == 2


def test_a_name_that_is_almost_known_is_told(folder: Folder) -> None:
    """A rubric that no judge ever saw would be found out weeks later."""
    root = folder({"rubrik.md": "Clarity.", "notes.md": "Mine."})

    found = problems_of(root)

    assert any(
        problem.startswith("rubrik.md is not a file of a batch folder; did you mean 'rubric.md'?")
        for problem in found
    )
    assert any(problem.startswith("notes.md is a loose text") for problem in found)


def test_a_missing_folder_is_told_by_its_path(tmp_path: Path) -> None:
    """A typing error in a path is the commonest problem of all."""
    assert problems_of(tmp_path / "nowhere") == [f"there is no folder {tmp_path / 'nowhere'}"]


def test_a_batch_needs_two_essays(folder: Folder) -> None:
    """One essay makes no pair."""
    (problem,) = problems_of(folder({"essays/bob.txt": None}))

    assert "too few essays: 1" in problem


def test_essays_must_be_given(folder: Folder) -> None:
    """Neither a folder nor a table is a problem of its own."""
    root = folder({"essays/anna.txt": None, "essays/bob.txt": None})

    assert "the essays are missing: give essays/*.txt or essays.csv" in problems_of(root)


def test_essays_are_given_once(folder: Folder) -> None:
    """With both, it is unclear which is meant."""
    root = folder({"essays.csv": "essay_id,text\ncay,Rain again.\n"})

    assert problems_of(root) == ["both essays/ and essays.csv are given: keep one of them"]


class TestTables:
    """`essays.csv` and `anchors.csv`."""

    @staticmethod
    def table(folder: Folder, content: str | bytes) -> Path:
        """Return a folder whose essays are this table."""
        return folder({"essays/anna.txt": None, "essays/bob.txt": None, "essays.csv": content})

    def test_a_table_gives_the_same_as_files(self, folder: Folder) -> None:
        """A text keeps its line breaks, commas and quotes; its checksum is of the cell."""
        root = self.table(folder, 'essay_id,text\nanna,"One,\r\n""two"""\nbo,Three\n')

        essay = read_batch(root).essays[0]

        assert (essay.essay_id, essay.text) == ("anna", 'One,\n"two"')
        assert essay.sha256 == hashlib.sha256(b'One,\r\n"two"').hexdigest()

    def test_ids_are_made_fit_and_the_names_are_kept(self, folder: Folder) -> None:
        """Ids travel to providers; what the school calls an essay stays findable."""
        root = self.table(folder, "essay_id,text\nukp:199550,One\n7,Two\nÅsa Öberg,Three\n")

        essays = read_batch(root).essays

        assert [e.essay_id for e in essays] == ["ukp-199550", "essay-7", "asa-oberg"]
        assert essays[0].source_path == "essays.csv#ukp:199550"

    @pytest.mark.parametrize("mark", [",", ";", "\t"])
    def test_spreadsheets_of_every_country_are_read(self, folder: Folder, mark: str) -> None:
        """Where a comma is the decimal sign, spreadsheets write semicolons."""
        rows = [
            ("Text", "essay_id", "class"),
            ("One, two; three.", "anna", "9b"),
            ("Ab", "bob", ""),
        ]
        content = "\r\n".join(mark.join(f'"{cell}"' for cell in row) for row in rows)

        essays = read_batch(self.table(folder, "\ufeff" + content)).essays

        assert [(e.essay_id, e.text) for e in essays] == [
            ("anna", "One, two; three."),
            ("bob", "Ab"),
        ]

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("", "essays.csv is empty"),
            ("who,text\na,b\n", "lacks the column essay_id"),
            ("essay_id,text,text\na,b,c\n", "names the column text twice"),
            ("essay_id,text,grade\nanna,b,A\n", "belong in anchors.csv"),
            ("essay_id,text\n", "no row below its header"),
            ("essay_id,text\nanna,b,c\n", "line 2: 3 cells, but the header names 2"),
            ("essay_id,text\nanna,\n", "line 2: the text is empty"),
            ("essay_id,text\n,One\n", "line 2: the essay_id must be"),
            ('essay_id,text\nanna,"One\n', "cannot be read from line 2 on"),
            ("essay_id,text\nanna," + "a" * 140_000, "more than the 100,000 characters"),
            (b"essay_id,text\nanna,caf\xe9\n", "is not UTF-8"),
        ],
    )
    def test_a_wrong_table_is_told_by_line(
        self, folder: Folder, content: str | bytes, words: str
    ) -> None:
        """A cell in the wrong column is a text no student wrote."""
        found = "\n".join(problems_of(self.table(folder, content)))

        assert words in found

    def test_one_id_in_two_rows_is_a_problem(self, folder: Folder) -> None:
        """The same row pasted twice, or two students of one name."""
        root = self.table(folder, "essay_id,text\nanna,One\nben,Two\nanna,Three\n")

        (problem,) = problems_of(root)

        assert "line 4: 'anna' stands in essays.csv line 2 already" in problem


class TestAnchors:
    """Essays whose grade is known beforehand."""

    SETTINGS = "judges: [quality]\nscale: eng5_np_national_9_step\n"

    def test_grades_may_come_in_a_table_beside_the_texts(self, folder: Folder) -> None:
        """The way a class list is kept."""
        root = folder(
            {
                "batch.yaml": self.SETTINGS,
                "anchors/kim.txt": "A known text.",
                "anchors/grades.csv": "file,grade\nkim.txt,7\n",
            }
        )

        assert [(a.essay_id, a.grade) for a in read_batch(root).anchors] == [("kim", "7")]

    def test_grades_may_come_in_the_files_names(self, folder: Folder) -> None:
        """The way a folder of examples is kept."""
        root = folder({"batch.yaml": self.SETTINGS, "anchors/7__kim.txt": "A known text."})

        assert [(a.essay_id, a.grade) for a in read_batch(root).anchors] == [("kim", "7")]

    def test_grades_may_come_with_the_texts(self, folder: Folder) -> None:
        """The way a spreadsheet is kept."""
        root = folder(
            {
                "batch.yaml": self.SETTINGS,
                "anchors.csv": "essay_id,text,grade\nkim,A known text.,7\n",
            }
        )

        assert [(a.essay_id, a.grade) for a in read_batch(root).anchors] == [("kim", "7")]

    def test_an_unknown_grade_is_told_with_the_known_ones(self, folder: Folder) -> None:
        """A grade of another scale is the commonest mistake with anchors."""
        root = folder({"batch.yaml": self.SETTINGS, "anchors/B__kim.txt": "A known text."})

        assert problems_of(root) == [
            "anchors/B__kim.txt: unknown grade 'B' on eng5_np_national_9_step;"
            " known: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
        ]

    def test_an_anchor_without_a_grade_is_told_what_to_do(self, folder: Folder) -> None:
        """Both ways of giving grades are named."""
        root = folder({"batch.yaml": self.SETTINGS, "anchors/kim.txt": "A known text."})

        (problem,) = problems_of(root)

        assert "anchors/kim.txt has no grade: list it in anchors/grades.csv" in problem

    def test_grades_and_files_must_match(self, folder: Folder) -> None:
        """A grade for a file that is not there belongs to another one, likely misspelt."""
        root = folder(
            {
                "batch.yaml": self.SETTINGS,
                "anchors/kim.txt": "A known text.",
                "anchors/grades.csv": "file,grade\nkimm.txt,7\n../kim.txt,3\n",
            }
        )

        found = "\n".join(problems_of(root))

        assert "line 2: anchors/ has no file 'kimm.txt'; did you mean 'kim.txt'?" in found
        assert "line 3: anchors/ has no file '../kim.txt'" in found
        assert "anchors/kim.txt has no grade in anchors/grades.csv" in found

    def test_anchors_need_a_scale(self, folder: Folder) -> None:
        """A grade means nothing without the scale it is on."""
        root = folder({"anchors/7__kim.txt": "A known text."})

        assert problems_of(root) == [
            "batch.yaml names no scale, so the anchors' grades mean nothing: add `scale: ...`"
        ]

    def test_an_anchor_may_not_be_a_students_text(self, folder: Folder) -> None:
        """Its grade would be known and projected at once."""
        root = folder(
            {"batch.yaml": self.SETTINGS, "anchors/7__kim.txt": "The harbour smells of tar."}
        )

        (problem,) = problems_of(root)

        assert "essays/anna.txt and anchors/7__kim.txt are identical texts" in problem


class TestSettings:
    """`batch.yaml`."""

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("judges: [quality\n", "batch.yaml is not YAML on line 2"),
            ("- quality\n", "must hold `key: value` lines"),
            ("seed: 1\nseed: 2\n", "the key 'seed' is given twice"),
            ("x: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
            ("scale: nine_steps\n", "Unknown grade scale 'nine_steps'"),
            ("seed: soon\n", "seed: it must be a whole number"),
            ("judges: quality\n", "judges: it must be a list, as in"),
            ("precise: 90%\n", "as in `precise: {reliability: 0.9}`"),
            ("language: no\n", "put it in quotes, since YAML reads False there"),
            ("both_orders: nein\n", "both_orders: write true or false"),
            ("title: Class 9b: May\n", "put a text that holds a colon in quotes"),
            ("judges:\n\t- quality\n", "indent with blanks, not with tabs"),
            ("scale: CEFR\n", "did you mean 'cefr'?"),
            ("emulator_qualities: {zed: 1.0}\n", "no essay has the id 'zed'"),
        ],
    )
    def test_what_cannot_be_used_is_told(self, folder: Folder, content: str, words: str) -> None:
        """A setting that is silently dropped is a batch that does something else."""
        found = "\n".join(problems_of(folder({"batch.yaml": content})))

        assert words in found

    def test_what_is_set_by_hand_wins_over_the_file(self, folder: Folder) -> None:
        """And it stays known where the value came from."""
        batch = read_batch(folder({"batch.yaml": "seed: 1\n"}), explicit={"seed": 2})

        assert batch.settings.values.seed == 2
        assert batch.settings.origins["seed"] == "explicit"

    def test_a_batch_may_be_given_a_name(self, folder: Folder) -> None:
        """One folder can be submitted again under another name."""
        assert read_batch(folder(), batch_id="retest").batch_id == "retest"

    def test_a_name_that_no_system_takes_is_refused(self, folder: Folder) -> None:
        """Names become partition keys and folders."""
        with pytest.raises(BatchProblemsError, match="cannot name a batch"):
            read_batch(folder(), batch_id="../Retest")


class TestContentChecksum:
    """The same folder gives the same value, and only the same folder."""

    def test_it_does_not_depend_on_where_the_folder_lies(self, folder: Folder) -> None:
        """The same batch on two machines is one batch."""
        root = folder()
        before = read_batch(root)

        after = read_batch(root.rename(root.with_name("moved")))

        assert after.content_sha256 == before.content_sha256

    @pytest.mark.parametrize("name", ["essays/anna.txt", "batch.yaml", "judges/mine.yaml"])
    def test_it_changes_with_any_file(self, folder: Folder, name: str) -> None:
        """Texts, settings and the batch's own judges all decide what comes out."""
        before = read_batch(folder())

        after = read_batch(folder({name: "judges: [human-votes]\n"}))

        assert after.content_sha256 != before.content_sha256


def test_a_scale_of_the_batchs_own_is_read_with_the_batch(tmp_path: Path) -> None:
    """It is a document of the batch like its instructions, so it is kept and checksummed."""
    settings = {"scale": "house", "grades": "none"}
    folder = write_batch(tmp_path / "own", n_students=3, settings=settings)
    (folder / "scale.yaml").write_text("name: house\ntitle: House\ngrades: [poor, good]\n")

    batch = read_batch(folder)

    assert "grades: [poor, good]" in batch.document("scale")


def test_everything_wrong_with_scale_and_batch_is_told_at_once(tmp_path: Path) -> None:
    """One round of mending must do, whichever file it is in."""
    folder = write_batch(tmp_path / "own", n_students=3, settings={"scale": "house"})
    (folder / "scale.yaml").write_text("name: house\ngrades: [D, D]\nplus: [Z]\ncolour: red\n")
    (folder / "essays" / "empty.txt").write_text("")

    with pytest.raises(BatchProblemsError) as raised:
        read_batch(folder)

    listed = "\n".join(raised.value.problems)
    assert all(part in listed for part in ("title", "listed twice: D", "colour", "empty.txt"))


def test_priors_that_nobody_published_cannot_be_used(tmp_path: Path) -> None:
    """Asked for and left out in silence, they would seem to have been used."""
    folder = write_batch(
        tmp_path / "own", n_students=3, settings={"scale": "cefr", "use_priors": True}
    )

    with pytest.raises(BatchProblemsError, match="use_priors"):
        read_batch(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spend_cap_usd", ".inf"),
        ("spend_cap_usd", ".nan"),
        ("spend_cap_usd", "1e300"),
        ("max_pairwise_comparisons", "1000000000000000000"),
        ("stall_after_s", ".inf"),
        ("incomplete_after_s", "1e12"),
        ("mean_se_warning", ".nan"),
        ("max_resampling_passes_for_small_net", "1000000"),
        ("precise", "{mean_standard_error: .inf}"),
    ],
)
def test_what_is_no_number_or_no_sensible_one_is_a_problem_like_others(
    folder: Folder, key: str, value: str
) -> None:
    """A cap without an end is no cap, and the other problems are told with it."""
    root = folder({"batch.yaml": f"judges: [quality]\n{key}: {value}\nno_such_key: 1\n"})

    found = "\n".join(problems_of(root))

    assert key in found
    assert "no_such_key" in found
