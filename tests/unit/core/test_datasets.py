"""What a datasets file may say."""

import re
from importlib.resources import files
from pathlib import Path

import pytest

from core.datasets import Dataset, list_adjudications, load_datasets

LABELS = 'labels = ["a", "b"]\nguidelines = "g"\n'


def _write(tmp_path: Path, settings: str) -> Path:
    path = tmp_path / "datasets.toml"
    path.write_text(f"[d]\n{LABELS}{settings}")
    return path


def test_enrichment_is_off_unless_set() -> None:
    for dataset in load_datasets(None).values():
        assert not dataset.enriches
        assert dataset.near_duplicates == "off"


def test_all_of_it_can_be_set(tmp_path: Path) -> None:
    settings = 'language = true\nredact = ["phone"]\nphone_regions = ["DE"]\nnear_duplicates = "link"\n'
    dataset = load_datasets(_write(tmp_path, settings))["d"]
    assert (dataset.enriches, dataset.phone_regions, dataset.near_duplicate_similarity) == (True, ("DE",), 0.8)


def test_a_model_is_off_in_files_and_on_in_the_default(tmp_path: Path) -> None:
    assert load_datasets(None)["toxicity"].model.enabled
    dataset = load_datasets(_write(tmp_path, ""))["d"]
    assert (dataset.model.enabled, dataset.uses_model_scores) == (False, False)
    dataset = load_datasets(_write(tmp_path, 'model.enabled = true\norder = "mixed"\n'))["d"]
    assert dataset.uses_model_scores
    # Nobody suggests a label to those who decide disputes.
    assert not dataset.adjudication.model.enabled


def test_shown_suggestions_are_the_senders(tmp_path: Path) -> None:
    for word in ("shown", "sender"):
        assert load_datasets(_write(tmp_path, f'suggestions = "{word}"\n'))["d"].suggestions == "sender"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('redact = ["name"]', "d.redact.0: Input should be 'email', 'phone', 'card' or 'token'"),
        ('redact = ["phone"]\nphone_regions = ["Germany"]', "d.phone_regions: .*Germany"),
        ('phone_regions = ["DE"]', 'd: .*redact does not name "phone"'),
        ('near_duplicates = "yes"', "d.near_duplicates: Input should be 'off', 'link' or 'ask_once'"),
        ("near_duplicate_similarity = 0.5", "d.near_duplicate_similarity: .*greater than or equal to 0.7"),
        ("anwsers_wanted = 2", "d.anwsers_wanted: there is no such key; did you mean answers_wanted?"),
        (
            '[[d.questions]]\nname = "q"\ntype = "text"\ntitel = "Q"',
            "d.questions.0.title: is required\n.*: d.questions.0.titel: .*did you mean title?",
        ),
        ('[[d.questions]]\nname = "q"\ntype = "text"', "d.questions.0.title: is required"),
        ('[[d.questions]]\nname = "label"\ntype = "text"\ntitle = "Q"', "d.questions.0: the name label"),
        ("model.enabeld = true", "d.model.enabeld: .*did you mean enabled?"),
        ("model.min_labels = 1", "d.model.min_labels: .*greater than or equal to 20"),
        ('suggestions = "model"', 'd: .*suggestions = "model" needs model.enabled = true'),
        ("x = ", "is not TOML: Invalid value .at line 4"),
        ("x = [", "is not TOML: "),
        ('[D]\nlabels = ["a", "b"]\nguidelines = "g"', "D: must be like"),
        ('[e]\nlabels = "a, b"\nguidelines = "g"', "e.labels: must be a list"),
        ("[e]", "e.labels: is required\n.*: e.guidelines: is required"),
    ],
)
def test_what_is_wrong_is_named_with_its_key(tmp_path: Path, settings: str, said: str) -> None:
    with pytest.raises(SystemExit, match=f"^{tmp_path}/datasets.toml: {said}"):
        load_datasets(_write(tmp_path, settings + "\n"))


def test_a_file_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    file = _write(tmp_path, "")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert load_datasets(file).keys() == {"d"}


def test_all_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as refusal:
        load_datasets(_write(tmp_path, 'order = "first"\nanswers_wanted = 0\ngold_share = 2\nx = 1\n'))
    lines = str(refusal.value).splitlines()
    named = {line.partition("toml: ")[2].partition(":")[0] for line in lines}
    assert named == {"d.order", "d.answers_wanted", "d.gold_share", "d.x"}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"none.toml: cannot be read: No such file"):
        load_datasets(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"[d]\n# \xe9\n")
    with pytest.raises(SystemExit, match=r"latin.toml: is not TOML: it is not UTF-8"):
        load_datasets(tmp_path / "latin.toml")
    (tmp_path / "empty.toml").touch()
    with pytest.raises(SystemExit, match=r"empty.toml: defines no dataset"):
        load_datasets(tmp_path / "empty.toml")


def _question(name: str, kind: str = "text", more: str = "") -> str:
    return f'[[d.questions]]\nname = "{name}"\ntitle = "T"\ntype = "{kind}"\n{more}\n'


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (_question("q") + _question("q"), "names a question twice"),
        (
            _question("q", "span", 'labels = ["a"]') + _question("r", "span", 'labels = ["a"]'),
            "one question of type",
        ),
        (_question("q", "span"), "a span needs labels"),
        (_question("q", "text", 'labels = ["a"]'), "nothing else has any"),
        (_question("q", "text", "ratings = [1, 2]"), "only a rating has ratings"),
        (_question("q", "rating", "ratings = [1, 1]"), "names an option twice"),
    ],
)
def test_questions_that_argilla_would_not_take_are_refused(tmp_path: Path, settings: str, said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        load_datasets(_write(tmp_path, settings))


def test_adjudicators_are_told_what_they_do(tmp_path: Path) -> None:
    dataset = load_datasets(_write(tmp_path, "answers_wanted = 3\ndispute_extra = 2\n"))["d"].adjudication
    assert dataset.guidelines.startswith("g\n")
    assert "For adjudicators" in dataset.guidelines
    assert (dataset.answers_wanted, dataset.dispute_extra, dataset.labels) == (2, 0, ("a", "b"))


def test_guidelines_leave_room_for_what_adjudicators_are_told(tmp_path: Path) -> None:
    file = tmp_path / "datasets.toml"
    file.write_text(f'[d]\nlabels = ["a", "b"]\nguidelines = "{"x" * 9_600}"\n')
    load_datasets(file)
    file.write_text(file.read_text() + "dispute_extra = 1\n")
    with pytest.raises(SystemExit, match="toml: d: if dispute_extra is set, the guidelines may have"):
        load_datasets(file)


def test_what_the_shipped_file_only_shows_is_right_too(tmp_path: Path) -> None:
    shipped = files("core").joinpath("default_datasets.toml").read_text()
    shown = re.sub(r"^# (?=\w+ = |\[\[)", "", shipped, flags=re.MULTILINE)
    (tmp_path / "datasets.toml").write_text(shown)
    dataset = load_datasets(tmp_path / "datasets.toml")["toxicity"]
    assert dataset.model_fields_set == set(Dataset.model_fields)


def test_no_adjudicators_where_there_are_no_annotators() -> None:
    dataset = Dataset(labels=("a", "b"), guidelines="g", dispute_extra=1)
    assert list_adjudications({"a": dataset}) == ["a-adjudication"]
    assert list_adjudications({"a": dataset.model_copy(update={"upload": False})}) == []
