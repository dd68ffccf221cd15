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
_QUIET = 3  # seconds of waiting at the start, after which it is said for whom
_GONE = 'is gone; its own output says why, or it was killed'


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
        Fault: some do not. Stopped: as was asked.
    """
    silent = dict.fromkeys(addresses)
    for address in _tries(silent, minutes):
        with _noted(silent, address):
            socket.create_connection(_host_port(address), 5).close()
            del silent[address]


class Workers:
    """All workers, as one of them sees them.

    Args and attributes: addresses, list of str, host:port by worker; index, int, which of them this is. Attributes: several,
    bool, whether there are others; chief, bool, whether this is the one that writes checkpoints and log.
    """

    def __init__(self, addresses=('',), index=0):
        self.addresses, self.index, self.several, self.chief = addresses, index, len(addresses) > 1, index == 0
        self._links = {}       # from the number of a worker: the chief's to all others, another's to the chief
        self._signals = None   # a socket that gets a byte for each signal
        self._ending = False   # whether this process has told that it ends
        self._turns, self._last_turn = 0, float('inf')  # of `_watch`: so far, and the last one of the step at hand

    def join(self, facts, minutes):
        """Connects all workers, which takes as long as the last one needs to start, and compares them.

        Args:
            facts: dict, those of `compare` that are known already. minutes: float, how long to wait for the others.

        Raises:
            Fault: this worker's address cannot be taken; another one does not answer in time; what differs from the chief's.
            Stopped: as was asked.
        """
        threading.Thread(target=self._watch, daemon=True).start()
        with self.telling(), stop.watched():
            with self._listener() as listener:  # another one finds that its address is free
                if self.chief:
                    self._take_all(listener, minutes)
            if not self.chief:
                self._reach_chief(minutes)
            self.compare(facts)

    def meet(self):
        """Waits for all workers: one that ended would take its part of a collective operation with it."""
        self.exchange('')

    def exchange(self, value):
        """Tells all workers what JSON can hold, and waits for the list of what they told, by worker.

        Raises:
            Fault: a worker has ended. Stopped: one of them was asked to stop; then all raise it.
        """
        if not self.several:
            return [value]
        told = [value, stop.asked()]
        if self.chief:
            told = [told] + [self._heard(number) for number in range(1, len(self.addresses))]
            self._tell(told=told)
        else:
            self._tell(told=told)
            told = self._heard(0)
        if any(asked for _, asked in told):
            raise stop.Stopped()
        return [value for value, _ in told]

    def compare(self, facts):
        """Compares what every worker must have alike.

        Args:
            facts: dict from name to what JSON can hold; of what is long, digests are compared.

        Raises:
            Fault: what differs from the chief's. Stopped: as was asked.
        """
        texts = {name: json.dumps(value) for name, value in facts.items()}
        facts = {name: value if len(texts[name]) < 200 else hashlib.sha256(texts[name].encode()).hexdigest()[:12]
                 for name, value in facts.items()}
        chiefs, *others = self.exchange(facts)
        faults = ['%s: worker 0 (%s) has %s, and worker %d (%s) has %s; all must have the same command, code, data and MODEL_DIR'
                  % (name, self.addresses[0], chiefs.get(name), number, self.addresses[number], theirs.get(name))
                  for number, theirs in enumerate(others, 1) for name in sorted(set(chiefs) | set(theirs))
                  if chiefs.get(name) != theirs.get(name)]
        if faults:
            self._leave(done=True)  # all find the same, and each says so
            raise Fault('\n'.join(faults))

    def agree(self, facts, folder):
        """Compares facts, as `compare` does, and the chief's lock in the folder of the checkpoints, str."""
        if not self.several:
            return
        self.meet()  # from now on the lock is there
        folder = os.path.abspath(folder)
        holder = 'none in %s, which all must share' % folder
        with contextlib.suppress(OSError), open(os.path.join(folder, 'lock')) as lock:
            holder = lock.read()
        self.compare(dict(facts, **{'lock in MODEL_DIR': holder}))

    @contextlib.contextmanager
    def telling(self):
        """When this fails, the others are told why, and end, too."""
        try:
            yield
        except Fault as error:
            self._leave(end=self._ended(error))
            raise
        except (stop.Stopped, KeyboardInterrupt):
            self._leave(asked=True, done=True)
            raise
        except Exception:
            self._explain()
            raise

    @contextlib.contextmanager
    def watched(self):
        """The same for all that is to be done, after which this process may end; a second signal ends it at once."""
        if not self.several:
            yield
            return
        signals, written = socket.socketpair()
        for end in (signals, written):
            end.setblocking(False)
        before, self._signals = signal.set_wakeup_fd(written.fileno()), signals
        try:
            with self.telling():
                yield
            self._tell(done=True)
        finally:
            signal.set_wakeup_fd(before)
            written.close()

    @contextlib.contextmanager
    def step(self, minutes):
        """What all workers do together, so that one that stands still stops all: it may take so many minutes, or they end."""
        if not self.several:
            yield
            return
        self._last_turn = self._turns + 60 * minutes / _INTERVAL
        try:
            yield
        except Exception:
            self._explain()
            raise
        finally:
            self._last_turn = float('inf')

    def _explain(self):
        """An error that may come from another one's end, which ends this process meanwhile; else the others hear of it."""
        if not self._ending:
            time.sleep(2 * _INTERVAL)
            self._leave(end=self._ended('its own output says why'))

    def _ended(self, reason):
        return 'worker %d (%s) has ended: %s' % (self.index, self.addresses[self.index], reason)

    def _leave(self, **message):
        """The last that the others hear of this process; from now on their ends are no longer its own."""
        if not self._ending:
            self._ending = True
            self._tell(**message)

    def _take_all(self, listener, minutes):
        """The chief takes the connections of the others."""
        missing = dict.fromkeys(self.addresses[1:])
        for _ in _tries(missing, minutes):
            start = {}
            with contextlib.suppress(OSError):
                link = _Link(listener.accept()[0])
                start = link.read(2 ** 16)
            number, theirs = start.get('worker'), start.get('cluster')
            if not isinstance(number, int):
                continue  # somebody else
            if theirs != self.addresses:
                fault = Fault('TF_CONFIG: cluster.worker is %s for the chief, and %s for worker %s; all must have the same list'
                              % (*map(json.dumps, (self.addresses, theirs, number)),))
                link.tell(end=str(fault))
                raise fault
            if number in self._links:
                link.tell(end='TF_CONFIG: task.index=%d: another process is this worker already' % number)
                continue
            link.tell(taken=True)
            with contextlib.suppress(OSError):
                if link.read(2 ** 16):  # it is still there
                    del missing[self.addresses[number]]
                    self._listen_to(number, link)

    def _reach_chief(self, minutes):
        """Another worker connects to the chief."""
        silent = {self.addresses[0]: None}
        for address in _tries(silent, minutes):
            answer = {}
            with _noted(silent, address):
                link = _Link(socket.create_connection(_host_port(address), 5))
                link.tell(worker=self.index, cluster=self.addresses)
                answer = link.read(2 ** 16)
            if answer.get('taken'):
                link.tell(here=True)
                self._listen_to(0, link)
                del silent[address]
            if 'end' in answer:
                raise Fault(answer['end'])

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
                listener.settimeout(0.5)
                return listener
            except OSError as error:
                reason = error.strerror
        raise Fault('TF_CONFIG: this worker cannot take its address %s (%s)' % (self.addresses[self.index], reason))

    def _heard(self, number):
        """What a worker told, see `exchange`."""
        told = self._links[number].told.get()
        if told is None and stop.asked():
            raise stop.Stopped()
        if told is None:
            raise Fault(self._lost(number, _GONE))
        return told

    def _tell(self, **message):
        for link in list(self._links.values()):
            link.tell(**message)

    def _listen_to(self, number, link):
        link.connection.settimeout(None)
        self._links[number] = link
        threading.Thread(target=self._listen, args=(number, link), daemon=True).start()

    def _listen(self, number, link):
        with contextlib.suppress(OSError):
            for message in iter(link.read, {}):
                link.silent = 0
                if 'told' in message:
                    link.told.put(message['told'])
                if 'done' in message:
                    link.done = True
                    link.told.put(None)
                if 'asked' in message and not stop.asked():
                    stop.ask()
                    self._tell(asked=True)  # by the chief to the others
                if 'end' in message:
                    self._end(message['end'])
        if not link.done:
            self._end(self._lost(number, _GONE))
            link.done = True
            link.told.put(None)

    def _watch(self):
        """Counts its turns, not the clock's seconds: all workers may have been suspended together."""
        signals = 0
        while True:
            time.sleep(_INTERVAL)
            self._tell(here=True)
            for number, link in list(self._links.items()):
                link.silent += _INTERVAL
                if link.silent > _PATIENCE and not link.done:
                    self._end(self._lost(number, 'has been silent for %d seconds' % _PATIENCE))
            self._turns += 1
            if self._turns > self._last_turn:
                self._end('a step takes longer than WORKER_MINUTES: a worker stands still, perhaps for its disk or its GPU; mend '
                          'that, start all workers again, and they go on from the last checkpoint')
            with contextlib.suppress(OSError):  # no signal
                signals += bool(self._signals and self._signals.recv(64))  # several may come at once, of one cause
            if signals > 1:
                os._exit(stop.STATUS)  # the main thread does not hear the second one while it waits in TensorFlow

    def _end(self, reason):
        """Ends this process, whose main thread may wait in TensorFlow, where nothing reaches it."""
        if self._ending:
            return
        self._leave(end=reason)  # by the chief to those that have not heard it
        try:
            print(reason, file=sys.stderr, flush=True)
        finally:  # wherever that goes
            os._exit(1)

    def _lost(self, number, how):
        return ('worker %d (%s) %s; start all workers again, and they go on from the last checkpoint'
                % (number, self.addresses[number], how))


NONE = Workers()


class _Link:
    """A connection.

    Attributes: told, a queue of what was told, at last None; silent, seconds since something was heard; done, whether the other
    process has done its work, and may end.
    """

    def __init__(self, connection):
        self.connection, self._lines, self._lock = connection, connection.makefile('rb'), threading.Lock()
        self.told, self.silent, self.done = queue.Queue(), 0, False
        connection.settimeout(5)

    def read(self, limit=-1):
        """The next message, dict, of so many bytes at most; {} when it is closed, or another program is there. Raises OSError."""
        with contextlib.suppress(ValueError, RecursionError):
            message = json.loads(self._lines.readline(limit).decode())
            return message if isinstance(message, dict) else {}
        return {}

    def tell(self, **message):
        with self._lock, contextlib.suppress(OSError):  # of a process that is gone
            self.connection.sendall(json.dumps(message).encode() + b'\n')


def _tries(missing, minutes):
    """Yields addresses, again and again, as long as some are missing.

    Args:
        missing: dict from address to why it does not answer, or None. minutes: float, for so long.

    Raises:
        Fault: some are missing still. Stopped: as was asked.
    """
    order, began, said = list(missing), time.monotonic(), False
    while missing:
        if stop.asked():
            raise stop.Stopped()
        waited, which = time.monotonic() - began, ', '.join(
            '%s (%s)' % (address, missing[address]) if missing[address] else address for address in order if address in missing)
        if waited > 60 * minutes:
            raise Fault('TF_CONFIG: no answer within %s minutes (WORKER_MINUTES) from %s; start all workers, and see that their '
                        'addresses can be reached' % (minutes, which))
        if waited > _QUIET and not said:
            with contextlib.suppress(OSError):  # of a full disk
                print('waiting for %s' % which, file=sys.stderr, flush=True)
            said = True
        address = next(iter(missing))
        yield address
        if address in missing:
            missing[address] = missing.pop(address)  # behind the others
            time.sleep(0.5 / len(missing))


@contextlib.contextmanager
def _noted(missing, address):
    """Notes why it does not answer."""
    try:
        yield
    except (OSError, UnicodeError) as error:  # the latter of a name that cannot be one
        missing[address] = getattr(error, 'strerror', None) or str(error)


def _host_port(address):
    host, _, port = address.rpartition(':')
    return host.strip('[]'), int(port)  # the brackets of an IPv6 address
