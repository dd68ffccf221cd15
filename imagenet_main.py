"""BiC, "Large Scale Incremental Learning" (Wu et al., CVPR 2019): the experiment.

    CUDA_VISIBLE_DEVICES=0 python imagenet_main.py 1>log 2>&1

Edit the constants below, or override any of them for one run with --NAME=value. Sources: [P] the paper, [C] the authors'
code, which is for ImageNet only. Where they differ, [C] is followed, and the comment names the difference.
"""
import itertools
import os
import signal
import sys
import time

if signal.getsignal(signal.SIGINT) is signal.default_int_handler and __name__ == '__main__':
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the program without a traceback; see like_ctrl_c
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # 0 shows what TensorFlow finds, for instance why it uses no GPU
os.environ.setdefault('TF_GPU_THREAD_MODE', 'gpu_private')  # input threads must not keep a GPU's kernels waiting
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')  # TensorFlow 2 has it off on processors without AVX-512: 3.6 times slower

try:
    import numpy as np
    import tensorflow.compat.v1 as tf
except (ImportError, MemoryError, OSError) as error:  # not installed, or too little memory for its libraries
    reason = str(error).strip().split('Error: ')[-1].split('\n')[0]  # TensorFlow 1.15 puts a whole traceback into it
    sys.exit('TensorFlow and NumPy cannot be loaded (%s); README says how to install them' % (reason or 'out of memory'))

import bic_layer
import exemplar
import resnet_model
from data import Fault, batches, prepare_cifar100, prepare_digits, settings
from data.devices import ONE, Devices, num_gpus, optimizer, set_up
from data.images import explained
from logs import export, log, results, tables
from logs.run import STATUS, Run, compare, like_ctrl_c

# ---- The run -----------------------------------------------------------------------------------------------------------
DATASET = 'digits'           # a recipe: digits, imagenet100, imagenet1000, celeb10000, cifar100 or folder
SEED = 1                     # decides weights, shuffling, augmentation; 0 .. 2**32 - 1
MODEL_DIR = 'model'          # checkpoints go to MODEL_DIR/DATASET/
LOG_DIR = 'logs'             # the log goes to LOG_DIR/log-DATASET-<date>-<time> and to standard output
LOG_STEPS = 50               # training steps between two [train] lines
CHECKPOINT_EPOCHS = 0        # within an increment, write a checkpoint after every so many epochs; 0: never
CHECKPOINT_MINUTES = 30.0    # and after so many minutes; one is always written after stage 1, and after the increment
FIRST_INCREMENT_FROM = ''    # MODEL_DIR of a run whose first network is used instead of training one, see logs/README.md
DETERMINISTIC = False        # True: kernels whose bits repeat, on GPUs too, but slower; needs TensorFlow 2.9 or later
PLAN_ONLY = False            # True: print what the run would do and what is wrong with the data, then end
PREDICT = ''                 # a file or folder of images: print what the newest model of MODEL_DIR/DATASET says, then end
REPLICAS = 0                 # devices that share each batch; 0: all visible GPUs, or the CPU. Without GPUs: parts of the CPU
WORKER_MINUTES = 5.0         # timeout in minutes for the other workers of TF_CONFIG, at the start and in each step
XLA = False                  # True: compile the graph for the GPU; on a CPU, TF_XLA_FLAGS=--tf_xla_cpu_global_jit is needed

# ---- The method --------------------------------------------------------------------------------------------------------
METHOD = 'bic'               # finetune: classification loss on new images and exemplars [P, baseline-1];
                             # distill: with distilling loss [P, baseline-2]; bic: with bias correction as well;
                             # joint: classification loss on all images of all classes;
                             # joint_last: distill, then the last layer retrained on all images [P, upper bound of table 3]
EXEMPLAR_SELECTION = 'herding'  # how the memory chooses a class's exemplars: herding, or random [P, table 5]
CLASS_ORDER_SEED = 1993      # seed of class order and hold-out; SEED does not touch these [C]
TEMPERATURE = 2.0            # T of the distillation loss [P, section 3] [C]
SCALE_WEIGHT_DECAY = True    # True: weight decay times (number of increments) / (k + 1) at increment k [C]; False: constant [P]
MOMENTUM = 0.9               # coefficient of SGD's momentum, which is reset at each increment [P] [C]
# The bias correction: new classes' logits o become beta * o + gamma, as [C] calls them; [P, equation 4] says alpha and beta.
BETA_MIN = 0.1               # lower bound of beta: without bounds, separable validation images have no finite optimum
BETA_MAX = 2.0               # upper bound of beta; the published values, 0.39 to 0.79, lie well inside both
GAMMA_PENALTY = 0.1          # stage 2 adds GAMMA_PENALTY * gamma**2 / 2 to its loss [C]; not in [P]

# ---- The recipes: one per dataset, with the same keys in each ------------------------------------------------------------
RECIPES = {
    'digits': dict(                             # scikit-learn's 8 x 8 pixel digits: the demonstration, minutes on a CPU
        DATA_DIR='data/dataDigits',             # folder of the images, with train.txt and val.txt or with class folders
        NUM_CLASSES=10,                         # labels are 0 .. NUM_CLASSES - 1; 0: as many as there are class folders
        TEST_FRACTION=0.2,                      # share of each class that is tested on, for class folders without train/, val/
        CLASS_ORDER='random',                   # random: one shuffle [C]; icarl: that of iCaRL's CIFAR-100 script; sorted: by
                                                # class number; or a file of class names, one a line
        FIRST_INCREMENT_CLASSES=2,              # classes of increment 0; 0: as CLASSES_PER_INCREMENT
        CLASSES_PER_INCREMENT=2,                # new classes of every later increment, or of each of them: (2, 3, 3);
                                                # 0: all classes at once
        MEMORY_SIZE=100,                        # M: exemplars and validation images of old classes together, in images
        VAL_FRACTION=0.3,                       # share of an old class's memory that is kept for stage 2, with as many images of
                                                # each new class; [P, 5.1] has 0.1, too few images for a fit here
        RESNET_DEPTH=18,                        # 18 34 50 101 152 200, or 8 20 32 56 for the small form of CIFAR
        IMAGE_SIZE=32,                          # side of the network's input, in pixels
        RESIZE_SIDE_MIN=32,                     # the smallest shorter side after the random resize in training, in pixels;
                                                # evaluation resizes to it. Both sides follow --IMAGE_SIZE unless set
        RESIZE_SIDE_MAX=38,                     # the largest shorter side after the random resize
        PADDING=0,                              # training adds a border of zeros this wide before the crop, in pixels
        RANDOM_FLIP=False,                      # True: training mirrors half of the images
        STANDARDIZE=False,                      # True: each image to mean 0 and deviation 1; False: subtract channel means
        EPOCHS=8,                               # passes over an increment's training set
        LR_DROP_EPOCHS=(4, 6),                  # the learning rate drops tenfold after these; they follow --EPOCHS unless set
        BATCH_SIZE=32,                          # images per step
        LEARNING_RATE=0.05,                     # the first rate, for this BATCH_SIZE
        WEIGHT_DECAY=1e-4,                      # factor of the sum of l2_loss over kernels and the dense bias
        MIXED_PRECISION=False,                  # True: float16 on GPUs, bfloat16 on CPUs that have it, else float32
        BATCH_NORM_DECAY=0.9,                   # momentum of the moving averages; a few hundred steps need a low one
        HEADLINE='top1'),                       # metric of the authors' closing line `accuracy:`, top1 or top5
}
IMAGENET = RECIPES['imagenet100'] = dict(       # the first 100 classes of ILSVRC2012 [C]; the recipes below differ from it
    DATA_DIR='data/dataImageNet100',
    NUM_CLASSES=100,
    TEST_FRACTION=0.2,
    CLASS_ORDER='random',
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
    HEADLINE='top5')
RECIPES['imagenet1000'] = dict(                 # all of ILSVRC2012 [C]
    IMAGENET,
    DATA_DIR='data/dataImageNet1000',
    NUM_CLASSES=1000,
    FIRST_INCREMENT_CLASSES=100,
    CLASSES_PER_INCREMENT=100,
    MEMORY_SIZE=20000)
RECIPES['celeb10000'] = dict(                   # MS-Celeb-1M [P, section 6]; what [P] does not say is as for ImageNet-1000
    IMAGENET,
    DATA_DIR='data/dataCeleb10000',
    NUM_CLASSES=10000,
    FIRST_INCREMENT_CLASSES=1000,
    CLASSES_PER_INCREMENT=1000,
    MEMORY_SIZE=50000,
    HEADLINE='top1')
RECIPES['cifar100'] = dict(                     # [P, section 6]; the class order: the authors, issue 6 of their repository
    IMAGENET,
    DATA_DIR='data/dataCIFAR100',
    CLASS_ORDER='icarl',
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
    IMAGENET,
    DATA_DIR='data/dataFolder',
    NUM_CLASSES=0,
    FIRST_INCREMENT_CLASSES=0,
    CLASSES_PER_INCREMENT=0,
    BATCH_SIZE=64,
    LEARNING_RATE=0.025,
    BATCH_NORM_DECAY=0.99,
    HEADLINE='top1')
PREPARED = {'data/dataDigits': prepare_digits, 'data/dataCIFAR100': prepare_cifar100}  # what writes a folder that is missing


def main(arguments):
    """Runs the experiment. If the overrides list several values, carries out one run after the other and compares them.

    Args:
        arguments: list of str, the overrides `--NAME=value` or `--NAME=value,value`.

    Returns:
        As `execute`; of several runs a list of such lists.
    """
    tf.get_logger().setLevel('ERROR')
    if '--help' in arguments:
        arguments.remove('--help')
        print(settings.help_text(__file__, settings.read(globals(), RECIPES, arguments)[0][0]))
        return []
    each = settings.read(globals(), RECIPES, arguments)
    s, faults = each[0]
    if s.PREDICT and not faults:
        for one, _ in each:
            export.predict('%s/%s' % (one.MODEL_DIR, one.DATASET), one.PREDICT)
        return []
    devices = ONE if faults or s.PLAN_ONLY else Devices(s)
    if len(each) > 1:
        return compare(each, PREPARED, devices, execute)
    return execute(Run(s, faults, PREPARED, devices))


def execute(run):
    """Trains one run (logs.run.Run) to its end. With PLAN_ONLY it shows the plan; of a finished run it shows the results.

    Returns:
        list of dict, one per increment: the rows of the closing table.

    Raises:
        Fault: what the user must fix, found before any training where possible. KeyboardInterrupt: Ctrl-C, SIGTERM, SIGHUP.
    """
    s = run.s
    if run.finished and run.devices.chief:
        print('%s: this run is finished; new classes in DATA_DIR continue it, and another MODEL_DIR begins a new run\n%s'
              % (run.folder, tables.table(run.rows)))
    elif s.PLAN_ONLY:
        log.begin(run)
    run.check()
    run.take_first_increment()
    if s.PLAN_ONLY:
        return run.rows
    if run.finished:
        run.export()
    else:
        set_up(s)
        with run.opened():
            learn(s, run, run.data, run.devices)
            run.devices.leave()
    return run.rows


def learn(s, run, data, devices):
    """Runs the remaining increments: train, correct, update the memory, test."""
    for now in run.plan[run.done:]:
        old = data.train[:now.num_old] if s.METHOD == 'joint' else run.exemplars
        train, val, test = data.images(now, old)  # val is apart from train, and balanced over old and new classes
        run.begin(now, train)
        with devices.graph():
            model = build(s, run.plan, now, run.fits, run.step, devices)
            with devices.session(s) as session:
                run.restore(session, model)  # student and old network start as the network of the previous increment

                # Stage 1: the classifier, distilled from the previous network.
                run.weights = train_classifier(s, session, model, run, now, train)
                if not devices.chief:
                    run.follow(now)  # the chief alone does what follows; the other workers wait for its results
                    continue

                # Stage 2: the bias correction, on logits of the trained network, which is frozen from now on.
                fit, last_layer, correct = bic_layer.IDENTITY, {}, lambda features, logits: logits
                if now.num_old and s.METHOD == 'bic':
                    fit, correct = fit_bias(s, session, model, run, now, val)
                elif now.num_old and s.METHOD == 'joint_last':
                    last_layer, correct = retrain_last_layer(session, model, run, now)

                # The memory: every seen class is herded again with the new network [C].
                run.exemplars, class_means = update_memory(s, session, model, run, now)

                # The test, before and after the correction.
                outputs = results.evaluate(session, model, now, data, test)
                scores = results.score(run.log, now, 'test', outputs, correct, class_means, run.plan)
        run.finish(now, fit, scores, last_layer)


# ---- One increment -------------------------------------------------------------------------------------------------------
def build(s, plan, now, fits, first_step=0, devices=ONE):
    """The graph of one increment: training batches through student and old network to the loss; evaluation batches.

    Args:
        s: settings. plan: list of exemplar.Increment. now: the one of them to build.
        fits: list of bic_layer.Fit, those of the earlier increments.
        first_step: int, training begins with it.
        devices: devices.Devices, in whose graph this is called.

    Returns:
        namespace with what `batches.inputs` returns, and
            rate, count, requests: placeholders, the learning rate, images in the whole batch, [stop, save] of this process;
            losses: dict of scalars; fetching any of them runs a training step;
            requests_sum: the requests of all processes;
            weight, decay: float, lambda and the factor of weight decay;
            evaluated, evaluation_size: (features, logits, labels) of an evaluation batch, and images in it;
            networks: dict from scope to the network's variables by name;
            variables, values, initializer: all variables by name, tensors to read them by, what initialises them.
    """
    tf.set_random_seed(s.SEED)  # DETERMINISTIC requires one; run.restore replaces what TensorFlow draws
    num_old, num_seen = now.num_old, now.num_seen
    model = batches.inputs(now, s, first_step, devices)
    model.rate, model.count = tf.placeholder(tf.float32, []), tf.placeholder(tf.int32, [])
    model.requests = tf.placeholder(tf.float32, [2])
    distils = num_old > 0 and s.METHOD not in ('finetune', 'joint')
    model.weight = num_old / num_seen if distils else 0.0  # lambda = n / (n + m) of equation 3: n old and m new classes
    model.decay = s.WEIGHT_DECAY * (len(plan) / (now.increment + 1) if s.SCALE_WEIGHT_DECAY else 1)

    def train(replica):
        """One device's part of a training step; its losses, which add up over the devices, float32 tensor [5]."""
        images, labels, share = devices.share(replica, model.train_batch, model.count)  # share: of the whole batch
        _, logits = network(s, plan, 'resnet', images, training=True)
        logits = logits[:, :num_seen]
        student = tf.trainable_variables('resnet/')  # with '/': 'resnet' would match 'resnet_old', too

        # Equation 2: L_c, the cross-entropy over all classes seen.
        loss_class = share * bic_layer.classification_loss(logits, labels)

        # Equation 1: L_d, towards the old network after its own bias correction [C], of the classes that were new to it.
        loss_distill = tf.zeros([])
        if distils:
            _, old_logits = network(s, plan, 'resnet_old', images, training=False)
            previous, fit = plan[now.increment - 1], fits[-1]
            old_logits = bic_layer.corrected_logits(old_logits[:, :num_old], previous.num_old, fit.beta, fit.gamma)
            loss_distill = share * bic_layer.distillation_loss(logits[:, :num_old], old_logits, s.TEMPERATURE)

        # Equation 3, and weight decay.
        loss_l2 = model.decay / devices.total * bic_layer.l2_loss(student)
        loss = model.weight * loss_distill + (1 - model.weight) * loss_class + loss_l2

        with tf.variable_scope('optimizer'):  # else its momentum would be taken for a part of the network
            step = optimizer(s, model.rate).minimize(loss, var_list=student)
        top1 = share * tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, 1, output_type=tf.int32), labels), tf.float32))
        with tf.control_dependencies([step] + tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            return tf.stack([loss, loss_class, loss_distill, loss_l2, top1])

    totals = tf.unstack(devices.total_of(devices.run(train)))
    model.losses = dict(zip(('loss', 'loss_class', 'loss_distill', 'loss_l2', 'top1'), totals))
    model.requests_sum = devices.total_of(devices.run(lambda replica: model.requests / devices.local))

    images, labels = model.evaluation_batch
    model.evaluation_size = devices.part(s.BATCH_SIZE)
    model.evaluated = devices.each(lambda part: network(s, plan, 'resnet', part, False, reuse=True), images) + (labels,)
    scopes = ['resnet', 'resnet_old'] if distils else ['resnet']
    model.networks = {scope: resnet_model.variables(scope) for scope in scopes}
    model.variables = {variable.op.name: variable for variable in tf.global_variables()}
    model.values = {name: tf.identity(variable) for name, variable in model.variables.items()}  # averages: the devices' mean
    model.initializer = tf.global_variables_initializer()
    return model


def network(s, plan, scope, images, training, reuse=False):
    """Features and logits, with an output for every class of the plan, seen or not."""
    with tf.variable_scope(scope, reuse=reuse):
        return resnet_model.resnet(images, s.RESNET_DEPTH, plan[-1].num_seen, training, s.BATCH_NORM_DECAY,
                                   'channels_first' if num_gpus() else 'channels_last')


def train_classifier(s, session, model, run, now, train):
    """Stage 1: the training steps of one increment, with a [train] line after the first, the last and every LOG_STEPS-th.

    Args:
        s: settings. session, model: of `build`. run: logs.run.Run. now: exemplar.Increment.
        train: int array, the images to train on.

    Returns:
        dict from name to array: the trained network's variables.

    Raises:
        Fault: the loss is not finite; an image cannot be read any more. KeyboardInterrupt: as asked, after a checkpoint.
    """
    devices, k, steps, paths = run.devices, now.increment, settings.num_steps(s, now), run.data.paths[train]
    meter = log.Meter(s, run.steps_left, run.sums)
    fetched = [list(model.losses.values()), model.waited, model.requests_sum]
    session.run(model.train_batches.initializer, batches.feed(model, run.data, train))
    with run.noting_signals():
        for step in range(run.step, steps):
            rate, began = settings.learning_rate(s, now.train, step), time.time()
            epoch, count = step * s.BATCH_SIZE // now.train, min(s.BATCH_SIZE, s.EPOCHS * now.train - step * s.BATCH_SIZE)
            fed = {model.rate: rate, model.count: count, model.requests: run.requests(now, step)}
            with devices.waiting('increment=%d step=%d' % (k, step + 1)), explained(paths):
                losses, waited, requests_sum = session.run(fetched, fed)
            if not np.isfinite(losses[0]):
                raise Fault('increment=%d epoch=%d step=%d: loss=%s; try a lower LEARNING_RATE (now %s) with another MODEL_DIR'
                            % (k, epoch, step + 1, losses[0], s.LEARNING_RATE))
            meter.add(losses, waited, count, time.time() - began)
            if step in (0, steps - 1) or (step + 1) % s.LOG_STEPS == 0:
                means, times = meter.read()
                run.log('train', increment=k, epoch=epoch, step=step + 1, lr=rate, **{'lambda': model.weight},
                        **dict(zip(model.losses, means)), **times)
            # Several workers must act after the same step, on requests sent with this step. A single one uses its newest.
            stop, save = requests_sum if devices.num_workers > 1 else run.requests(now, step + 1)
            if stop or save or step == steps - 1:
                run.save(now, devices.read(session, model), step + 1, meter.sums)
            if stop:
                devices.leave()
                raise KeyboardInterrupt
    return {name[len('resnet/'):]: value for name, value in devices.read(session, model).items() if name.startswith('resnet/')}


def fit_bias(s, session, model, run, now, val):
    """Stage 2: beta and gamma of equation 4, which minimise equation 5 on the validation split.

    bic_layer finds the exact minimum of this convex problem, where [P] and [C] run SGD.

    Args:
        val: int array, the images of the validation split. The others: as of `train_classifier`.

    Returns:
        fit: bic_layer.Fit. correct: function from features and logits to corrected logits.
    """
    outputs = [(None, logits, labels) for _, logits, labels in results.evaluate(session, model, now, run.data, val)]
    logits = np.concatenate([logits for _, logits, _ in outputs])
    labels = np.concatenate([labels for _, _, labels in outputs])
    fit = bic_layer.fit_bias(logits, labels, now.num_old, s.BETA_MIN, s.BETA_MAX, s.GAMMA_PENALTY)

    def correct(_, logits):
        return bic_layer.corrected_logits(logits, now.num_old, fit.beta, fit.gamma)

    run.log('bias', increment=now.increment, **fit._asdict(), val=len(val))
    if fit.at_bound:
        run.log.text('[note]    increment %d: beta is at its bound: %d validation images are too few, or too easy, for a fit; '
                     'in a new run, a larger MEMORY_SIZE or VAL_FRACTION gives more' % (now.increment, len(val)))
    results.score(run.log, now, 'val', outputs, correct)
    return fit, correct


def retrain_last_layer(session, model, run, now):
    """METHOD=joint_last: the last layer fitted to the features of all images; the upper bound of the paper's table 3.

    The next increment begins with the network as it was: this measures what the features of `distill` are worth.

    Returns:
        last_layer: dict from name to array. correct: function from features and logits to the new logits.
    """
    images = np.concatenate(run.data.train[:now.num_seen])
    features = np.concatenate([features for features, _, _ in results.evaluate(session, model, now, run.data, images)])
    kernel, bias = bic_layer.fit_last_layer(
        features, run.data.labels[images], run.weights['dense/kernel'][:, :now.num_seen],
        run.weights['dense/bias'][:now.num_seen], model.decay)
    return {'dense/kernel': kernel, 'dense/bias': bias}, lambda features, _: features.dot(kernel) + bias


def update_memory(s, session, model, run, now):
    """Chooses exemplars with the new network: of an old class from its present ones, of a new class from its training images.

    now.kept of each class: MEMORY_SIZE / seen classes, minus the validation images (section 5.1). Each class is chosen anew [C].

    Returns:
        chosen: list of num_seen int arrays, each in order of choice.
        class_means: list of num_seen arrays, for the nearest mean of exemplars; None if the memory keeps no exemplar.
    """
    began, candidates = time.time(), run.exemplars + run.data.train[now.num_old:now.num_seen]
    outputs = results.evaluate(session, model, now, run.data, np.concatenate(candidates))
    features = (feature for batch, _, _ in outputs for feature in batch)  # one class at a time is in memory
    chosen, class_means = [], []
    for label, numbers in enumerate(candidates):
        of_class = np.array(list(itertools.islice(features, len(numbers))))
        if s.EXEMPLAR_SELECTION == 'herding':
            rows = exemplar.herding(of_class, now.kept)
        else:
            rows = np.random.RandomState([s.SEED, now.increment, label]).permutation(len(numbers))[:now.kept]
        chosen.append(numbers[rows])
        if now.kept:
            class_means.append(exemplar.class_mean(of_class[rows]))
    run.log('memory', increment=now.increment, candidates=sum(map(len, candidates)), exemplars=sum(map(len, chosen)),
            seconds=time.time() - began)
    return chosen, class_means or None


if __name__ == '__main__':
    like_ctrl_c()
    if sys.stdout:  # None if it is closed
        sys.stdout.reconfigure(errors='backslashreplace')  # class names in any language, on terminals in any
    try:
        main(sys.argv[1:])
    except Fault as fault:
        sys.exit(str(fault))
    except MemoryError as error:
        sys.exit('out of memory (%r); stop other programs, and the same command resumes from the last checkpoint' % error)
    except KeyboardInterrupt as stop:
        print('%sstopped; the same command resumes' % stop, file=sys.stderr)
        sys.exit(STATUS)
