"""Several runs by one command: one after the other, then their results side by side."""
import os
import shlex
import time

from data import dataset
from logs import metrics, tables
from logs.run import Run


def compare(all_settings, faults, devices, execute):
    """Carries out several runs in turn and prints their results side by side.

    Args:
        all_settings: list of settings, from settings.read.
        faults: data.Faults.
        devices: devices.Devices.
        execute: function that carries out a Run and returns its rows.

    Returns:
        list, each run's closing table, list of dict.

    Raises:
        Fault: one of the runs cannot begin; then none begins.
        KeyboardInterrupt: with the name of the run.
    """
    cache = dataset.Cache()
    runs = [Run(s, faults, devices, cache) for s in all_settings]
    faults.raise_any()
    began = time.time()
    steps_to_do = sum(run.steps_left for run in runs)
    steps_done = 0
    results = []
    while runs:
        run = runs.pop(0)  # with its data
        steps = run.steps_left
        title = 'run %d of %d, %s: ' % (
            len(results) + 1, len(all_settings), os.path.basename(run.s.MODEL_DIR))
        if devices.chief and not run.s.PLAN_ONLY:
            progress = 'is finished'
            if not run.finished:
                hours = (time.time() - began) / 3600
                left = '%.2f' % (hours / steps_done * (steps_to_do - steps_done)
                                 ) if steps_done else 'not known yet'
                progress = 'hours left of all: %s' % left
            print('\n%s%s' % (title, progress), flush=True)
        try:
            if run.finished and not run.s.PLAN_ONLY:
                run.export()
            else:
                execute(run)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(title)
        steps_done += steps
        results.append(run.rows)
    if all(results) and devices.chief:
        _print_comparison(all_settings, results)
    return results


def _print_comparison(all_settings, results):
    """Prints the table of several finished runs."""
    runs = []
    for s, rows in zip(all_settings, results):
        last = dict(rows[-1], forgetting_top1=metrics.forgetting(rows))
        runs.append((vars(s), rows[:-1] + [last]))
    folder = shlex.quote(os.path.dirname(all_settings[0].LOG_DIR))
    print('\n%s\n\n%s\n\nPictures: python -m logs.report %s/*=*/log-*' % (
        tables.comparison(runs, all_settings[0].HEADLINE), tables.SPREAD, folder))
