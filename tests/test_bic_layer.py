"""Losses against plain NumPy, the fit against a grid and its gradient. 5 old and 3 new classes, batch 7."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import bic_layer

RANDOM = np.random.RandomState(0)
LOGITS = RANDOM.normal(0, 3, (7, 8)).astype(np.float32)
OLD_LOGITS = RANDOM.normal(0, 3, (7, 5)).astype(np.float32)
LABELS = np.array([0, 7, 3, 5, 4, 6, 1])


def run(build, *arrays):
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(build(*[tf.constant(array) for array in arrays]))


def softmax(row):
    return np.exp(row) / np.sum(np.exp(row))


def test_distillation_weight():
    assert bic_layer.distillation_weight(0, 10) == 0
    assert bic_layer.distillation_weight(5, 8) == 5 / 8


def test_classification_loss():
    expected = np.mean([-np.log(softmax(row)[label]) for row, label in zip(LOGITS.astype(float), LABELS)])
    assert run(bic_layer.classification_loss, LOGITS, LABELS) == pytest.approx(expected, rel=1e-5)


def test_distillation_loss():
    """Soft targets are normalised over the classes of an image, not over the batch; there is no factor T * T."""
    expected = np.mean([-np.sum(softmax(old / 2.0) * np.log(softmax(new / 2.0)))
                        for old, new in zip(OLD_LOGITS.astype(float), LOGITS[:, :5].astype(float))])
    value = run(lambda new, old: bic_layer.distillation_loss(new, old, 2.0), LOGITS[:, :5], OLD_LOGITS)
    assert value == pytest.approx(expected, rel=1e-5)


def test_no_gradient_into_the_old_network():
    with tf.Graph().as_default():
        new, old = tf.constant(LOGITS[:, :5]), tf.constant(OLD_LOGITS)
        gradients = tf.gradients(bic_layer.distillation_loss(new, old, 2.0), [new, old])
    assert gradients[0] is not None and gradients[1] is None


def test_corrected_logits_of_tensors_and_arrays():
    expected = LOGITS.copy()
    for row in expected:
        for label in (5, 6, 7):
            row[label] = 0.5 * row[label] - 0.25
    np.testing.assert_allclose(bic_layer.corrected_logits(LOGITS, 5, 0.5, -0.25), expected)
    np.testing.assert_allclose(run(lambda t: bic_layer.corrected_logits(t, 5, 0.5, -0.25), LOGITS), expected, rtol=1e-6)


def test_l2_loss_leaves_batch_normalisation_out():
    with tf.Graph().as_default(), tf.Session() as session:
        sizes = {'conv1/kernel': [3, 3, 3, 2], 'layer1/block1/bn1/gamma': [5], 'bn/beta': [5], 'dense/bias': [7]}
        variables = [tf.get_variable(name, shape, initializer=tf.ones_initializer()) for name, shape in sizes.items()]
        loss = bic_layer.l2_loss(variables)
        session.run(tf.global_variables_initializer())
        assert session.run(loss) == (54 + 7) / 2


def test_the_last_layer_is_the_optimum():
    """Of more images than are looked at in one go: no slope is left, in the literal loss, in any direction."""
    random = np.random.RandomState(5)
    features, labels = random.normal(size=(4101, 3)).astype(np.float32), random.randint(0, 4, 4101)
    features[:, 0] += labels
    kernel, bias = bic_layer.fit_last_layer(features, labels, random.normal(size=(3, 4)), random.normal(size=4), 0.05)
    assert (kernel.shape, bias.shape, kernel.dtype) == ((3, 4), (4,), np.float32)

    def loss(kernel, bias):
        logits = features.astype(float).dot(kernel) + bias
        classification = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(4101), labels])
        return classification + 0.05 * (np.sum(kernel ** 2) + np.sum(bias ** 2)) / 2

    for direction in random.normal(size=(20, 4, 4)):
        step = 1e-3 * direction
        ahead, back = (loss(kernel + sign * step[:3], bias + sign * step[3]) for sign in (1, -1))
        assert abs(ahead - back) / 2e-3 < 2e-3
        assert min(ahead, back) > loss(kernel, bias) - 1e-6


def biased_logits(images, seed):
    """Logits of a network that prefers its 3 new classes: the true class's logit raised, then all new ones."""
    random = np.random.RandomState(seed)
    labels = np.arange(images) % 8
    logits = random.normal(0, 1.5, (images, 8))
    logits[np.arange(images), labels] += 2
    logits[:, 5:] = 1.7 * logits[:, 5:] + 1.5
    return logits, labels


def validation_loss(logits, labels, beta, gamma):
    """The objective, literally."""
    total = 0
    for row, label in zip(logits, labels):
        corrected = [o if c < 5 else beta * o + gamma for c, o in enumerate(row)]
        total -= np.log(softmax(np.array(corrected))[label])
    return total / len(labels) + 0.1 * gamma ** 2 / 2


@pytest.mark.parametrize('seed', range(3))
def test_fit_is_the_optimum(seed):
    logits, labels = biased_logits(61, seed)
    fit = bic_layer.fit_bias(logits, labels, 5, 0.1, 2.0, 0.1)
    assert fit.beta < 1 and fit.gamma < 0 and not fit.at_bound
    assert fit.loss_before == pytest.approx(validation_loss(logits, labels, 1, 0))
    assert fit.loss_after == pytest.approx(validation_loss(logits, labels, fit.beta, fit.gamma))
    # No point of a dense grid is better, and the nearest one is almost as good.
    grid = [validation_loss(logits, labels, beta, gamma) for beta in np.linspace(0.1, 2, 39) for gamma in np.linspace(-3, 3, 41)]
    assert fit.loss_after <= min(grid) < fit.loss_after + 0.01
    # The numerical gradient vanishes.
    h = 1e-4
    for d_beta, d_gamma in ((h, 0), (0, h)):
        slope = (validation_loss(logits, labels, fit.beta + d_beta, fit.gamma + d_gamma)
                 - validation_loss(logits, labels, fit.beta - d_beta, fit.gamma - d_gamma)) / (2 * h)
        assert abs(slope) < 1e-6


def test_fit_on_separable_images_stops_at_the_bound():
    labels = np.arange(16) % 8
    logits = np.where(np.arange(8) == labels[:, None], 5.0, 0.0)
    fit = bic_layer.fit_bias(logits, labels, 5, 0.1, 2.0, 0.1)
    assert fit.beta == 2.0 and fit.at_bound
    unbounded = bic_layer.fit_bias(logits, labels, 5, 0.1, 1000.0, 0.1)
    assert unbounded.beta > 2.0


def test_fit_with_huge_logits():
    logits, labels = biased_logits(61, 0)
    fit = bic_layer.fit_bias(1e4 * logits, labels, 5, 0.1, 2.0, 0.1)
    assert np.isfinite([fit.beta, fit.gamma, fit.loss_before, fit.loss_after]).all() and fit.loss_after <= fit.loss_before
