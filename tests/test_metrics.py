"""Metrics against scikit-learn and SciPy, and against values worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from audiosearch import metrics
from audiosearch.errors import InvalidArgumentError


@pytest.fixture(scope="module")
def judged() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    truth = random.random((300, 12)) < 0.15
    scores = random.normal(size=(300, 12)) + 1.3 * truth
    scores[:, :4] = np.round(scores[:, :4], 1)  # ties
    truth[:, 5] = False
    truth[:, 6] = True
    return truth, scores


def test_average_precision_is_that_of_scikit_learn(judged):
    from sklearn.metrics import average_precision_score

    truth, scores = judged
    found = metrics.average_precision(truth, scores)
    for index in range(truth.shape[1]):
        if index == 5:
            assert np.isnan(found[index])
        else:
            wanted = average_precision_score(truth[:, index], scores[:, index])
            assert found[index] == pytest.approx(wanted, abs=1e-12)


def test_auc_is_that_of_scikit_learn(judged):
    from sklearn.metrics import roc_auc_score

    truth, scores = judged
    found = metrics.roc_auc(truth, scores)
    for index in range(truth.shape[1]):
        if index in (5, 6):
            assert np.isnan(found[index])
        else:
            wanted = roc_auc_score(truth[:, index], scores[:, index])
            assert found[index] == pytest.approx(wanted, abs=1e-12)


def test_average_precision_worked_out_by_hand():
    truth = np.array([[1], [0], [1], [0]])
    scores = np.array([[0.9], [0.8], [0.7], [0.1]])
    # Positives at ranks 1 and 3: (1/1 + 2/3) / 2.
    assert metrics.average_precision(truth, scores)[0] == pytest.approx(5 / 6)


def test_d_prime_of_the_published_baseline():
    # Google's AudioSet baseline states AUC 0.959 and d-prime 2.452.
    assert metrics.d_prime(0.959) == pytest.approx(2.452, abs=0.01)
    assert metrics.d_prime(0.5) == pytest.approx(0.0, abs=1e-12)


def test_macro_mean_leaves_out_classes_without_a_value():
    assert metrics.macro_mean([0.5, np.nan, 1.0]) == 0.75
    assert np.isnan(metrics.macro_mean([np.nan]))


@pytest.mark.parametrize(
    ("truth", "scores"),
    [
        (np.zeros((3, 2)), np.zeros((3, 3))),
        (np.zeros(3), np.zeros(3)),
        (np.zeros((0, 2)), np.zeros((0, 2))),
        (np.zeros((2, 2)), np.array([[0.0, np.nan], [0.0, 0.0]])),
    ],
)
def test_what_does_not_fit_is_refused(truth, scores):
    with pytest.raises(InvalidArgumentError):
        metrics.average_precision(truth, scores)


@settings(max_examples=60, deadline=None)
@given(
    npst.arrays(bool, (20, 2)),
    npst.arrays(np.float64, (20, 2), elements=st.integers(-100, 100).map(float)),
    st.floats(0.5, 4.0),
)
def test_only_the_order_of_the_scores_matters(truth, scores, factor):
    once = metrics.average_precision(truth, scores)
    again = metrics.average_precision(truth, factor * scores + 3.0)
    np.testing.assert_allclose(once, again)
    finite = once[np.isfinite(once)]
    assert ((finite > 0) & (finite <= 1)).all()
