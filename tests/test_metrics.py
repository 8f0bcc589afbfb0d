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


def test_lwlrap_is_scikit_learns_weighted_by_the_labels_of_each_clip(judged):
    from sklearn.metrics import label_ranking_average_precision_score

    truth, scores = judged
    wanted = label_ranking_average_precision_score(truth, scores, sample_weight=truth.sum(axis=1))
    overall, per_class = metrics.lwlrap(truth, scores)
    assert overall == pytest.approx(wanted, abs=1e-12)
    assert np.isnan(per_class[5])
    share = truth.sum(axis=0) / truth.sum()
    assert np.nansum(per_class * share) == pytest.approx(overall, abs=1e-12)


def test_lwlrap_by_its_definition(judged):
    truth, scores = judged
    found = {index: [] for index in range(truth.shape[1])}
    for labels, row in zip(truth, scores, strict=True):
        for index in np.flatnonzero(labels):
            as_high = [other for other in range(len(row)) if row[other] >= row[index]]
            found[index].append(sum(labels[other] for other in as_high) / len(as_high))
    overall, per_class = metrics.lwlrap(truth, scores)
    for index, values in found.items():
        if values:
            assert per_class[index] == pytest.approx(np.mean(values), abs=1e-12)
    assert overall == pytest.approx(
        np.mean([value for values in found.values() for value in values]), abs=1e-12
    )


def test_lwlrap_without_any_label_has_no_value():
    overall, per_class = metrics.lwlrap(np.zeros((4, 3)), np.ones((4, 3)))
    assert np.isnan(overall)
    assert np.isnan(per_class).all()


def test_precision_recall_curve_is_that_of_scikit_learn(judged):
    from sklearn.metrics import precision_recall_curve

    truth, scores = judged
    for index in (0, 7):
        precision, recall, thresholds = metrics.precision_recall_curve(
            truth[:, index], scores[:, index]
        )
        wanted = precision_recall_curve(truth[:, index], scores[:, index])
        # scikit-learn goes from the lowest threshold up and adds a point at recall 0.
        np.testing.assert_allclose(precision[::-1], wanted[0][:-1], atol=1e-12)
        np.testing.assert_allclose(recall[::-1], wanted[1][:-1], atol=1e-12)
        np.testing.assert_allclose(thresholds[::-1], wanted[2])
    with pytest.raises(InvalidArgumentError, match="positive"):
        metrics.precision_recall_curve(np.zeros(3), np.ones(3))


@pytest.fixture(scope="module")
def shares() -> tuple[np.ndarray, np.ndarray]:
    """Scores that are too high: half of each would be right."""
    random = np.random.default_rng(1)
    scores = random.random((4000, 3)).astype(np.float32)
    return random.random((4000, 3)) < scores / 2, scores


def test_brier_and_log_loss_are_those_of_scikit_learn(shares):
    from sklearn.metrics import brier_score_loss, log_loss

    truth, scores = shares
    for index in range(3):
        column = (truth[:, index], scores[:, index].astype(float))
        assert metrics.brier(truth, scores)[index] == pytest.approx(brier_score_loss(*column))
        assert metrics.log_loss(truth, scores)[index] == pytest.approx(log_loss(*column))
    sure_and_wrong = metrics.log_loss(np.array([[True], [False]]), np.array([[0.0], [0.0]]))
    assert 5 < sure_and_wrong[0] < 10


def test_calibration_error_by_its_definition(shares):
    truth, scores = shares
    for bins in (1, 10, 15):
        wanted = []
        for index in range(3):
            place = np.digitize(scores[:, index], np.linspace(0, 1, bins + 1)[1:-1])
            gaps = [
                abs(scores[place == k, index].mean() - truth[place == k, index].mean())
                * np.mean(place == k)
                for k in range(bins)
            ]
            wanted.append(sum(gaps))
        found = metrics.expected_calibration_error(truth, scores, bins=bins)
        np.testing.assert_allclose(found, wanted, atol=1e-3)
    # Scores of mean 0.5 of which half is right.
    assert metrics.reliability(truth, scores).error == pytest.approx(0.25, abs=0.02)


def test_reliability_bins_hold_every_pair(shares):
    truth, scores = shares
    table = metrics.reliability(truth, scores, bins=4)
    assert table.counts.sum() == truth.size
    np.testing.assert_allclose(table.edges, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(table.scores, [0.125, 0.375, 0.625, 0.875], atol=0.01)
    np.testing.assert_allclose(table.shares, table.scores / 2, atol=0.03)
    ends = metrics.reliability(np.array([[True, False]]), np.array([[1.0, 0.0]]), bins=3)
    assert ends.counts.tolist() == [1, 0, 1]
    assert np.isnan(ends.shares[1])
    assert ends.error == 0


@pytest.mark.parametrize(
    "measure", [metrics.reliability, metrics.expected_calibration_error, metrics.brier]
)
def test_scores_that_are_no_shares_are_not_compared_with_frequencies(measure):
    with pytest.raises(InvalidArgumentError, match="0 to 1"):
        measure(np.ones((2, 2)), np.full((2, 2), 1.5))
    with pytest.raises(InvalidArgumentError, match="bins"):
        metrics.reliability(np.ones((2, 2)), np.ones((2, 2)), bins=0)


def test_a_resamples_figures_are_those_of_the_clips_drawn(judged):
    """The quick weighted way equals writing the drawn clips out and measuring them."""
    truth, scores = judged
    random = np.random.default_rng(3)
    drawn = random.integers(0, len(truth), (5, len(truth)))
    weights = np.stack([np.bincount(rows, minlength=len(truth)) for rows in drawn], axis=1)
    weights = weights.astype(np.float32)
    for index in (0, 2, 6, 8):
        precision, area = metrics._resampled(truth[:, index], scores[:, index], weights)
        for column, rows in enumerate(drawn):
            picked = truth[rows], scores[rows]
            wanted = metrics.average_precision(*picked)[index]
            assert precision[column] == pytest.approx(wanted, abs=1e-9)
            np.testing.assert_allclose(area[column], metrics.roc_auc(*picked)[index], atol=1e-9)


def test_intervals_hold_their_figure_and_narrow_with_more_clips(judged):
    truth, scores = judged
    figures = {
        "mAP": metrics.macro_mean(metrics.average_precision(truth, scores)),
        "AUC": metrics.macro_mean(metrics.roc_auc(truth, scores)),
        "lwlrap": metrics.lwlrap(truth, scores)[0],
    }
    figures["d_prime"] = metrics.d_prime(figures["AUC"])
    found = metrics.bootstrap(truth, scores, resamples=100)
    assert set(found) == set(figures)
    for name, (low, high) in found.items():
        assert low < figures[name] < high
    assert found == metrics.bootstrap(truth, scores, resamples=100, seed=0)
    assert found != metrics.bootstrap(truth, scores, resamples=100, seed=1)
    narrow = metrics.bootstrap(truth, scores, resamples=100, confidence=0.5)
    more = metrics.bootstrap(np.tile(truth, (9, 1)), np.tile(scores, (9, 1)), resamples=100)
    for name, (low, high) in found.items():
        assert narrow[name][1] - narrow[name][0] < 0.7 * (high - low)
        assert more[name][1] - more[name][0] < 0.6 * (high - low)


def test_intervals_cover_what_other_clips_would_give():
    random = np.random.default_rng(5)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        truth = random.random((300, 40)) < 0.04
        return truth, random.normal(size=truth.shape) + np.linspace(0.5, 2.5, 40) * truth

    many = [metrics.macro_mean(metrics.average_precision(*draw())) for _ in range(200)]
    expected = np.mean(many)
    covered = 0
    for _ in range(60):
        low, high = metrics.bootstrap(*draw(), resamples=60, confidence=0.9)["mAP"]
        covered += low <= expected <= high
    # 54 on average; percentiles that are not centred cover 44.
    assert covered >= 49


@pytest.mark.parametrize("options", [{"resamples": 1}, {"confidence": 1.0}, {"confidence": 0.0}])
def test_bootstrap_refuses_what_cannot_be(judged, options):
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        metrics.bootstrap(*judged, **options)


def test_intervals_of_nothing_true_have_no_value():
    found = metrics.bootstrap(np.zeros((9, 2)), np.arange(18).reshape(9, 2), resamples=5)
    assert all(np.isnan(value) for pair in found.values() for value in pair)
