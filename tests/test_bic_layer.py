"""Tests the fits against literal losses, a grid and slopes, with 5 old and 3 new classes."""
import numpy as np
import pytest

import bic_layer


def test_a_corrected_layer_gives_corrected_logits():
    """Equation 4, literally: new logits become beta * o + gamma, old ones stay."""
    random = np.random.RandomState(3)
    features = random.normal(size=(7, 4)).astype(np.float32)
    kernel = random.normal(size=(4, 8)).astype(np.float32)
    bias = random.normal(size=8).astype(np.float32)
    correction = bic_layer.corrected(kernel, bias, 5, 0.6, -0.3)
    logits = bic_layer.logits_of(features, correction.kernel, correction.bias)
    expected = features.astype(float).dot(kernel) + bias
    expected[:, 5:] = 0.6 * expected[:, 5:] - 0.3
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert (correction.kernel.dtype, correction.bias.dtype) == (np.float32, np.float32)
    assert correction[2:] == (0.6, -0.3)


def test_the_last_layer_is_the_optimum():
    """The literal loss has no slope in any direction. The images are more than one chunk."""
    random = np.random.RandomState(5)
    features = random.normal(size=(4101, 3)).astype(np.float32)
    labels = random.randint(0, 4, 4101)
    features[:, 0] += labels
    layer = bic_layer.fit_last_layer(
        features, labels, random.normal(size=(3, 4)), random.normal(size=4), 0.05)
    assert (layer.kernel.shape, layer.bias.shape) == ((3, 4), (4,))
    assert (layer.kernel.dtype, layer.beta, layer.gamma) == (np.float32, 1, 0)

    def loss(kernel, bias):
        logits = features.astype(float).dot(kernel) + bias
        log_sums = np.log(np.exp(logits).sum(axis=1))
        classification = np.mean(log_sums - logits[np.arange(4101), labels])
        return classification + 0.05 * (np.sum(kernel ** 2) + np.sum(bias ** 2)) / 2

    for direction in random.normal(size=(20, 4, 4)):
        step = 1e-3 * direction
        ahead = loss(layer.kernel + step[:3], layer.bias + step[3])
        back = loss(layer.kernel - step[:3], layer.bias - step[3])
        assert abs(ahead - back) / 2e-3 < 2e-3
        assert min(ahead, back) > loss(layer.kernel, layer.bias) - 1e-6


def biased_logits(images, seed):
    """Logits of a network that prefers its 3 new classes.

    The true class's logit is raised, then all new ones are.
    """
    random = np.random.RandomState(seed)
    labels = np.arange(images) % 8
    logits = random.normal(0, 1.5, (images, 8))
    logits[np.arange(images), labels] += 2
    logits[:, 5:] = 1.7 * logits[:, 5:] + 1.5
    return logits, labels


def validation_loss(logits, labels, beta, gamma):
    """The objective, written literally."""
    total = 0
    for row, label in zip(logits, labels):
        corrected = np.append(row[:5], beta * row[5:] + gamma)
        total += np.log(np.sum(np.exp(corrected))) - corrected[label]
    return total / len(labels) + 0.1 * gamma ** 2 / 2


@pytest.mark.parametrize('seed', range(3))
def test_fit_is_the_optimum(seed):
    """No point of a dense grid is better, the nearest is almost as good; the slopes vanish."""
    logits, labels = biased_logits(61, seed)
    fit = bic_layer.fit_bias(logits, labels, 5, (0.1, 2.0), 0.1)
    assert fit.beta < 1 and fit.gamma < 0 and not fit.at_bound
    assert fit.loss_before == pytest.approx(validation_loss(logits, labels, 1, 0))
    assert fit.loss_after == pytest.approx(validation_loss(logits, labels, fit.beta, fit.gamma))
    grid = []
    for beta in np.linspace(0.1, 2, 39):
        grid += [validation_loss(logits, labels, beta, gamma) for gamma in np.linspace(-3, 3, 41)]
    assert fit.loss_after <= min(grid) < fit.loss_after + 0.01
    h = 1e-4
    for d_beta, d_gamma in ((h, 0), (0, h)):
        ahead = validation_loss(logits, labels, fit.beta + d_beta, fit.gamma + d_gamma)
        back = validation_loss(logits, labels, fit.beta - d_beta, fit.gamma - d_gamma)
        assert abs(ahead - back) / (2 * h) < 1e-6


def test_fits_at_the_limits():
    """If the images are separable, beta ends at its bound. Huge logits are no matter."""
    labels = np.arange(16) % 8
    logits = np.where(np.arange(8) == labels[:, None], 5.0, 0.0)
    fit = bic_layer.fit_bias(logits, labels, 5, (0.1, 2.0), 0.1)
    assert fit.beta == 2.0 and fit.at_bound
    assert bic_layer.fit_bias(logits, labels, 5, (0.1, 1000.0), 0.1).beta > 2.0
    logits, labels = biased_logits(61, 0)
    fit = bic_layer.fit_bias(1e4 * logits, labels, 5, (0.1, 2.0), 0.1)
    assert np.isfinite([fit.beta, fit.gamma, fit.loss_before, fit.loss_after]).all()
    assert fit.loss_after <= fit.loss_before
