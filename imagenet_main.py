"""BiC, "Large Scale Incremental Learning" (Wu et al., CVPR 2019): the experiment.

    CUDA_VISIBLE_DEVICES=0 python imagenet_main.py 1>log 2>&1

Edit the constants below, or override any of them for one run with --NAME=value. Sources: [P] the
paper, [C] the authors' code, which is for ImageNet only. Where they differ, [C] is followed, and
the comment names the difference.
"""
import contextlib
import gc
import sys
import time
import types

from data import startup

startup.load_tensorflow(as_program=__name__ == '__main__')

import numpy as np
import tensorflow.compat.v1 as tf

import bic_layer
import exemplar
import resnet_model
from data import Fault, Faults, batches, numerics, settings, usage
from data.devices import ONE, Devices
from logs import export, log, metrics, signals, tables
from logs.compare import compare
from logs.run import Run

# ---- The run ------------------------------------------------------------------------------------
# Every UPPER_CASE name of this file with a plain value is a setting: --NAME=value overrides it.
DATASET = 'digits'         # digits, imagenet100, imagenet1000, celeb10000, cifar100 or folder
SEED = 1                   # decides weights, shuffling, augmentation; 0 .. 2**32 - 1
MODEL_DIR = 'model'        # checkpoints go to MODEL_DIR/DATASET/
LOG_DIR = 'logs'           # the log goes to LOG_DIR/log-DATASET-<date>-<time> and standard output
LOG_STEPS = 50             # training steps between two [train] lines
CHECKPOINT_EPOCHS = 0      # within an increment, write a checkpoint every so many epochs; 0: never
CHECKPOINT_MINUTES = 30.0  # and every so many minutes, always after stage 1 and after the increment
FIRST_INCREMENT_FROM = ''  # MODEL_DIR of a run to take the first network from, see logs/README.md
DETERMINISTIC = False      # True: kernels whose bits repeat, on GPUs too; slower, TensorFlow 2.9+
PLAN_ONLY = False          # True: print the plan and what is wrong with the data, then end
PREDICT = ''               # images, a file or folder: print what the newest model of
                           # MODEL_DIR/DATASET says, then end
REPLICAS = 0               # devices that share each batch: GPUs or, without any, parts of the CPU;
                           # 0: all visible GPUs, or the CPU
WORKER_MINUTES = 5.0       # timeout for the other workers of TF_CONFIG, at the start and in a step
XLA = False                # True: compile the graph for the GPU; on a CPU,
                           # TF_XLA_FLAGS=--tf_xla_cpu_global_jit is needed

# ---- The method ---------------------------------------------------------------------------------
METHOD = 'bic'             # finetune: classification loss on new images and exemplars
                           # [P, baseline-1];
                           # distill: with distilling loss [P, baseline-2];
                           # bic: with bias correction as well;
                           # joint: classification loss on all images of all classes;
                           # joint_last: distill, then the last layer retrained on all images
                           # [P, upper bound of table 3]
EXEMPLAR_SELECTION = 'herding'  # how exemplars of a class are chosen: herding, random [P, table 5]
CLASS_ORDER_SEED = 1993    # seed of class order and hold-out; SEED does not touch these [C]
TEMPERATURE = 2.0          # T of the distillation loss [P, section 3] [C]
SCALE_WEIGHT_DECAY = True  # True: weight decay times (number of increments) / (k + 1) at
                           # increment k [C]; False: constant [P]
MOMENTUM = 0.9             # coefficient of SGD's momentum, which is reset at each increment [P] [C]
# The bias correction: new classes' logits o become beta * o + gamma, as [C] calls them;
# [P, equation 4] says alpha and beta.
BETA_MIN = 0.1             # lower bound of beta: separable validation images have no finite optimum
BETA_MAX = 2.0             # upper bound of beta; published values, 0.39 to 0.79, lie inside both
GAMMA_PENALTY = 0.1        # stage 2 adds GAMMA_PENALTY * gamma**2 / 2 to its loss [C]; not in [P]

# ---- The recipes: one per dataset, with the same keys in each -----------------------------------
# Fractions follow another setting: LR_DROP_EPOCHS are shares of EPOCHS, RESIZE_SIDE_MIN and
# RESIZE_SIDE_MAX multiples of IMAGE_SIZE. Whole numbers are epochs and pixels, and stay as they
# are. It is the same on the command line: --LR_DROP_EPOCHS=0.5,0.75 or --LR_DROP_EPOCHS=4,6.
RECIPES = {}
RECIPES['digits'] = dict(  # scikit-learn's 8 x 8 pixel digits: the demonstration, minutes on a CPU
    DATA_DIR='data/dataDigits',     # the images, with train.txt and val.txt or in class folders
    NUM_CLASSES=10,                 # labels are 0 .. NUM_CLASSES - 1; 0: as many as class folders
    TEST_FRACTION=0.2,              # share of a class to test on where folders have no train/, val/
    CLASS_ORDER='random',           # random: one shuffle [C]; icarl: that of iCaRL's CIFAR-100
                                    # script; sorted: by class number; or a file of class names,
                                    # one a line
    FIRST_INCREMENT_CLASSES=2,      # classes of increment 0; 0: as CLASSES_PER_INCREMENT
    CLASSES_PER_INCREMENT=2,        # new classes of every later increment, or of each of them:
                                    # (2, 3, 3); 0: all classes at once
    MEMORY_SIZE=100,                # M: exemplars and validation images of old classes together
    VAL_FRACTION=0.3,               # share of an old class's memory that is kept for stage 2, with
                                    # as many images of each new class; [P, 5.1] has 0.1, too few
                                    # images for a fit here
    RESNET_DEPTH=18,                # 18 34 50 101 152 200, or for CIFAR's small form 8 20 32 56
    IMAGE_SIZE=32,                  # side of the network's input, in pixels
    RESIZE_SIDE_MIN=32 / 32,        # smallest shorter side after the random resize in training,
                                    # times IMAGE_SIZE, or in pixels; evaluation resizes to it
    RESIZE_SIDE_MAX=38 / 32,        # largest shorter side after the random resize, likewise
    PADDING=0,                      # pixels of zeros that training adds around before the crop
    RANDOM_FLIP=False,              # True: training mirrors half of the images
    STANDARDIZE=False,              # True: each image to mean 0 and deviation 1; False: subtract
                                    # channel means
    EPOCHS=8,                       # passes over an increment's training set
    LR_DROP_EPOCHS=(4 / 8, 6 / 8),  # the learning rate drops tenfold after these shares of EPOCHS,
                                    # or after these epochs
    BATCH_SIZE=32,                  # images per step
    LEARNING_RATE=0.05,             # the first rate, for this BATCH_SIZE
    WEIGHT_DECAY=1e-4,              # factor of the sum of l2_loss over kernels and the dense bias
    MIXED_PRECISION=False,          # True: float16 on GPUs, bfloat16 on CPUs that can, else float32
    BATCH_NORM_DECAY=0.9,           # momentum of moving averages; some hundred steps need a low one
    HEADLINE='top1')                # metric of the authors' closing line `accuracy:`, top1 or top5

# [C]; shared by imagenet100, imagenet1000, celeb10000 and folder: an edit here changes all four. To
# change one of them, write the key into its recipe.
IMAGENET_TRAINING = dict(
    TEST_FRACTION=0.2,
    CLASS_ORDER='random',
    VAL_FRACTION=0.1,
    RESNET_DEPTH=18,
    IMAGE_SIZE=224,
    RESIZE_SIDE_MIN=256 / 224,
    RESIZE_SIDE_MAX=512 / 224,
    PADDING=0,
    RANDOM_FLIP=True,
    STANDARDIZE=False,
    EPOCHS=100,
    LR_DROP_EPOCHS=(30 / 100, 60 / 100, 80 / 100, 90 / 100),
    BATCH_SIZE=256,
    LEARNING_RATE=0.1,
    WEIGHT_DECAY=1e-4,
    MIXED_PRECISION=False,
    BATCH_NORM_DECAY=0.997)
RECIPES['imagenet100'] = dict(  # the first 100 classes of ILSVRC2012 [C]
    IMAGENET_TRAINING,
    DATA_DIR='data/dataImageNet100',
    NUM_CLASSES=100,
    FIRST_INCREMENT_CLASSES=10,
    CLASSES_PER_INCREMENT=10,
    MEMORY_SIZE=2000,
    HEADLINE='top5')
RECIPES['imagenet1000'] = dict(  # all of ILSVRC2012 [C]
    IMAGENET_TRAINING,
    DATA_DIR='data/dataImageNet1000',
    NUM_CLASSES=1000,
    FIRST_INCREMENT_CLASSES=100,
    CLASSES_PER_INCREMENT=100,
    MEMORY_SIZE=20000,
    HEADLINE='top5')
RECIPES['celeb10000'] = dict(  # MS-Celeb-1M [P, section 6]; what [P] does not say is ImageNet's
    IMAGENET_TRAINING,
    DATA_DIR='data/dataCeleb10000',
    NUM_CLASSES=10000,
    FIRST_INCREMENT_CLASSES=1000,
    CLASSES_PER_INCREMENT=1000,
    MEMORY_SIZE=50000,
    HEADLINE='top1')
RECIPES['folder'] = dict(  # your own images, see README
    IMAGENET_TRAINING,
    DATA_DIR='data/dataFolder',
    NUM_CLASSES=0,
    FIRST_INCREMENT_CLASSES=0,
    CLASSES_PER_INCREMENT=0,
    MEMORY_SIZE=2000,
    BATCH_SIZE=64,
    LEARNING_RATE=0.025,
    BATCH_NORM_DECAY=0.99,
    HEADLINE='top1')
RECIPES['cifar100'] = dict(  # [P, section 6]; the class order: the authors, issue 6 of their code
    DATA_DIR='data/dataCIFAR100',
    NUM_CLASSES=100,
    TEST_FRACTION=0.2,
    CLASS_ORDER='icarl',
    FIRST_INCREMENT_CLASSES=20,
    CLASSES_PER_INCREMENT=20,
    MEMORY_SIZE=2000,
    VAL_FRACTION=0.1,
    RESNET_DEPTH=32,
    IMAGE_SIZE=32,
    RESIZE_SIDE_MIN=32 / 32,
    RESIZE_SIDE_MAX=32 / 32,
    PADDING=4,
    RANDOM_FLIP=True,
    STANDARDIZE=True,
    EPOCHS=250,
    LR_DROP_EPOCHS=(100 / 250, 150 / 250, 200 / 250),
    BATCH_SIZE=128,
    LEARNING_RATE=0.1,
    WEIGHT_DECAY=2e-4,
    MIXED_PRECISION=False,
    BATCH_NORM_DECAY=0.997,
    HEADLINE='top1')


def main(arguments):
    """Runs the experiment. If an override lists several values, carries out a run for each.

    Args:
        arguments: list of str, the overrides `--NAME=value` or `--NAME=value,value`.

    Returns:
        list of dict, one per increment: the rows of the closing table. Of several runs a list of
        such lists.

    Raises:
        Fault: what the user must fix, found before any training where possible.
        KeyboardInterrupt: Ctrl-C, SIGTERM, SIGHUP.
    """
    tf.get_logger().setLevel('ERROR')
    faults = Faults()
    if '--help' in arguments:
        arguments = [argument for argument in arguments if argument != '--help']
        all_settings = settings.read(globals(), RECIPES, arguments, faults)
        print(usage.text(__file__, all_settings[0]))
        return []
    all_settings = settings.read(globals(), RECIPES, arguments, faults)
    if all_settings[0].PREDICT:
        faults.raise_any()
        for s in all_settings:
            export.predict('%s/%s' % (s.MODEL_DIR, s.DATASET), s.PREDICT)
        return []
    plan_only = bool(faults.lines) or all_settings[0].PLAN_ONLY
    devices = ONE if plan_only else Devices(all_settings[0])
    if len(all_settings) > 1:
        return compare(all_settings, faults, devices, execute)
    return execute(Run(all_settings[0], faults, devices))


def execute(run):
    """Carries out one run. With PLAN_ONLY it only shows the plan, and if it is finished, its table.

    Args:
        run: logs.run.Run.

    Returns:
        list of dict, one per increment, see metrics.result_row.
    """
    if run.finished and run.devices.chief:
        table = tables.table(metrics.closing(run.rows))
        print('%s: this run is finished; new classes in DATA_DIR continue it, and another '
              'MODEL_DIR begins a new run\n%s' % (run.folder, table))
    elif run.s.PLAN_ONLY:
        log.begin(run)
    run.faults.raise_any()
    run.take_first_increment()
    if run.s.PLAN_ONLY:
        return run.rows
    if run.finished:
        run.export()
    else:
        numerics.set_up(run.s)
        with run.opened():
            learn(run)
    return run.rows


def learn(run):
    """Runs the remaining increments: Figure 2 of the paper, from left to right."""
    for now in run.remaining:
        train, val, test = run.begin(now)       # images: train, old + new | val, old + new | test
        with increment_graph(run, now) as net:  # both networks start as the previous one
            weights = train_classifier(run, net, train)                  # stage 1
            if run.follows_chief(now):          # other workers take over what the chief finds next
                continue
            correction = fit_correction(run, net, weights, val)          # stage 2
            memory, class_means = rebuild_memory(run, net)
            scores = evaluate(run, net, test, weights, correction, class_means)
        run.record(now, weights, correction, memory, scores)


# ---- One increment's graph -----------------------------------------------------------------------
@contextlib.contextmanager
def increment_graph(run, now):
    """A context with the graph of an increment, its session, and the networks in it restored."""
    with run.devices.graph():
        net = build(run.s, now, run.ends, run.step, run.devices)
        with run.devices.session(run.s) as net.session:
            run.restore(net)
            yield net
        del net.session  # frees the networks' memory before the next increment
    gc.collect()  # a graph's objects refer to each other


def build(s, now, ends, first_step=0, devices=ONE):
    """Builds the graph of an increment.

    Args:
        s: settings.
        now: exemplar.Increment.
        ends: list of int, classes seen after each increment of the plan.
        first_step: int, training begins with it.
        devices: devices.Devices, in whose graph this is called.

    Returns:
        namespace, below called a net:
            now: the increment.
            num_classes: int, width of the networks' last layer: all classes of the plan.
            training, evaluation: batches.Stream.
            rate, count: placeholders, the learning rate and the images in the whole batch.
            train_step: dict of float scalars: losses and accuracy of one training step.
            features: float32 tensor [batch, dimensions], of an evaluation batch.
            decay: float, the factor of weight decay.
            variables: dict from name to variable.
            values: dict from name to a tensor, by which the variable is read.
            initializer: operation that initialises all variables.
            session: set by `increment_graph`.
    """
    tf.set_random_seed(s.SEED)  # DETERMINISTIC requires one; run.restore replaces what is drawn
    net = types.SimpleNamespace(now=now, num_classes=ends[-1])
    net.training = batches.training_stream(now, s, first_step, devices)
    net.evaluation = batches.evaluation_stream(s, devices)
    net.rate = tf.placeholder(tf.float32, [])
    net.count = tf.placeholder(tf.int32, [])
    net.decay = settings.weight_decay(s, now.index, len(ends))

    net.train_step = devices.totals(lambda replica: training_step(s, net, devices, replica))

    def features_of(images):
        return network(s, net, 'resnet', images, training=False, reuse=True)[0]

    net.features = devices.each(features_of, net.evaluation.images)
    net.variables = {variable.op.name: variable for variable in tf.global_variables()}
    # Reading a moving average gives the mean of the devices'.
    net.values = {name: tf.identity(variable) for name, variable in net.variables.items()}
    net.initializer = tf.global_variables_initializer()
    return net


def training_step(s, net, devices, replica):
    """One device's part of a training step.

    Args:
        s: settings.
        net: see `build`.
        devices: devices.Devices.
        replica: int, the device's number in this process.

    Returns:
        losses: dict of float32 scalar tensors: the device's part of each loss, and of the accuracy.
            The devices' parts add up.
        updates: list of operations that make the step.
    """
    now = net.now
    batch = (net.training.images, net.training.labels)
    images, labels, share = devices.share(replica, batch, net.count)  # share: of the whole batch
    _, logits = network(s, net, 'resnet', images, training=True)
    logits = logits[:, :now.num_seen]

    loss_class = bic_layer.classification_loss(logits, labels)      # equation 2
    loss_distill = tf.zeros([])
    weight = distillation_weight(s, now)
    if weight:                                                      # equation 1
        # The old network ends in the last layer of its stage 2, see Run.restore.
        _, old_logits = network(s, net, 'resnet_old', images, training=False)
        loss_distill = bic_layer.distillation_loss(
            logits[:, :now.num_old], old_logits[:, :now.num_old], s.TEMPERATURE)
    loss_l2 = net.decay * bic_layer.l2_loss(resnet_model.decayed('resnet'))
    loss = weight * loss_distill + (1 - weight) * loss_class + loss_l2  # equation 3, weight decay

    predicted = tf.argmax(logits, 1, output_type=tf.int32)
    top1 = tf.reduce_mean(tf.cast(tf.equal(predicted, labels), tf.float32))

    with tf.variable_scope('optimizer'):  # else momentum would be taken for a part of the network
        sgd = numerics.optimizer(s, net.rate)
        student = tf.trainable_variables('resnet/')  # with '/': 'resnet_old' begins with 'resnet'
        update = sgd.minimize(share * loss, var_list=student)
    losses = dict(loss=loss, loss_class=loss_class, loss_distill=loss_distill, loss_l2=loss_l2,
                  top1=top1)
    moving_averages = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    parts = {name: share * value for name, value in losses.items()}
    return parts, [update] + moving_averages


def distillation_weight(s, now):
    """lambda of equation 3, float; 0 in the first increment and for methods without it."""
    if not now.num_old or not settings.METHODS[s.METHOD].distils:
        return 0.0
    return bic_layer.distillation_weight(now.num_old, now.num_seen)


def network(s, net, scope, images, training, reuse=False):
    """Features and logits of a network, with an output for every class of the plan."""
    data_format = 'channels_first' if numerics.num_gpus() else 'channels_last'
    return resnet_model.network(scope, images, s, net.num_classes, training, data_format, reuse)


# ---- The parts of an increment -------------------------------------------------------------------
def train_classifier(run, net, train):
    """Stage 1: trains the network, and distils from the old one. Writes [train] lines.

    Args:
        run: logs.run.Run.
        net: see `build`.
        train: int array, the images to train on.

    Returns:
        dict from name to array: the variables of the trained network.

    Raises:
        Fault: the loss is not finite, or an image cannot be read any more.
        KeyboardInterrupt: as asked, after a checkpoint.
    """
    net.training.start(net.session, run.data, train)
    weight = distillation_weight(run.s, net.now)
    with run.training(net) as training:
        for step in training:
            rate = settings.learning_rate(run.s, net.now.num_train, step)
            losses, waited = train_step(run, net, step, rate)
            training.after(step, losses, waited, {'lr': rate, 'lambda': weight})
    return run.read_network(net)


def train_step(run, net, step, rate):
    """Makes one training step: one session.run.

    Returns:
        losses: dict of float, see `build`.
        waited: float, seconds that the step waited for its batch.
    """
    feed = {net.rate: rate, net.count: settings.batch_size(run.s, net.now.num_train, step)}
    with run.devices.waiting('increment=%d step=%d' % (net.now.index, step + 1)):
        with net.training.explained():
            return net.session.run([net.train_step, net.training.waited], feed)


def fit_correction(run, net, weights, val):
    """Stage 2: the last layer to use, from held-out images and the frozen network.

    Args:
        run, net: as for `train_classifier`.
        weights: dict from name to array, the trained network.
        val: int array, the images of the validation split.

    Returns:
        bic_layer.Correction. Methods without a correction use the layer as trained.
    """
    kernel, bias = resnet_model.last_layer(weights, net.now.num_seen)
    if net.now.num_old and run.s.METHOD in CORRECTIONS:
        return CORRECTIONS[run.s.METHOD](run, net, kernel, bias, val)
    return bic_layer.Correction(kernel, bias)


def correct_bias(run, net, kernel, bias, val):
    """METHOD=bic: beta and gamma of equation 4, which minimise equation 5 on the validation split.

    bic_layer finds the exact minimum of this convex problem, within bounds and with [C]'s penalty,
    where [P] and [C] run SGD. Writes a [bias] line and [eval] lines of the validation split.

    Args:
        run, net, val: as for `fit_correction`.
        kernel: float32 array [features, num_seen], the trained last layer.
        bias: float32 array [num_seen], likewise.

    Returns:
        bic_layer.Correction.
    """
    s = run.s
    num_old = net.now.num_old
    features, labels = extract_features(run, net, val)
    logits = bic_layer.logits_of(features, kernel, bias)
    fit = bic_layer.fit_bias(logits, labels, num_old, (s.BETA_MIN, s.BETA_MAX), s.GAMMA_PENALTY)
    correction = bic_layer.corrected(kernel, bias, num_old, fit.beta, fit.gamma)
    log.write_bias(run.log, net.now, fit, len(val))
    trained = bic_layer.Correction(kernel, bias)
    ends = run.ends[:net.now.index + 1]
    scores = score_layers(features, labels, ends, trained, correction)
    log.write_scores(run.log, net.now, 'val', scores)
    return correction


def retrain_last_layer(run, net, kernel, bias, val):
    """METHOD=joint_last: the last layer fitted to the features of all images.

    This is the upper bound of the paper's table 3. It measures what the features of `distill` are
    worth: the next increment goes on with the network as trained. Arguments as for `correct_bias`;
    val is not used.
    """
    all_images = np.concatenate(run.data.train[:net.now.num_seen])
    features, labels = extract_features(run, net, all_images)
    return bic_layer.fit_last_layer(features, labels, kernel, bias, net.decay)


CORRECTIONS = {'bic': correct_bias, 'joint_last': retrain_last_layer}  # stage 2 of each method


def rebuild_memory(run, net):
    """Chooses the exemplars of every class seen with the new network [C].

    A class keeps now.kept_per_class: MEMORY_SIZE / seen classes, minus the validation images
    (section 5.1). An old class is chosen from its present exemplars, a new one from its training
    images. Writes a [memory] line.

    Returns:
        memory: list by label of int arrays, images in order of choice.
        class_means: list of arrays for the nearest mean of exemplars, or None if none is kept.
    """
    began = time.time()
    s = run.s
    now = net.now
    candidates = run.memory + run.data.train[now.num_old:now.num_seen]
    features, _ = extract_features(run, net, np.concatenate(candidates))
    borders = np.cumsum([len(class_images) for class_images in candidates])
    select = exemplar.SELECTIONS[s.EXEMPLAR_SELECTION]
    memory = []
    class_means = []
    for label, class_features in enumerate(np.split(features, borders[:-1])):
        random = exemplar.random_stream(s.SEED, 'exemplars', now.index, label)
        rows = select(class_features, now.kept_per_class, random)
        memory.append(candidates[label][rows])
        if now.kept_per_class:
            class_means.append(exemplar.class_mean(class_features[rows]))
    run.log('memory', increment=now.index, candidates=int(borders[-1]),
            exemplars=sum(len(class_images) for class_images in memory),
            seconds=time.time() - began)
    return memory, class_means or None


def evaluate(run, net, test, weights, correction, class_means):
    """The test on all classes seen, before and after the correction. Writes its lines.

    Args:
        run, net, weights: as for `fit_correction`.
        test: int array, the test images.
        correction: bic_layer.Correction.
        class_means: see `rebuild_memory`.

    Returns:
        metrics.Scores.
    """
    features, labels = extract_features(run, net, test)
    trained = bic_layer.Correction(*resnet_model.last_layer(weights, net.now.num_seen))
    ends = run.ends[:net.now.index + 1]
    scores = score_layers(features, labels, ends, trained, correction, class_means)
    log.write_scores(run.log, net.now, 'test', scores)
    log.write_confusion(run.log, net.now, scores, ends)
    return scores


def score_layers(features, labels, ends, trained, correction, class_means=None):
    """Scores the trained layer, the corrected one and, with class_means, the nearest mean.

    Args:
        features: float32 array [images, dimensions].
        labels: int array [images].
        ends: list of int, classes seen after each increment so far.
        trained: bic_layer.Correction, the last layer as trained.
        correction: bic_layer.Correction, the last layer to use.
        class_means: see `rebuild_memory`.

    Returns:
        metrics.Scores.
    """
    def score_layer(layer):
        def classify(rows):
            return bic_layer.logits_of(rows, layer.kernel, layer.bias)
        return metrics.score(classify, features, labels, ends)

    nme = None
    if class_means is not None:
        nme = metrics.score(lambda rows: exemplar.mean_scores(rows, class_means),
                            features, labels, ends)
    return metrics.Scores(labels, score_layer(trained), score_layer(correction), nme)


def extract_features(run, net, numbers):
    """Features of images by the network in inference mode.

    Args:
        run, net: as for `train_classifier`.
        numbers: int array, images of run.data.

    Returns:
        features: float32 array [images, dimensions].
        labels: int array [images].

    Raises:
        Fault: a feature is not finite, or an image cannot be read.
    """
    features = []
    net.evaluation.start(net.session, run.data, numbers)
    with net.evaluation.explained():
        for _ in range(0, len(numbers), run.devices.part(run.s.BATCH_SIZE)):
            features.append(net.session.run(net.features))
    features = np.concatenate(features)
    if not np.isfinite(features).all():
        raise Fault('increment=%d: the trained network gives features that are not finite; try a '
                    'lower LEARNING_RATE with another MODEL_DIR' % net.now.index)
    return features, run.data.labels[numbers]


if __name__ == '__main__':
    if hasattr(sys.stdout, 'reconfigure'):  # not if it is closed, nor in a notebook
        # Class names in any language, on terminals in any.
        sys.stdout.reconfigure(errors='backslashreplace')
    try:
        with signals.like_ctrl_c():
            main(sys.argv[1:])
    except Fault as fault:
        sys.exit(str(fault))
    except MemoryError as error:
        sys.exit('out of memory (%r); stop other programs, and the same command resumes from the '
                 'last checkpoint' % error)
    except KeyboardInterrupt as stop:
        print('%sstopped; the same command resumes' % stop, file=sys.stderr)
        sys.exit(signals.STATUS)
