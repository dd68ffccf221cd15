"""The processes that TF_CONFIG names, and what they tell each other beside TensorFlow: what all must have alike, and why one
ends, for TensorFlow's collective operations may wait for it for ever.

Each has a connection to the chief, worker 0, made at the chief's address before TensorFlow's server takes that; lines of JSON go
both ways. Nothing here needs TensorFlow: workers with different ones can say so.
"""
import contextlib
import hashlib
import json
import os
import queue
import re
import signal
import socket
import sys
import threading
import time

from data import Fault
from logs import stop

_INTERVAL = 2  # seconds between two signs of life
_PATIENCE = 30  # seconds of silence after which a worker counts as gone


def cluster():
    """The workers' addresses as TF_CONFIG has them, list of str, and this one's number; [''], 0 without it.

    Raises:
        Fault: TF_CONFIG is malformed.
    """
    text = os.environ.get('TF_CONFIG')
    if not text:
        return [''], 0
    try:
        config = json.loads(text)
        addresses, task = config['cluster']['worker'], config['task']
        kind, index = task['type'], int(task['index'])
        if set(config['cluster']) != {'worker'} or kind != 'worker':
            raise ValueError('only tasks of type worker can take part, and number 0 is the chief')
        wrong = [address for address in addresses if not re.fullmatch(r'\S+:[0-9]{1,5}', str(address))
                 or int(address.rpartition(':')[2]) > 65535]
        if not isinstance(addresses, list) or not addresses or wrong or len(set(addresses)) < len(addresses):
            raise ValueError('cluster.worker must be a list of different host:port')
        if not 0 <= index < len(addresses):
            raise ValueError('task.index=%d, and there are %d workers' % (index, len(addresses)))
    except (ValueError, KeyError, TypeError) as error:
        raise Fault('TF_CONFIG=%s: %s; it should be like {"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
                    '"task": {"type": "worker", "index": 0}}'
                    % (text, 'has no %s' % error if isinstance(error, KeyError) else error))
    return addresses, index


def is_chief():
    return cluster()[1] == 0


def wait_for(addresses, minutes):
    """Waits until all of these, list of host:port, answer, so many minutes at most.

    Raises:
        Fault: some do not.
    """
    deadline, silent = time.monotonic() + 60 * minutes, addresses
    while silent:
        if time.monotonic() > deadline:
            raise _silent(silent, minutes)
        for address in silent:
            with contextlib.suppress(OSError, UnicodeError):  # the latter of a name that cannot be one
                socket.create_connection(_host_port(address), 5).close()
                silent = [other for other in silent if other != address]
        time.sleep(0.5 if silent else 0)


class Workers:
    """All workers, as one of them sees them.

    Args and attributes: addresses, list of str, host:port by worker; index, int, which of them this is. chief: bool, whether it
    is the one that writes checkpoints and log.
    """

    def __init__(self, addresses=('',), index=0):
        self.addresses, self.index, self.chief = addresses, index, index == 0
        self._links = {}       # from the number of a worker: the chief's to all others, another's to the chief
        self._signals = None   # a socket that gets a byte for each signal
        self._ending = False   # whether this process has told that it ends
        self._step_ends = float('inf')  # when the step at hand must have ended, in time.monotonic's seconds

    def join(self, facts, minutes):
        """Connects all workers, which takes as long as the last one needs to start, and compares them.

        Args:
            facts: dict, those of `agree` that TensorFlow depends on. minutes: float, how long to wait for the others.

        Raises:
            Fault: this worker's address cannot be taken; another one does not answer in time; what differs from the chief's.
        """
        threading.Thread(target=self._watch, daemon=True).start()
        with self.telling():
            missing = (self._take_all if self.chief else self._reach_chief)(time.monotonic() + 60 * minutes)
            if missing:
                raise _silent(missing, minutes)
            self._compare(facts)

    def meet(self):
        """Waits for all workers: before one ends, and the others still need its part of a collective operation."""
        self.exchange('', to_the_end=True)

    def exchange(self, value, to_the_end=False):
        """Tells all workers what JSON can hold, and waits for the list of what they told, by worker.

        Args:
            to_the_end: bool, whether to wait even when the run is asked to stop.

        Raises:
            Fault: a worker has ended. Stopped: as was asked.
        """
        if not self.chief:
            self._tell(told=value)
            return self._heard(0, to_the_end)
        values = [value] + [self._heard(number, to_the_end) for number in range(1, len(self.addresses))]
        self._tell(told=values)
        return values

    def agree(self, facts, folder):
        """Compares what every worker must have alike: these facts, and the chief's lock in a folder.

        Args:
            facts: dict from name to what JSON can hold; of what is long, digests are compared.
            folder: str, of the checkpoints, where the chief has the lock.

        Raises:
            Fault: what differs from the chief's. Stopped: as was asked.
        """
        if len(self.addresses) == 1:
            return
        self.exchange('')  # from now on the lock is there
        holder = 'another one than the chief\'s: all must share it'
        with contextlib.suppress(OSError), open(os.path.join(folder, 'lock')) as lock:
            holder = lock.read()
        self._compare(dict(facts, folder=holder))

    @contextlib.contextmanager
    def telling(self):
        """When this fails, the others are told why, and end, too."""
        try:
            yield
        except (Fault, stop.Stopped, KeyboardInterrupt) as error:
            if not self._ending:
                self._ending = True
                self._tell(end=None if not isinstance(error, Fault) else 'worker %d (%s) has ended: %s' % (
                    self.index, self.addresses[self.index], error))
            raise
        except Exception:
            time.sleep(_INTERVAL)  # perhaps for another has died, and then this process ends here
            raise

    @contextlib.contextmanager
    def watched(self):
        """The same for a whole run, after which this process may end; a second signal ends it at once."""
        if len(self.addresses) == 1:
            yield
            return
        self._signals, written = socket.socketpair()
        for end in (self._signals, written):
            end.setblocking(False)
        before = signal.set_wakeup_fd(written.fileno())
        try:
            with self.telling():
                yield
            self._tell(done=True)
        finally:
            signal.set_wakeup_fd(before)
            written.close()

    def paced(self, steps, minutes):
        """The same steps, which all workers take together, so that one that stands still stops all: this process ends when a step
        takes more than so many minutes."""
        for step in steps:
            self._step_ends = time.monotonic() + 60 * minutes
            yield step
        self._step_ends = float('inf')

    def _take_all(self, deadline):
        """The chief takes the connections of the others; returns the addresses of those that did not come."""
        missing = set(range(1, len(self.addresses)))
        with self._listener() as listener:
            while missing and time.monotonic() < deadline:
                link, start = None, {}
                with contextlib.suppress(OSError, ValueError):  # of whatever else comes by
                    link = _Link(listener.accept()[0])
                    start = json.loads(link.lines.readline(2 ** 16).decode())
                if not isinstance(start, dict) or 'worker' not in start:
                    continue
                number, theirs = start['worker'], start.get('cluster')
                if theirs != self.addresses:
                    fault = Fault('TF_CONFIG: cluster.worker is %s for the chief, and %s for worker %s; all must have the same '
                                  'list' % (*map(json.dumps, (self.addresses, theirs, number)),))
                    link.tell(end=str(fault))
                    raise fault
                if number not in missing:
                    link.tell(end='TF_CONFIG: task.index=%d: another process is this worker already' % number)
                    continue
                missing.remove(number)
                link.tell(taken=True)
                self._listen_to(number, link)
        return [self.addresses[number] for number in sorted(missing)]

    def _reach_chief(self, deadline):
        """Another worker connects to the chief; returns the addresses of those that do not answer."""
        while time.monotonic() < deadline:
            answer = None
            with contextlib.suppress(OSError, ValueError):  # it is not there yet; or its address has another program
                link = _Link(socket.create_connection(_host_port(self.addresses[0]), 5))
                link.tell(worker=self.index, cluster=self.addresses)
                answer = json.loads(link.lines.readline(2 ** 16).decode())
            if answer == dict(taken=True):
                self._listen_to(0, link)
                return []
            if isinstance(answer, dict) and 'end' in answer:
                raise Fault(answer['end'])
            time.sleep(0.5)
        return [self.addresses[0]]

    def _listener(self):
        """A socket at this worker's address, on every network, as TensorFlow's server has it afterwards."""
        for family in (socket.AF_INET6, socket.AF_INET):  # the first takes both kinds of addresses; some machines do not have it
            try:
                listener = socket.socket(family)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the connections stay there beside the server
                listener.bind(('', _host_port(self.addresses[self.index])[1]))
                listener.listen()
                listener.settimeout(1)
                return listener
            except OSError as error:
                reason = error.strerror
        raise Fault('TF_CONFIG: this worker cannot take its address %s (%s)' % (self.addresses[self.index], reason))

    def _compare(self, facts):
        facts = {name: value if len(json.dumps(value)) < 200 else hashlib.sha256(json.dumps(value).encode()).hexdigest()
                 for name, value in facts.items()}
        chiefs, *others = self.exchange(facts)
        faults = ['%s=%s: worker %d (%s) has %s; all workers must run the same command, code and data'
                  % (name, chiefs.get(name), number, self.addresses[number], theirs.get(name))
                  for number, theirs in enumerate(others, 1) for name in sorted(set(chiefs) | set(theirs))
                  if chiefs.get(name) != theirs.get(name)]
        if faults:
            self._ending = True  # all find the same, and each says so
            self._tell(done=True)
            raise Fault('\n'.join(faults))

    def _heard(self, number, to_the_end):
        """What a worker told, see `exchange`."""
        told = queue.Empty
        while told is queue.Empty and (to_the_end or not stop.asked()):
            with contextlib.suppress(queue.Empty):
                told = self._links[number].told.get(timeout=0.5)
        if told is None and not stop.asked():
            raise Fault(self._lost(number, 'is gone'))
        if told in (None, queue.Empty):
            raise stop.Stopped()
        return told

    def _tell(self, **message):
        for link in list(self._links.values()):
            link.tell(**message)

    def _listen_to(self, number, link):
        link.connection.settimeout(None)
        self._links[number] = link
        threading.Thread(target=self._listen, args=(number, link), daemon=True).start()

    def _listen(self, number, link):
        with contextlib.suppress(OSError, ValueError):  # the latter of half a line
            for line in link.lines:
                link.time, message = time.monotonic(), json.loads(line.decode())
                if 'told' in message:
                    link.told.put(message['told'])
                link.done = 'done' in message or 'end' in message or link.done and 'told' not in message
                if 'end' in message:
                    self._end(message['end'])
        if not link.done:
            self._end(self._lost(number, 'is gone'))
        link.told.put(None)

    def _watch(self):
        while True:
            time.sleep(_INTERVAL)
            self._tell()
            for number, link in list(self._links.items()):
                if not link.done and time.monotonic() - link.time > _PATIENCE:
                    self._end(self._lost(number, 'has been silent for %d seconds' % _PATIENCE))
            if time.monotonic() > self._step_ends:
                self._end('a step takes longer than WORKER_MINUTES: a worker stands still, perhaps for its disk or its GPU; mend '
                          'that, start all workers again, and they go on from the last checkpoint')
            with contextlib.suppress(OSError):  # no signal
                if self._signals and len(self._signals.recv(2, socket.MSG_PEEK)) > 1:
                    os._exit(stop.STATUS)  # of the second one, which the main thread cannot hear while it waits in TensorFlow

    def _end(self, reason):
        """Does as another worker did: asks this process to stop, or ends it, for its main thread may wait in TensorFlow."""
        if self._ending or reason is None and stop.asked():
            return
        self._tell(end=reason)  # by the chief to those that have not heard it
        if reason is None:
            stop.ask()
        else:
            print(reason, file=sys.stderr, flush=True)
            os._exit(1)

    def _lost(self, number, how):
        return ('worker %d (%s) %s; its own output says why; start all workers again, and they go on from the last checkpoint'
                % (number, self.addresses[number], how))


NONE = Workers()


class _Link:
    """A connection.

    Attributes: told, a queue of what was told, None when it is closed; time, when something was heard, in time.monotonic's
    seconds; done, whether the other process may end.
    """

    def __init__(self, connection):
        self.connection, self.lines, self._lock = connection, connection.makefile('rb'), threading.Lock()
        self.told, self.time, self.done = queue.Queue(), time.monotonic(), False
        connection.settimeout(5)

    def tell(self, **message):
        with self._lock, contextlib.suppress(OSError):  # of a process that is gone
            self.connection.sendall(json.dumps(message).encode() + b'\n')


def _silent(addresses, minutes):
    return Fault('TF_CONFIG: no answer within %s minutes (WORKER_MINUTES) from %s; start all workers, and see that their '
                 'addresses can be reached' % (minutes, ', '.join(addresses)))


def _host_port(address):
    host, _, port = address.rpartition(':')
    return host, int(port)
