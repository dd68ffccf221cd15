"""The training steps of an increment: where they end, what is logged and saved in between."""
import time

import numpy as np

from data import Fault, settings
from logs import log


class Training:
    """An iterator over the steps of an increment, from where it was interrupted.

    Args:
        run: logs.run.Run.
        net: see imagenet_main.build.
        request: signals.Request.
    """

    def __init__(self, run, net, request):
        self._run = run
        self._net = net
        self._request = request
        self._num_steps = settings.num_steps(run.s, net.now.num_train)
        self._meter = log.Meter(run.s, run.steps_left, run.state.losses)
        self._began = self._step_began = self._saved = time.time()
        self._lines = 0
        self._stop = False

    def __iter__(self):
        """Yields the numbers of the steps, int from 0.

        Raises:
            KeyboardInterrupt: as asked, after a checkpoint.
        """
        for step in range(self._run.step, self._num_steps):
            self._step_began = time.time()
            yield step
            if self._stop:
                self._run.devices.leave()
                raise KeyboardInterrupt

    def after(self, step, losses, waited, also):
        """Ends a step: the [train] line and the checkpoint, when they are due.

        There is a line after the first step, the last one and every LOG_STEPS-th; and one after a
        minute, if there was none since the first.

        Args:
            step: int, from 0.
            losses: dict of float, see imagenet_main.build.
            waited: float, seconds that the step waited for its batch.
            also: dict of float, what else the line shows.

        Raises:
            Fault: the loss is not finite.
        """
        s = self._run.s
        now = self._net.now
        epoch = step * s.BATCH_SIZE // now.num_train
        if not np.isfinite(losses['loss']):
            raise Fault('increment=%d epoch=%d step=%d: loss=%s; try a lower LEARNING_RATE (now '
                        '%s) with another MODEL_DIR'
                        % (now.index, epoch, step + 1, losses['loss'], s.LEARNING_RATE))
        num_images = settings.batch_size(s, now.num_train, step)
        self._meter.add(losses, waited, num_images, time.time() - self._step_began)
        is_last = step == self._num_steps - 1
        is_minute = self._lines == 1 and time.time() - self._began > 60
        if step == 0 or is_last or (step + 1) % s.LOG_STEPS == 0 or is_minute:
            self._lines += 1
            means, times = self._meter.read()
            self._run.log('train', increment=now.index, epoch=epoch, step=step + 1, **also,
                          **means, **times)
        self._stop, is_due = self._vote(step + 1)
        if self._stop or is_due or is_last:
            self._save(step + 1)

    def _vote(self, step):
        """Whether to stop and whether to save after so many steps, (bool, bool).

        Several workers must act after the same step: if one asks for it, all do it.
        """
        s = self._run.s
        every = s.CHECKPOINT_EPOCHS * self._net.now.num_train
        images = step * s.BATCH_SIZE
        is_border = every > 0 and images // every > (images - s.BATCH_SIZE) // every
        is_late = time.time() - self._saved > 60 * s.CHECKPOINT_MINUTES
        votes = np.array([[self._request.stop, is_border or is_late]], float)
        doing = 'increment=%d step=%d' % (self._net.now.index, step)
        with self._run.devices.waiting(doing):
            stop, save = self._run.devices.summed(self._net.session, votes)[0]
        return bool(stop), bool(save)

    def _save(self, step):
        self._saved = time.time()
        arrays = self._run.devices.average_and_read(self._net.session, self._net)
        self._run.save(self._net.now, arrays, step, self._meter.losses)
