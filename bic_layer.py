"""The method's mathematics: distillation, the corrected logits, the exact fit of the bias correction.

The two parameters are called `beta` and `gamma`, as in the authors' code and tables: new classes' logits o become
beta * o + gamma. The paper calls the same two alpha and beta (section 5.2, equation 4).
"""
import collections

import numpy as np
import scipy.optimize
import scipy.special
import tensorflow.compat.v1 as tf

Fit = collections.namedtuple('Fit', 'beta gamma loss_before loss_after at_bound')
IDENTITY = Fit(1.0, 0.0, float('nan'), float('nan'), False)  # of the first increment, where all classes are new


def classification_loss(logits, labels):
    """L_c, equation 2: mean softmax cross-entropy over the seen classes. The student's logits are not corrected.

    Args:
        logits: float tensor [batch, num_seen]. labels: int tensor [batch], 0..num_seen-1.

    Returns:
        float scalar tensor, nats.
    """
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))


def distillation_loss(logits, old_logits, temperature):
    """L_d, equation 1: mean cross-entropy between the softened outputs of old network and student on the old classes.

    There is no factor temperature**2 and no gradient into the old network.

    Args:
        logits: float tensor [batch, num_old], the student's. old_logits: float tensor [batch, num_old], corrected.
        temperature: float, T in the paper.

    Returns:
        float scalar tensor, nats.
    """
    targets = tf.stop_gradient(tf.nn.softmax(old_logits / temperature))
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits_v2(labels=targets, logits=logits / temperature))


def l2_loss(variables):
    """Sum of v**2 / 2 over every convolution's kernel and the dense kernel and bias (authors' resnet.py).

    Args:
        variables: list of a network's trainable variables; those of batch normalisation, whose scope is named bn.., are skipped.

    Returns:
        float32 scalar tensor.
    """
    return tf.add_n([tf.nn.l2_loss(v) for v in variables if not v.name.split('/')[-2].startswith('bn')])


def corrected_logits(logits, num_old, beta, gamma):
    """Equation 4: logits of the classes from num_old on become beta * o + gamma; those of older classes stay.

    Args:
        logits: float [batch, num_seen], a tensor or an array.
        num_old: int, classes before the increment at which beta and gamma were fitted.
        beta, gamma: float.

    Returns:
        float [batch, num_seen], a tensor or an array as `logits`.
    """
    new = np.arange(int(logits.shape[1])) >= num_old
    return logits * np.where(new, beta, 1.0) + np.where(new, gamma, 0.0)


def fit_last_layer(features, labels, kernel, bias, decay):
    """Fits the last layer to features of the frozen network, exactly: the paper's upper bound (table 3).

    The loss is the mean cross-entropy plus decay * l2_loss of kernel and bias, as in stage 1; it is convex.

    Args:
        features: float array [images, dimensions].
        labels: int array [images], 0..num_seen-1.
        kernel, bias: float arrays [dimensions, num_seen] and [num_seen], to start from.
        decay: float, at least 0.

    Returns:
        kernel, bias: float32 arrays of the same shapes. L-BFGS ends when no slope of the loss is above 1e-6, when the loss no
            longer falls, or after 1,000 iterations.
    """
    start = np.vstack([kernel, bias]).astype(np.float64)

    def loss(flat):
        weights = flat.reshape(start.shape)
        value, gradient = decay * np.sum(weights ** 2) / 2, decay * weights
        for first in range(0, len(labels), 4096):  # the logits of a whole dataset need not fit into memory
            x, y = features[first:first + 4096], labels[first:first + 4096]
            logits = x.dot(weights[:-1].astype(x.dtype)).astype(np.float64) + weights[-1]
            log_sums = scipy.special.logsumexp(logits, axis=1)
            value += np.sum(log_sums - logits[np.arange(len(y)), y]) / len(labels)
            share = np.exp(logits - log_sums[:, None])
            share[np.arange(len(y)), y] -= 1
            gradient += np.vstack([x.T.dot(share.astype(x.dtype)), share.sum(axis=0)]) / len(labels)
        return value, gradient.ravel()

    best = scipy.optimize.minimize(loss, start.ravel(), jac=True, method='L-BFGS-B',
                                   options=dict(maxiter=1000, ftol=0, gtol=1e-6))
    weights = best.x.reshape(start.shape).astype(np.float32)
    return weights[:-1], weights[-1]


def fit_bias(logits, labels, num_old, beta_min, beta_max, gamma_penalty):
    """Stage 2: the (beta, gamma) that minimise the validation loss, exactly (section 5.2, equation 5).

    The loss is the mean cross-entropy of the corrected logits plus gamma_penalty * gamma**2 / 2 [authors' code]. The logits are
    linear in the two parameters, so the loss is convex. Its minimum is finite unless the images are separable: hence the bounds.

    Args:
        logits: float array [images, num_seen], of the frozen network in inference mode.
        labels: int array [images], 0..num_seen-1.
        num_old: int, 1..num_seen-1.
        beta_min, beta_max: float, the bounds.
        gamma_penalty: float, at least 0.

    Returns:
        Fit: beta, gamma; loss_before, loss_after, the loss with penalty at (1, 0) and at the optimum, in nats; at_bound, whether
            beta is at one of its bounds.
    """
    # The old classes contribute one number per image; their logits, of up to 10,000 classes, are not copied.
    old = np.array([scipy.special.logsumexp(row[:num_old].astype(np.float64)) for row in logits])   # [images]
    new = logits[:, num_old:].astype(np.float64)                                                    # [images, num_new]
    target = logits[np.arange(len(labels)), labels].astype(np.float64)                              # [images]
    is_new = labels >= num_old                                                                      # [images]

    def loss(parameters):
        beta, gamma = parameters
        corrected = beta * new + gamma
        total = np.logaddexp(old, scipy.special.logsumexp(corrected, axis=1))
        share = np.exp(corrected - total[:, None])                  # softmax of the new classes
        value = np.mean(total - np.where(is_new, beta * target + gamma, target)) + gamma_penalty * gamma ** 2 / 2
        return value, np.array([np.mean((share * new).sum(axis=1) - np.where(is_new, target, 0)),
                                np.mean(share.sum(axis=1) - is_new) + gamma_penalty * gamma])

    start = np.array([1.0, 0.0])
    best = scipy.optimize.minimize(loss, start, jac=True, method='L-BFGS-B', bounds=[(beta_min, beta_max), (None, None)],
                                   options=dict(ftol=1e-15, gtol=1e-10))
    beta, gamma = best.x
    return Fit(float(beta), float(gamma), float(loss(start)[0]), float(best.fun), bool(beta in (beta_min, beta_max)))
