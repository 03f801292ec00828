"""Tests of uploader.model.training: equal data gives equal bytes, and no label reaches its own prediction."""

import hashlib
import random
import subprocess
import sys
from uuid import UUID

import numpy as np
import pytest
from scipy.sparse import hstack
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from core.classifiers.classifier import Classifier, make_vectorizers
from tests.unit.simulated_comments import LABELS, simulate_comments
from uploader.model.scoring import score_labels
from uploader.model.training import LabelledTexts, Trained, assign_folds, group_texts, train

COMMENTS = simulate_comments(300, seed=5)


def _data(
    texts: list[str] | None = None, links: list[tuple[int, int]] | None = None, flipped: tuple[int, ...] = ()
) -> LabelledTexts:
    labels = np.array([LABELS.index(comment.label) for comment in COMMENTS])
    for at in flipped:
        labels[at] = 1 - labels[at]
    texts = texts or [comment.text for comment in COMMENTS]
    pairs = [(UUID(int=a), UUID(int=b)) for a, b in links or []]
    return LabelledTexts(LABELS, [UUID(int=at) for at in range(len(texts))], texts, labels, pairs)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(_data())


# Reads no more modules than it needs: they cost more than the training.
_ELSEWHERE = """
import hashlib
from uuid import UUID
import numpy as np
from tests.unit.simulated_comments import LABELS, simulate_comments
from uploader.model.training import LabelledTexts, train
comments = simulate_comments(300, seed=5)
labels = np.array([LABELS.index(comment.label) for comment in comments])
ids = [UUID(int=at) for at in range(300)]
content = train(LabelledTexts(LABELS, ids, [comment.text for comment in comments], labels)).classifier.save()
print(hashlib.sha256(content).hexdigest())
"""


def test_equal_labels_give_equal_bytes_in_any_process(trained: Trained) -> None:
    content = trained.classifier.save()
    done = subprocess.run([sys.executable, "-c", _ELSEWHERE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(content).hexdigest()
    assert Classifier.load(content).save() == content


def test_a_label_has_no_influence_on_its_own_prediction(trained: Trained) -> None:
    folds = assign_folds(_data().labels, group_texts(_data()))
    other = train(_data(flipped=(7,)), folds)
    assert other.classifier.save() != trained.classifier.save()
    flipped = other.probabilities
    np.testing.assert_array_equal(flipped[7], trained.probabilities[7])
    # Its fold's other texts are not affected either; those of the other folds are.
    np.testing.assert_array_equal(flipped[folds == folds[7]], trained.probabilities[folds == folds[7]])
    assert (flipped[folds != folds[7]] != trained.probabilities[folds != folds[7]]).any(axis=1).all()


def test_near_duplicates_are_in_one_fold() -> None:
    texts = [comment.text for comment in COMMENTS]
    texts[50] = texts[10].upper() + "!!! 1"
    # Over several links, and by their letters.
    data = _data(texts, links=[(1, 2), (2, 3), (3, 10), (299, 10_000)])
    groups = group_texts(data)
    assert len({groups[at] for at in (1, 2, 3, 10, 50)}) == 1
    assert len(set(groups)) == len(texts) - 4
    folds = assign_folds(data.labels, groups)
    assert all(len(set(folds[groups == group])) == 1 for group in set(groups))
    # Each fold has its share of each label.
    for fold in set(folds):
        assert 0.1 < (folds == fold).mean() < 0.3
        assert abs(data.labels[folds == fold].mean() - data.labels.mean()) < 0.1


def test_texts_without_letters_are_no_duplicates_of_each_other() -> None:
    texts = [comment.text for comment in COMMENTS]
    texts[0], texts[1], texts[2] = "123", "?!", ""
    assert len(set(group_texts(_data(texts)))) == len(texts)


def test_the_classifier_computes_what_scikit_learn_does(trained: Trained) -> None:
    data = _data()
    truth = simulate_comments(400, seed=6)
    texts = [comment.text for comment in truth]
    found = trained.classifier.probabilities(texts)
    vectorizers = make_vectorizers(min_df=2)
    features = hstack([each.fit_transform(data.texts) for each in vectorizers], format="csr")
    folds = assign_folds(data.labels, group_texts(data))
    splits = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(5)]
    theirs = CalibratedClassifierCV(LogisticRegression(C=4, max_iter=200, tol=1e-3), ensemble=False, cv=splits)
    theirs.fit(features, data.labels)
    expected = theirs.predict_proba(hstack([each.transform(texts) for each in vectorizers], format="csr"))
    # scikit-learn smooths the labels before it calibrates.
    assert np.abs(found - expected).max() < 0.05
    labels = [LABELS.index(comment.label) for comment in truth]
    assert roc_auc_score(labels, found[:, 1]) == pytest.approx(roc_auc_score(labels, expected[:, 1]), abs=1e-4)


def test_probabilities_are_honest(trained: Trained) -> None:
    labels = _data().labels
    found = trained.probabilities
    np.testing.assert_allclose(found.sum(axis=1), 1)
    chance = log_loss(labels, np.full((len(labels), 2), 0.5))
    assert log_loss(labels, found) < chance
    truth = simulate_comments(400, seed=6)
    fresh = trained.classifier.probabilities([comment.text for comment in truth])
    actual = roc_auc_score([LABELS.index(comment.label) for comment in truth], fresh[:, 1])
    # Out-of-fold measures tell the quality on texts that are new.
    assert roc_auc_score(labels, found[:, 1]) == pytest.approx(actual, abs=0.08)


def test_more_than_two_labels() -> None:
    data = _data()
    labels = data.labels[:120].copy()
    labels[::3] = 2
    texts = [
        f"{text} zebra zebra" if label == 2 else text for text, label in zip(data.texts, labels, strict=False)
    ]
    trained = train(LabelledTexts(("a", "b", "c"), data.ids[:120], texts, labels))
    np.testing.assert_allclose(trained.probabilities.sum(axis=1), 1)
    assert (trained.probabilities.argmax(axis=1) == 2)[labels == 2].mean() > 0.95
    assert Classifier.load(trained.classifier.save()).labels == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("texts", "least"),
    [
        ([comment.text.replace(" ", "") for comment in COMMENTS], 0.6),  # as in languages without spaces
        (["\U0001f600" if LABELS.index(comment.label) else "\U0001f621" for comment in COMMENTS], 0.99),
    ],
)
def test_texts_without_common_words(texts: list[str], least: float) -> None:
    data = _data(texts)
    trained = train(data, np.arange(len(texts)) % 5)
    assert (trained.probabilities.argmax(axis=1) == data.labels).mean() > least
    loaded = Classifier.load(trained.classifier.save())
    assert (loaded.probabilities(texts).argmax(axis=1) == data.labels).mean() > least


def test_texts_without_a_known_word_are_scored(trained: Trained) -> None:
    found = trained.classifier.probabilities(["", "漢字", "x" * 1_000_000])
    assert found.shape == (3, 2)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_flipped_labels_have_a_low_quality() -> None:
    flipped = tuple(range(0, 300, 15))
    data = _data(flipped=flipped)
    quality = score_labels(data.ids, data.labels, train(data).probabilities, {})
    worst = np.argsort(quality)[: len(flipped)]
    assert len(set(worst) & set(flipped)) >= 8


def test_several_annotators_count_beside_the_model() -> None:
    generator = random.Random(1)  # noqa: S311 - repeatable
    data = _data()
    probabilities = np.full((300, 2), 0.5)
    answers = {}
    for at in range(60):
        right = int(data.labels[at])
        # The careless one guesses; the others are right.
        answers[data.ids[at]] = [("a", right), ("b", right), ("careless", generator.randrange(2))]
    doubted, agreed = 0, 1
    wrong = 1 - int(data.labels[doubted])
    answers[data.ids[doubted]] = [("a", wrong), ("careless", int(data.labels[doubted])), ("b", wrong)]
    answers[data.ids[agreed]] = [(name, int(data.labels[agreed])) for name in ("a", "b", "careless")]
    quality = score_labels(data.ids, data.labels, probabilities, answers)
    # The label says otherwise than the two that are reliable.
    assert quality[doubted] < 0.3
    assert quality[agreed] > 0.8
    # Without further answers, the model alone decides.
    np.testing.assert_allclose(quality[60:], 0.5)
