"""Directions of metrics: Keras's own names, and endings that lie."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_lottery import directions

# By the definitions of the metrics, each name written once more.
MORE = """
    accuracy acc sparse_categorical_accuracy categorical_accuracy
    binary_accuracy top_k_categorical_accuracy
    sparse_top_k_categorical_accuracy auc pr_auc precision recall f1 f1_score
    fbeta fbeta_score f_beta_score iou io_u mean_iou mean_io_u binary_io_u
    one_hot_io_u one_hot_mean_io_u r2 r2_score cosine_similarity
    pearson_correlation concordance_correlation true_positives true_negatives
    true_positive_rate sensitivity_at_specificity specificity_at_sensitivity
    precision_at_recall recall_at_precision log_likelihood dice
""".split()
LESS = """
    loss logloss head_loss accuracy_loss mae mean_absolute_error mse rmse
    mean_squared_error root_mean_squared_error mape msle huber
    mean_absolute_percentage_error mean_squared_logarithmic_error
    mean_relative_error log_cosh logcosh log_cosh_error kl_divergence
    kullback_leibler_divergence crossentropy binary_crossentropy
    categorical_crossentropy sparse_categorical_crossentropy entropy
    cross_entropy bce hinge squared_hinge categorical_hinge poisson error
    error_rate false_positives false_negatives false_positive_rate
    negative_log_likelihood nll brier_score
""".split()
UNKNOWN = """
    score fluency mean sum inaccuracy imprecision accuracy_drop loss_reduction
    neg_mean_squared_error negative_accuracy neg_log_loss minus_recall
    1_minus_recall negatives rate f2_measure val test_ 3
""".split()


@pytest.mark.parametrize("name", MORE)
def test_more_is_better(name):
    assert directions.mode_of(name) == "max"


@pytest.mark.parametrize("name", LESS)
def test_less_is_better(name):
    assert directions.mode_of(name) == "min"


@pytest.mark.parametrize("name", [*UNKNOWN, "", "__", None, 5])
def test_what_does_not_tell_is_an_error(name):
    with pytest.raises(ValueError, match="is not known: pass mode='max' or"):
        directions.mode_of(name)
    assert directions.mode_of(name, "max") == "max"
    assert directions.mode_of(name, "min") == "min"
    assert not directions.is_fraction(name)


@pytest.mark.parametrize(
    "form",
    [
        "{}_1",
        "val_{}",
        "test_{}",
        "last_{}",
        "last_test_{}",
        "last_val_{}_12",
        "head_{}",
        "val_head_{}_3",
        "{}_at_5",
        "{}@5",
    ],
)
def test_prefixes_numbers_and_heads_change_nothing(form):
    for name in (*MORE, *LESS):
        written = form.format(name)
        assert directions.mode_of(written) == directions.mode_of(name)
        assert directions.is_fraction(written) == directions.is_fraction(name)


def test_capitals_and_blanks_change_nothing():
    assert directions.mode_of("AUC") == "max"
    assert directions.mode_of("Mean absolute error") == "min"
    assert directions.mode_of("F1-score") == "max"


@pytest.mark.parametrize("mode", ["maximum", "auto", "", 1, True])
def test_a_wrong_mode_is_an_error(mode):
    with pytest.raises(ValueError, match="`mode` must be 'max' or 'min', got"):
        directions.mode_of("accuracy", mode)


def test_a_mode_given_is_the_mode():
    assert directions.mode_of("accuracy", "min") == "min"


@pytest.mark.parametrize(
    "name",
    """accuracy acc auc precision recall f1_score mean_io_u fbeta_score
    top_k_categorical_accuracy false_positive_rate""".split(),
)
def test_fractions(name):
    assert directions.is_fraction(name)


@pytest.mark.parametrize(
    "name",
    """loss mae mse r2_score cosine_similarity true_positives kl_divergence
    false_positives error_rate neg_accuracy score""".split(),
)
def test_no_fractions(name):
    assert not directions.is_fraction(name)


def perfect_and_bad(metric):
    """A metric's values for right answers and for wrong ones."""
    truth = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], "float32")
    values = []
    for answer in (0.9 * truth + 0.05, 0.9 * (1 - truth) + 0.05):
        metric.reset_state()
        metric.update_state(truth, answer)
        values.append(float(np.mean(metric.result())))
    return values


@pytest.mark.parametrize(
    "metric",
    [
        keras.metrics.BinaryAccuracy,
        keras.metrics.CategoricalAccuracy,
        keras.metrics.AUC,
        keras.metrics.Precision,
        keras.metrics.Recall,
        keras.metrics.F1Score,
        keras.metrics.FBetaScore,
        keras.metrics.R2Score,
        keras.metrics.CosineSimilarity,
        keras.metrics.TruePositives,
        keras.metrics.TrueNegatives,
        keras.metrics.FalsePositives,
        keras.metrics.FalseNegatives,
        keras.metrics.MeanAbsoluteError,
        keras.metrics.MeanAbsolutePercentageError,
        keras.metrics.MeanSquaredError,
        keras.metrics.MeanSquaredLogarithmicError,
        keras.metrics.RootMeanSquaredError,
        keras.metrics.LogCoshError,
        keras.metrics.KLDivergence,
        keras.metrics.Poisson,
        keras.metrics.BinaryCrossentropy,
        keras.metrics.CategoricalCrossentropy,
        keras.metrics.Hinge,
        keras.metrics.SquaredHinge,
        keras.metrics.CategoricalHinge,
    ],
)
def test_keras_metrics_under_the_names_keras_gives_them(metric):
    """Right answers against wrong ones say which way is better."""
    metric = metric()
    right, wrong = perfect_and_bad(metric)
    assert right != wrong
    expected = "max" if right > wrong else "min"
    assert directions.mode_of(metric.name) == expected
    if directions.is_fraction(metric.name):
        assert 0 <= min(right, wrong) <= max(right, wrong) <= 1 + 1e-6


def test_it_imports_nothing_heavy():
    program = "import sys; import keras_lottery.directions; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split()
    assert not {"numpy", "keras", "tensorflow", "matplotlib"} & set(modules)
