"""BiC, "Large Scale Incremental Learning" (Wu et al., CVPR 2019): the experiment.

    CUDA_VISIBLE_DEVICES=0 python imagenet_main.py 1>log 2>&1

Edit the constants below, or override any of them for one run with --NAME=value. Sources: [P] the paper, [C] the authors'
code; where they differ, [C] produced the published numbers and is followed, and the comment names the difference.
"""
import itertools
import os
import sys
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # 0 shows what TensorFlow finds, for instance why it uses no GPU
os.environ.setdefault('TF_GPU_THREAD_MODE', 'gpu_private')  # input threads must not keep a GPU's kernels waiting
os.environ.setdefault('TF_ENABLE_WINOGRAD_NONFUSED', '1')  # cuDNN's faster 3x3 convolutions [C]
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')  # TensorFlow 2 has it off on processors without AVX-512: 3.6 times slower

import numpy as np
import tensorflow.compat.v1 as tf

import bic_layer
import exemplar
import resnet_model
from data import Fault, batches, checks, machine, prepare_cifar100, prepare_digits, protocol, replicas, settings, workers
from logs import checkpoint, export, log, results, stop, tables

# ---- The run -----------------------------------------------------------------------------------------------------------
DATASET = 'digits'           # which of the RECIPES below
SEED = 1                     # weights, shuffling, augmentation; 0 .. 2**32 - 1
MODEL_DIR = 'model'          # checkpoints go to MODEL_DIR/DATASET/
LOG_DIR = 'logs'             # the log goes to LOG_DIR/log-DATASET-<date>-<time> as well as to standard output
LOG_STEPS = 50               # training steps between two [train] lines
CHECKPOINT_EPOCHS = 0        # what is needed to go on is saved after every so many epochs (0: not by epochs), after so many
CHECKPOINT_MINUTES = 30.0    # minutes, and after each stage
FIRST_INCREMENT_FROM = ''    # MODEL_DIR of a run with the same settings, whose first network is taken instead of training it
DETERMINISTIC = False        # True: TensorFlow 2 takes the kernels that give the same bits again on GPUs, too; slower there
PLAN_ONLY = False            # True: print what the run is going to do and what is wrong with the data, then end
PREDICT = ''                 # a file or folder of images: print what the newest model of MODEL_DIR/DATASET says of them, then end
DECODE_ALL = False           # before the run, decode every image; False: only those whose first and last bytes look damaged
KEEP_GB = 2.0                # training images kept decoded in main memory, exemplars first, up to so many 10^9 bytes
REPLICAS = 0                 # devices of this machine that share each batch; 0: all visible GPUs; without one, parts of the CPU
SCALE_BATCH = False          # True: batch and learning rate are multiplied by the number of devices, with a warm-up
WORKER_MINUTES = 5.0         # the workers that TF_CONFIG names wait for each other so long, at the start and in each step
XLA = False                  # True: compile the graph for the GPU; on a CPU with TF_XLA_FLAGS=--tf_xla_cpu_global_jit as well
LEAVE_OUT_BROKEN = False     # do without images that cannot be decoded; False: refuse to start

# ---- The method --------------------------------------------------------------------------------------------------------
METHOD = 'bic'               # finetune: classification loss on new images and exemplars [P, baseline-1]; distill: and distilling
                             # loss [P, baseline-2]; bic: and correction; joint: classification loss on all images of all classes;
                             # joint_last: distill, then the last layer retrained on all images [P, upper bound of table 3]
EXEMPLAR_SELECTION = 'herding'  # which images the memory keeps of a class: herding, or random [P, table 5]
CLASS_ORDER = 'random'       # random: one shuffle [C]; icarl: as iCaRL's CIFAR-100 script drew it; sorted: by class number;
                             # or a file of class names, one a line
CLASS_ORDER_SEED = 1993      # class order and hold-out, never touched by SEED [C]
TEMPERATURE = 2.0            # T of the distillation loss [P, section 3] [C]
SCALE_WEIGHT_DECAY = True    # True: times increments / (k + 1) at increment k [C]; False: constant [P]
MOMENTUM = 0.9               # of SGD [P] [C]; starts at zero in every increment
BETA_MIN = 0.1               # bounds on beta, inactive at all published values (0.39 to 0.79): separable validation
BETA_MAX = 2.0               # images have no finite optimum
GAMMA_PENALTY = 0.1          # stage 2 adds GAMMA_PENALTY * gamma**2 / 2 to its loss [C]; not in [P]

# ---- The recipes: one per dataset, with the same keys in each ------------------------------------------------------------
RECIPES = {
    'digits': dict(                             # scikit-learn's 8 x 8 pixel digits: the demonstration, minutes on a CPU
        DATA_DIR='data/dataDigits',             # folder with train.txt, val.txt and the images they list
        NUM_CLASSES=10,                         # labels are 0 .. NUM_CLASSES - 1; 0: as many as there are class folders
        TEST_FRACTION=0.2,                      # share of each class that is tested on, for class folders without train/ and val/
        FIRST_INCREMENT_CLASSES=2,              # classes of increment 0; 0: all
        CLASSES_PER_INCREMENT=2,                # new classes of every later increment, or of each of them: (2, 3, 3)
        MEMORY_SIZE=100,                        # M: exemplars and validation images of old classes together, in images
        VAL_FRACTION=0.1,                       # share of the memory that is the validation split, 0 .. 1 [P, section 5.1]
        RESNET_DEPTH=18,                        # 18 34 50 101 152 200, or 8 20 32 56 for the small form of CIFAR
        IMAGE_SIZE=32,                          # side of the network's input, in pixels
        RESIZE_SIDE_MIN=32,                     # training resizes the shorter side to a random one in this range, in pixels;
        RESIZE_SIDE_MAX=38,                     # evaluation to its lower end
        PADDING=0,                              # training adds a border of zeros this wide before the crop, in pixels
        RANDOM_FLIP=False,                      # mirror half of the training images
        STANDARDIZE=False,                      # True: each image to mean 0 and deviation 1; False: subtract channel means
        EPOCHS=8,                               # passes over an increment's training set
        LR_DROP_EPOCHS=(4, 6),                  # the learning rate drops tenfold after these
        BATCH_SIZE=32,                          # images per step
        LEARNING_RATE=0.05,                     # the first rate, for this BATCH_SIZE
        WEIGHT_DECAY=1e-4,                      # factor of the sum of l2_loss over kernels and the dense bias
        MIXED_PRECISION=False,                  # True: 16 bits where the machine is made for it, see data/machine.py; else 32
        BATCH_NORM_DECAY=0.9,                   # momentum of the moving averages; few hundred steps need a low one
        HEADLINE='top1'),                       # metric of the authors' closing line `accuracy:`, top1 or top5
    'imagenet100': dict(                        # the first 100 classes of ILSVRC2012 [C]
        DATA_DIR='data/dataImageNet100',
        NUM_CLASSES=100,
        TEST_FRACTION=0.2,
        FIRST_INCREMENT_CLASSES=10,
        CLASSES_PER_INCREMENT=10,
        MEMORY_SIZE=2000,
        VAL_FRACTION=0.1,
        RESNET_DEPTH=18,
        IMAGE_SIZE=224,
        RESIZE_SIDE_MIN=256,
        RESIZE_SIDE_MAX=512,
        PADDING=0,
        RANDOM_FLIP=True,
        STANDARDIZE=False,
        EPOCHS=100,
        LR_DROP_EPOCHS=(30, 60, 80, 90),
        BATCH_SIZE=256,
        LEARNING_RATE=0.1,
        WEIGHT_DECAY=1e-4,
        MIXED_PRECISION=False,
        BATCH_NORM_DECAY=0.997,
        HEADLINE='top5'),
}
RECIPES['imagenet1000'] = dict(                 # all of ILSVRC2012 [C]
    RECIPES['imagenet100'],
    DATA_DIR='data/dataImageNet1000',
    NUM_CLASSES=1000,
    FIRST_INCREMENT_CLASSES=100,
    CLASSES_PER_INCREMENT=100,
    MEMORY_SIZE=20000)
RECIPES['celeb10000'] = dict(                   # MS-Celeb-1M [P, section 6]; what [P] does not say is as for ImageNet-1000
    RECIPES['imagenet1000'],
    DATA_DIR='data/dataCeleb10000',
    NUM_CLASSES=10000,
    FIRST_INCREMENT_CLASSES=1000,
    CLASSES_PER_INCREMENT=1000,
    MEMORY_SIZE=50000,
    HEADLINE='top1')
RECIPES['cifar100'] = dict(                     # [P, section 6]
    RECIPES['imagenet100'],
    DATA_DIR='data/dataCIFAR100',
    FIRST_INCREMENT_CLASSES=20,
    CLASSES_PER_INCREMENT=20,
    RESNET_DEPTH=32,
    IMAGE_SIZE=32,
    RESIZE_SIDE_MIN=32,
    RESIZE_SIDE_MAX=32,
    PADDING=4,
    STANDARDIZE=True,
    EPOCHS=250,
    LR_DROP_EPOCHS=(100, 150, 200),
    BATCH_SIZE=128,
    WEIGHT_DECAY=2e-4,
    HEADLINE='top1')
RECIPES['folder'] = dict(                       # your own images, see README
    RECIPES['imagenet100'],
    DATA_DIR='data/dataFolder',
    NUM_CLASSES=0,
    FIRST_INCREMENT_CLASSES=0,
    BATCH_SIZE=64,
    LEARNING_RATE=0.025,
    BATCH_NORM_DECAY=0.99,
    HEADLINE='top1')
# The datasets that are written by themselves where their recipe's own folder is not there.
PREPARED = {RECIPES['digits']['DATA_DIR']: prepare_digits, RECIPES['cifar100']['DATA_DIR']: prepare_cifar100}


def main(arguments):
    """Runs the experiment; where overrides list several values, one run after the other, and compares them.

    Args:
        arguments: list of str, the overrides `--NAME=value` or `--NAME=value,value`.

    Returns:
        list of dict, one per increment: the rows of the closing table; of several runs a list of such lists.
    """
    tf.get_logger().setLevel('ERROR')
    each = [settings.read(globals(), RECIPES, of_run) for of_run in settings.runs(globals(), RECIPES, arguments)]
    s, faults = each[0]
    alike = dict(settings.fixed(s), runs=len(each))
    devices = replicas.ALONE if faults or s.PLAN_ONLY or s.PREDICT else replicas.of_machine(s, alike)
    with devices.workers.watched():
        protocol.check(each, PREPARED, devices.workers)
        rows = [run(*of_run, devices) for of_run in each]
    if len(rows) > 1 and all(rows) and workers.is_chief():
        print('\n%s' % tables.comparison([(vars(of_run[0]), table) for of_run, table in zip(each, rows)], s.HEADLINE))
    return rows if len(rows) > 1 else rows[0]


def run(s, faults, devices):
    """One run, from its beginning or from the last checkpoint of an earlier part of it.

    Args:
        s, faults: from `settings.read`. devices: replicas.Replicas.

    Returns:
        list of dict, one per increment: the rows of the closing table.

    Raises:
        Fault: what the user must mend; found before any training where it can be. Stopped: by Ctrl-C or SIGTERM.
    """
    folder = '%s/%s' % (s.MODEL_DIR, s.DATASET)
    if s.PREDICT and not faults:
        return export.predict(folder, s.PREDICT)
    data, plan, missing, arrays, state, resumed = protocol.opened(s, faults, PREPARED, devices.workers)
    devices.workers.compare(dict(classes=len(data.names), increments=len(plan), done=len(state['results'])))
    if s.FIRST_INCREMENT_FROM and not resumed and not missing:
        arrays, state = protocol.first_increment(s, data, plan)
    finished = len(state['results']) == len(plan)
    if finished and workers.is_chief():
        print('%s: this run is finished, and %s has no other classes than its %d; another MODEL_DIR begins a new run\n%s'
              % (folder, s.DATA_DIR, len(data.names), tables.table(state['results'])))
    elif s.PLAN_ONLY:
        log.begin(s, data, plan, state, resumed, workers.is_chief(), **machine.described(s))
    if missing:
        raise Fault('\n'.join(missing))
    if finished or s.PLAN_ONLY:
        return state['results']
    machine.set_up(s)
    with checkpoint.lock(folder, resumed, devices.workers.chief), stop.watched():
        try:
            rows = learn(s, data, plan, arrays, state, resumed, devices)
            devices.workers.meet()  # until the last one has read what the chief wrote
            return rows
        except checks.BrokenImages:
            if not s.LEAVE_OUT_BROKEN or stop.asked() or devices.workers.several:
                raise
    s.DECODE_ALL = True
    return run(s, faults, devices)  # goes on from the last checkpoint without them, and names them


def learn(s, data, plan, arrays, state, resumed, devices):
    """What is not done yet of the increments, in the order of the method.

    Args:
        s: settings. data, plan: from `protocol.read`. arrays, state, resumed: from `checkpoint.load`, or `first_increment`.
        devices: replicas.Replicas. Where it is not the chief's, increments are trained, and waited for until the chief has done
            the rest of them.

    Returns:
        list of dict, the rows of the closing table.
    """
    write = log.begin(s, data, plan, state, resumed, devices.workers.chief, **machine.described(s), replicas=devices.total)
    began, hours_before, steps_done = time.time(), state['hours'], 0
    # By increment: the fits of the correction, rows of the closing table, top-1 on the classes of each increment.
    fits, rows, matrix = [bic_layer.Fit(*fit) for fit in state['fits']], list(state['results']), list(state['matrix'])
    exemplars = data.train[:plan[len(rows)].num_old]  # by label: training images of an old class, in order of choice
    # Where an earlier part of the run was; the previous network's weights, dict from name to array, or None.
    folder, within = '%s/%s' % (s.MODEL_DIR, s.DATASET), state
    weights = resnet_model.grown(None if state['step'] else arrays, len(data.names), s.SEED)
    state = dict(state, settings=settings.fixed(s), sizes=[now.num_seen - now.num_old for now in plan],
                 classes=protocol.known_classes(s, data, state), fits=fits, results=rows, matrix=matrix)

    def save(values, step, sums):
        nonlocal resumed
        state.update(exemplars=[protocol.relative(s, data, images) for images in exemplars], step=step, sums=sums,
                     hours=hours_before + (time.time() - began) / 3600)
        if devices.workers.chief:
            resumed = checkpoint.save(folder, values, state, resumed)
            write('save', increment=now.increment, dir=resumed)

    for now in plan[len(rows):]:
        k, num_old, num_seen = now.increment, now.num_old, now.num_seen
        whole = np.concatenate(data.whole[:num_seen])
        train = whole if s.METHOD == 'joint' else np.concatenate(exemplars + data.train[num_old:num_seen])  # [now.train]
        val = np.concatenate([held[:now.validation] for held in data.held[:num_seen]])  # [now.val]
        test = np.concatenate(data.test[:num_seen])                                     # [now.test]
        state['trained'] = protocol.digest(s, data, train)
        if within['step'] and (within['trained'] != state['trained'] or len(arrays['resnet/dense/bias']) != len(data.names)):
            write.text('[left_out] %s: increment %d has other images or more classes now, and begins anew' % (resumed, k))
            within = checkpoint.NOTHING
            weights = resnet_model.grown(checkpoint.network(folder, k - 1), len(data.names), s.SEED)
        devices.workers.agree(protocol.facts(s, data, state, resumed, within['step']), folder)
        with tf.Graph().as_default():
            with devices.scope():
                model = build(s, plan, now, fits, within['step'], devices)
            tf.get_default_graph().finalize()
            with tf.Session(devices.target, config=devices.config(s)) as session:
                # Stage 1: the classifier, from the previous increment's weights, distilled from the stored network.
                with devices.workers.step(s.WORKER_MINUTES):
                    session.run(model.initializer, {model.variables[name].initial_value: value for name, value in arrays.items()}
                                if within['step'] else resnet_model.first_weights(model.networks, weights, s.SEED))
                weights = train_classifier(s, session, model, plan, now, data, train, within, write, save)
                if not devices.workers.chief:  # which does the rest
                    weights, done, resumed = checkpoint.wait(folder, k)
                    exemplars, within = protocol.among(s, data, train, done['exemplars']), checkpoint.NOTHING
                    fits.append(bic_layer.Fit(*done['fits'][k]))
                    rows.append(done['results'][k])
                    continue

                # Stage 2: the bias correction, on logits of the network, which is frozen now.
                fit, last_layer, correct = bic_layer.IDENTITY, {}, lambda features, logits: logits
                if k and s.METHOD == 'bic':
                    fit, correct = fit_bias(s, session, model, now, data, val, write)
                elif k and s.METHOD == 'joint_last':
                    last_layer, correct = retrain_last_layer(s, session, model, now, data, whole, weights)
                fits.append(fit)

                # The memory, chosen anew for every seen class with the new network.
                exemplars, means = update_memory(s, session, model, data, exemplars, now, write)

                # The test, before and after the correction.
                outputs = results.evaluate(s, session, model, now, data, test)
                labels, scores = results.score(write, now, 'test', outputs, correct, means, plan)
        results.record(write.events.folder, s, data, now, test, labels, scores, exemplars)
        write.events.pictures(s, data, now, train, labels, scores, exemplars)
        rows.append(results.row(now, fit, scores, len(train), len(val), len(test)))
        matrix.append(scores['on'].by_increment)
        steps_done, within = steps_done + settings.num_steps(s, now) - within['step'], checkpoint.NOTHING
        hours, left = (time.time() - began) / 3600, sum(settings.num_steps(s, later) for later in plan[k + 1:])
        results.close(s, write, rows, matrix, hours_before + hours, hours * left / steps_done if steps_done else float('nan'))
        export.write(folder, s, now, data.names, dict(weights, **last_layer), fit)
        save(weights, 0, [])
    if devices.workers.chief:
        results.finish(write, data, rows, scores['on'].by_class)
    return rows


# ---- One increment -------------------------------------------------------------------------------------------------------
def build(s, plan, now, fits, first_step=0, devices=replicas.ALONE):
    """The graph of one increment: training batches through student and old network to the loss; evaluation batches.

    Args:
        s: settings. plan: list of exemplar.Increment. now: the one of them to build. first_step: int, training begins with it.
        fits: list of bic_layer.Fit, those of the earlier increments. devices: replicas.Replicas, in whose scope this is called.

    Returns:
        namespace: what `batches.inputs` gives; rate, count, wishes (placeholders: learning rate, images in the batch of all
        devices, wishes of this process to stop and to save), train_op, losses (dict of scalars), wished (of all processes),
        weight (float, lambda), decay (float, of weights), evaluated (features, logits, labels of an evaluation batch), networks
        (dict from scope to the network's variables by name), variables (all by name: networks and momentum), values (to read them
        by), initializer (of them).
    """
    tf.set_random_seed(s.SEED)  # DETERMINISTIC asks for one; what is drawn is never used
    k, num_old, num_seen = now.increment, now.num_old, now.num_seen
    model = batches.inputs(now, s, first_step, devices)
    model.rate, model.count, model.wishes = (tf.placeholder(*kind) for kind in (
        (tf.float32, []), (tf.int32, []), (tf.float32, [2])))
    data_format = 'channels_first' if machine.num_gpus() else 'channels_last'

    def network(scope, images, training, reuse=False):
        with tf.variable_scope(scope, reuse=reuse):
            return resnet_model.resnet(images, s.RESNET_DEPTH, plan[-1].num_seen, training, s.BATCH_NORM_DECAY, data_format)

    model.weight = 0.0 if s.METHOD in ('finetune', 'joint') else bic_layer.distillation_weight(num_old, num_seen)
    model.decay = s.WEIGHT_DECAY * (len(plan) / (k + 1) if s.SCALE_WEIGHT_DECAY else 1)

    def train(replica):
        # The loss: lambda * L_d + (1 - lambda) * L_c + wd * sum(l2_loss), equation 3.
        images, labels = devices.share(replica, model.train_batch, model.count)
        logits = network('resnet', images, training=True)[1][:, :num_seen]             # [batch, num_seen]
        student = tf.trainable_variables('resnet/')  # not the old network's, whose scope begins alike
        loss_class = bic_layer.classification_loss(logits, labels)
        loss_distill = tf.zeros([])
        if model.weight:
            # The old network's newest classes were those of the previous increment: its correction applies to them.
            old_logits = network('resnet_old', images, training=False)[1][:, :num_old]  # [batch, num_old]
            old_logits = bic_layer.corrected_logits(old_logits, plan[k - 1].num_old, fits[-1].beta, fits[-1].gamma)
            loss_distill = bic_layer.distillation_loss(logits[:, :num_old], old_logits, s.TEMPERATURE)
        loss_l2 = model.decay * bic_layer.l2_loss(student)
        top1 = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, 1, output_type=tf.int32), labels), tf.float32))
        if devices.strategy:  # means over this device's images become shares of the means over the batch
            share = tf.cast(tf.size(labels), tf.float32) / tf.cast(model.count, tf.float32)
            loss_class, loss_distill, top1 = loss_class * share, loss_distill * share, top1 * share
            loss_l2 = loss_l2 / devices.total
        loss = model.weight * loss_distill + (1 - model.weight) * loss_class + loss_l2

        # The optimiser, in a scope of its own: its momentum must not be taken for a part of the network.
        with tf.variable_scope('optimizer'):
            optimizer = bic_layer.Momentum(model.rate, s.MOMENTUM)
            if machine.precision(s) == 'float16':  # small gradients vanish in it: the loss is scaled up, and down again
                optimizer = tf.train.experimental.enable_mixed_precision_graph_rewrite(optimizer)
            step = optimizer.minimize(loss, var_list=student)
        with tf.control_dependencies([step] + tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            return tf.stack([loss, loss_class, loss_distill, loss_l2, top1])

    # Gradients are summed over all devices where they are applied, and the losses here.
    totals = tf.unstack(devices.total_of(devices.run(train)))
    model.losses = dict(zip(('loss', 'loss_class', 'loss_distill', 'loss_l2', 'top1'), totals))
    model.train_op = totals[0].op
    model.wished = devices.total_of(devices.run(lambda replica: model.wishes / devices.local))

    # Evaluation, with the student's variables.
    images, labels = model.evaluation_batch
    model.evaluated = devices.each(lambda share: network('resnet', share, training=False, reuse=True), images) + (labels,)
    model.networks = {scope: resnet_model.variables(scope) for scope in ['resnet', 'resnet_old'][:1 + bool(model.weight)]}
    model.variables = {variable.op.name: variable for variable in tf.global_variables()}
    # Of moving averages, of which each device has its own, the mean.
    model.values = {name: tf.identity(variable) if devices.strategy else variable for name, variable in model.variables.items()}
    model.initializer = tf.global_variables_initializer()
    return model


def train_classifier(s, session, model, plan, now, data, train, within, write, save):
    """Stage 1: the steps of one increment, with a [train] line after the first, the last and every LOG_STEPS-th.

    Args:
        data: namespace from `protocol.read`. train: int array, which of its images to train on.
        within: dict, step and sums as `checkpoint.save` has them: where to begin. save: function of such a step and sums.

    Returns:
        dict from name to array: the network's variables.

    Raises:
        Fault: the loss is not finite; images cannot be read any more. Stopped: as was asked, after having saved.
    """
    k, devices, steps, first, paths = now.increment, model.devices, settings.num_steps(s, now), within['step'], data.paths[train]
    later = sum(settings.num_steps(s, other) for other in plan[k + 1:])
    with checks.explained(paths):
        session.run(model.train_batches.initializer, batches.training_feed(s, model, data, train))
    devices.workers.meet()  # some may have kept more images than others
    sums, saved, wishes, several = list(within['sums']), time.time(), [False, False], devices.workers.several
    fetched = dict(model.losses, train_op=model.train_op, waited=model.waited, **dict(wished=model.wished) if several else {})
    images, seconds, waited = 0, 0.0, 0.0  # since the last line; the first step, with TensorFlow's start-up, is not timed
    for step in write.progress(range(first, steps), 'increment=%d' % k):
        rate, began = settings.learning_rate(s, now.train, step), time.time()
        count = min(s.BATCH_SIZE, s.EPOCHS * now.train - step * s.BATCH_SIZE)
        with checks.explained(paths), devices.workers.step(s.WORKER_MINUTES):
            values = session.run(fetched, {model.rate: rate, model.count: count, model.wishes: wishes})
        if not np.isfinite(values['loss']):
            raise Fault('increment=%d epoch=%d step=%d: loss=%s; a lower LEARNING_RATE (now %s) may help, in another MODEL_DIR'
                        % (k, step * s.BATCH_SIZE // now.train, step + 1, values['loss'], s.LEARNING_RATE))
        sums.append([float(values[name]) for name in model.losses])
        if step > first:
            images += count
            seconds += time.time() - began
            waited += values['waited']
        if step in (0, steps - 1) or (step + 1) % s.LOG_STEPS == 0:
            speed = images / seconds if images else float('nan')
            write('train', increment=k, epoch=step * s.BATCH_SIZE // now.train, step=step + 1, lr=rate,
                  **{'lambda': model.weight}, **dict(zip(model.losses, np.mean(sums, axis=0))), images_per_sec=speed,
                  input_wait=waited / seconds if images else float('nan'),
                  hours_left=(steps - step - 1 + later) * s.BATCH_SIZE / speed / 3600)
            sums, images, seconds, waited = [], 0, 0.0, 0.0
        every = s.CHECKPOINT_EPOCHS * now.train
        border = every and (step + 1) * s.BATCH_SIZE // every > step * s.BATCH_SIZE // every
        wishes = [stop.asked(), bool(border or time.time() - saved > 60 * s.CHECKPOINT_MINUTES)]
        asked, due = values['wished'] if several else wishes  # all workers must do the same: what any wished before this step
        if asked or step == steps - 1 or due:
            save(session.run(model.values), step + 1, sums)
            saved = time.time()
        if asked:
            devices.workers.meet()
            raise stop.Stopped()
    values = session.run(model.values)
    if devices.strategy:  # the mean of the moving averages becomes every device's
        session.run(model.initializer, {model.variables[name].initial_value: value for name, value in values.items()})
    devices.workers.meet()
    return {name[len('resnet/'):]: value for name, value in values.items() if name.startswith('resnet/')}


def fit_bias(s, session, model, now, data, val, write):
    """Stage 2 of bic, on the validation images val, an int array: the Fit, and `correct` as `results.score` wants it."""

    def correct(_, logits):
        return bic_layer.corrected_logits(logits, now.num_old, fit.beta, fit.gamma)

    outputs = [(None, logits, labels) for _, logits, labels in results.evaluate(s, session, model, now, data, val)]
    logits, labels = (np.concatenate(part) for part in list(zip(*outputs))[1:])
    fit = bic_layer.fit_bias(logits, labels, now.num_old, s.BETA_MIN, s.BETA_MAX, s.GAMMA_PENALTY)
    write('bias', increment=now.increment, **fit._asdict(), val=len(val))
    results.score(write, now, 'val', outputs, correct)
    return fit, correct


def retrain_last_layer(s, session, model, now, data, whole, weights):
    """Stage 2 of joint_last, on all images, an int array: the variables' new values by name, and `correct` as `results.score`
    wants it. The next increment begins with the network as it was: this measures what distill's features are worth."""
    features, begin = None, 0
    for of_batch, _, _ in results.evaluate(s, session, model, now, data, whole):
        features = np.empty([len(whole), of_batch.shape[1]], np.float32) if features is None else features
        features[begin:begin + len(of_batch)] = of_batch
        begin += len(of_batch)
    kernel, bias = bic_layer.fit_last_layer(features, data.labels[whole], weights['dense/kernel'][:, :now.num_seen],
                                            weights['dense/bias'][:now.num_seen], model.decay)
    return {'dense/kernel': kernel, 'dense/bias': bias}, lambda features, _: features.dot(kernel) + bias


def update_memory(s, session, model, data, exemplars, now, write):
    """Chooses every seen class's exemplars with the new network, from its exemplars so far, or from its images when it is new.

    Args:
        exemplars: list of int arrays, the old classes'. now: exemplar.Increment.

    Returns:
        chosen: list of num_seen int arrays, each in order of choice. means: list of num_seen arrays, see `exemplar.class_mean`;
            None where the memory has no room for an exemplar of each class.
    """
    began, candidates = time.time(), exemplars + data.train[now.num_old:now.num_seen]
    outputs = results.evaluate(s, session, model, now, data, np.concatenate(candidates))
    features = (feature for batch, _, _ in outputs for feature in batch)  # one pass; one class at a time is kept
    chosen, means = [], []
    for label, images in enumerate(candidates):
        of_class = np.array(list(itertools.islice(features, len(images))))
        rows = exemplar.herding(of_class, now.kept) if s.EXEMPLAR_SELECTION == 'herding' else (
            np.random.RandomState([s.SEED, now.increment, label]).permutation(len(images))[:now.kept])
        chosen.append(images[rows])
        means.append(exemplar.class_mean(of_class[rows]) if now.kept else None)
    write('memory', increment=now.increment, candidates=sum(map(len, candidates)), exemplars=sum(map(len, chosen)),
          seconds=time.time() - began)
    return chosen, means if now.kept else None


if __name__ == '__main__':
    stop.like_ctrl_c()
    try:
        main(sys.argv[1:])
    except Fault as fault:
        sys.exit(str(fault))
    except (stop.Stopped, KeyboardInterrupt):
        print('stopped; the same command goes on', file=sys.stderr)
        sys.exit(stop.STATUS)
