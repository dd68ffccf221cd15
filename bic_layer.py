"""The method's mathematics: equations 1 to 5 of the paper, and the exact fits of the last layer.

The two parameters of the correction are called beta and gamma, as in the authors' code and tables:
the logits o of the new classes become beta * o + gamma. The paper calls them alpha and beta
(section 5.2, equation 4).

Corrected logits are beta * (f W + b) + gamma for features f, so the correction is again a dense
layer: the new classes' columns of W times beta, and their biases times beta plus gamma. Test,
exported model and the next increment's old network use that layer.
"""
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.special
import tensorflow.compat.v1 as tf


class Correction(NamedTuple):
    """The last layer to use after an increment, made by stage 2.

    Attributes:
        kernel: float32 array [features, num_seen].
        bias: float32 array [num_seen].
        beta: float, of equation 4; 1 if the layer was not corrected by it.
        gamma: float, likewise; 0.
    """
    kernel: np.ndarray
    bias: np.ndarray
    beta: float = 1.0
    gamma: float = 0.0


class BiasFit(NamedTuple):
    """The optimum of stage 2.

    Attributes:
        beta: float.
        gamma: float.
        loss_before: float, nats: the validation loss, with the penalty, at beta = 1 and gamma = 0.
        loss_after: float, nats: the same at the optimum.
        at_bound: bool, whether beta is at one of its bounds.
    """
    beta: float
    gamma: float
    loss_before: float
    loss_after: float
    at_bound: bool


def classification_loss(logits, labels):
    """L_c, equation 2: mean softmax cross-entropy over the classes seen.

    The student's logits are not corrected.

    Args:
        logits: float tensor [batch, num_seen].
        labels: int tensor [batch], 0 .. num_seen - 1.

    Returns:
        float scalar tensor, nats.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.reduce_mean(losses)


def distillation_loss(logits, old_logits, temperature):
    """L_d, equation 1: mean cross-entropy between the softened outputs of two networks.

    There is no factor temperature**2 and no gradient into the old network.

    Args:
        logits: float tensor [batch, num_old], the student's.
        old_logits: float tensor [batch, num_old], those of the old network, which ends in its
            corrected last layer.
        temperature: float, T in the paper.

    Returns:
        float scalar tensor, nats.
    """
    targets = tf.stop_gradient(tf.nn.softmax(old_logits / temperature))
    losses = tf.nn.softmax_cross_entropy_with_logits_v2(
        labels=targets, logits=logits / temperature)
    return tf.reduce_mean(losses)


def distillation_weight(num_old, num_seen):
    """lambda of equation 3, float: n / (n + m) for n old and m new classes."""
    return num_old / num_seen


def l2_loss(variables):
    """Sum of v**2 / 2 over a network's decayed variables, see resnet_model.decayed.

    Args:
        variables: list of tf.Variable.

    Returns:
        float32 scalar tensor.
    """
    return tf.add_n([tf.nn.l2_loss(variable) for variable in variables])


def logits_of(features, kernel, bias):
    """The logits that a last layer gives: features * kernel + bias, float32 [images, classes]."""
    return features.dot(kernel) + bias


def corrected(kernel, bias, num_old, beta, gamma):
    """Equation 4 as a last layer: new logits o, from column num_old on, become beta * o + gamma.

    Args:
        kernel: float32 array [features, num_seen].
        bias: float32 array [num_seen].
        num_old: int, classes before the increment at which beta and gamma were fitted.
        beta: float.
        gamma: float.

    Returns:
        Correction.
    """
    is_new = np.arange(len(bias)) >= num_old
    factors = np.where(is_new, beta, 1.0)
    shifts = np.where(is_new, gamma, 0.0)
    new_kernel = (kernel * factors).astype(np.float32)
    new_bias = (bias * factors + shifts).astype(np.float32)
    return Correction(new_kernel, new_bias, beta, gamma)


def fit_bias(logits, labels, num_old, beta_bounds, gamma_penalty):
    """Stage 2: the exact minimum of the validation loss over beta and gamma (equation 5).

    The loss is the mean cross-entropy of the corrected logits plus gamma_penalty * gamma**2 / 2
    [authors' code]. The logits are linear in the two parameters, so it is convex. Its minimum is
    finite unless the images are separable: hence the bounds.

    Args:
        logits: float array [images, num_seen], of the frozen network in inference mode.
        labels: int array [images], 0 .. num_seen - 1.
        num_old: int, 1 .. num_seen - 1.
        beta_bounds: (float, float), the least and the largest beta.
        gamma_penalty: float, at least 0.

    Returns:
        BiasFit.
    """
    # Of the old classes' logits, of up to 10,000 classes, only this sum matters.
    old = np.array([scipy.special.logsumexp(row[:num_old].astype(np.float64)) for row in logits])
    new = logits[:, num_old:].astype(np.float64)                        # [images, num_new]
    true = logits[np.arange(len(labels)), labels].astype(np.float64)    # [images]
    is_new = labels >= num_old                                          # [images]

    def loss_and_slopes(parameters):
        beta, gamma = parameters
        corrected_new = beta * new + gamma
        total = np.logaddexp(old, scipy.special.logsumexp(corrected_new, axis=1))
        corrected_true = np.where(is_new, beta * true + gamma, true)
        loss = np.mean(total - corrected_true) + gamma_penalty * gamma ** 2 / 2

        softmax = np.exp(corrected_new - total[:, None])                # [images, num_new]
        slope_beta = np.mean((softmax * new).sum(axis=1) - np.where(is_new, true, 0))
        slope_gamma = np.mean(softmax.sum(axis=1) - is_new) + gamma_penalty * gamma
        return loss, np.array([slope_beta, slope_gamma])

    start = np.array([1.0, 0.0])
    best = scipy.optimize.minimize(
        loss_and_slopes, start, jac=True, method='L-BFGS-B', bounds=[beta_bounds, (None, None)],
        options=dict(ftol=1e-15, gtol=1e-10))
    beta, gamma = best.x
    return BiasFit(
        beta=float(beta),
        gamma=float(gamma),
        loss_before=float(loss_and_slopes(start)[0]),
        loss_after=float(best.fun),
        at_bound=bool(beta in beta_bounds))


def fit_last_layer(features, labels, kernel, bias, decay):
    """The last layer fitted to features of the frozen network, exactly: the upper bound (table 3).

    The loss is the mean cross-entropy plus decay * l2_loss of kernel and bias, as in stage 1; it is
    convex. L-BFGS ends when no slope of the loss is above 1e-6, when the loss no longer falls, or
    after 1,000 iterations.

    Args:
        features: float array [images, dimensions].
        labels: int array [images], 0 .. num_seen - 1.
        kernel: float array [dimensions, num_seen], to start from.
        bias: float array [num_seen], to start from.
        decay: float, at least 0.

    Returns:
        Correction.
    """
    start = np.vstack([kernel, bias]).astype(np.float64)

    def loss_and_slopes(flat):
        weights = flat.reshape(start.shape)
        loss = decay * np.sum(weights ** 2) / 2
        slopes = decay * weights
        for first in range(0, len(labels), 4096):  # the logits of a whole dataset may be too many
            x = features[first:first + 4096]
            y = labels[first:first + 4096]
            rows = np.arange(len(y))
            logits = x.dot(weights[:-1].astype(x.dtype)).astype(np.float64) + weights[-1]
            log_sums = scipy.special.logsumexp(logits, axis=1)
            loss += np.sum(log_sums - logits[rows, y]) / len(labels)
            error = np.exp(logits - log_sums[:, None])
            error[rows, y] -= 1
            slopes_kernel = x.T.dot(error.astype(x.dtype))
            slopes += np.vstack([slopes_kernel, error.sum(axis=0)]) / len(labels)
        return loss, slopes.ravel()

    best = scipy.optimize.minimize(
        loss_and_slopes, start.ravel(), jac=True, method='L-BFGS-B',
        options=dict(maxiter=1000, ftol=0, gtol=1e-6))
    weights = best.x.reshape(start.shape).astype(np.float32)
    return Correction(weights[:-1], weights[-1])
