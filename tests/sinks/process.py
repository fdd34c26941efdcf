"""Processes of the test, their ports and their logs."""

import contextlib
import pathlib
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetch(url, data=None):
    with urllib.request.urlopen(url, data=data, timeout=30) as answer:
        return answer.read().decode()


def until(what, condition, within_seconds=60):
    """Polls; the errors of a service that is not up yet count as no."""
    deadline = time.monotonic() + within_seconds
    last = None
    while time.monotonic() < deadline:
        try:
            last = condition()
            if last:
                return last
        except (OSError, urllib.error.URLError, ValueError) as error:
            last = error
        time.sleep(0.1)
    raise TimeoutError(f"{what}: not within {within_seconds} s; last: {last}")


def prometheus(url):
    """Samples by name with labels."""
    samples = {}
    for line in fetch(url).splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            samples[name] = float(value)
    return samples


def total(samples, name, *labels):
    """The sum over all samples of a name that have these labels."""
    found = [value for key, value in samples.items()
             if key.split("{")[0] == name and all(label in key for label in labels)]
    return round(sum(found))


STARTED = []


def end_all():
    """What a scenario that failed has left."""
    for one in STARTED:
        one.end(signal.SIGKILL)


class Process:
    """A program of the test; its output goes to `work/NAME.log`."""

    def __init__(self, work, name, command):
        work.mkdir(parents=True, exist_ok=True)
        self.log_path = pathlib.Path(work) / f"{name}.log"
        self.output = open(self.log_path, "ab")
        self.process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL,
            stdout=self.output, stderr=subprocess.STDOUT)
        self.name = name
        STARTED.append(self)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def is_running(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended with {self.process.returncode}: {self.log()[-800:]}")
        return True

    def end(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        self.output.close()
        return self.process.returncode
