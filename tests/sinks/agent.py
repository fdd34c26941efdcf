"""thyme-agent over a directory of logs, and what it counts."""

import datetime
import json
import signal

import process

DROPPED = "thyme_conservation_dropped_records"


def lines(count, size, age=datetime.timedelta(), first=0):
    """CRI lines with bodies of `size` bytes, each of them another."""
    begin = datetime.datetime.now(datetime.timezone.utc) - age
    for number in range(first, first + count):
        time = begin + datetime.timedelta(microseconds=number)
        body = f"line {number:08d} ".ljust(size, "abcdefghij klmnopqrst "[number % 22])
        yield f"{time:%Y-%m-%dT%H:%M:%S.%f}000Z stdout F {body}\n"


class Agent:
    """One node of logs; the agent on it may be ended and started with another exporter."""

    def __init__(self, binary, work, name):
        self.binary, self.name = binary, name
        self.work = work / name
        self.log = self.work / "pods" / f"load_{name}_00000000-0000" / "app" / "0.log"
        self.log.parent.mkdir(parents=True)
        self.running, self.lives = None, 0

    def write(self, text):
        with open(self.log, "a") as file:
            file.writelines(text)

    def start(self, kind, exporter):
        self.lives += 1
        self.port = process.free_port()
        config = {
            "receivers": {"filelog": {
                "include": [str(self.work / "pods" / "*" / "*" / "*.log")],
                "start_at": "beginning", "storage": "file_storage",
                "operators": [{"type": "container"}]}},
            "exporters": {kind: exporter},
            "extensions": {"file_storage": {
                "directory": str(self.work / "state"), "create_directory": True}},
            "service": {
                "extensions": ["file_storage"],
                "pipelines": {"logs": {"receivers": ["filelog"], "exporters": [kind]}},
                "telemetry": {"metrics": {"readers": [{"pull": {"exporter": {"prometheus": {
                    "host": "127.0.0.1", "port": self.port}}}}]}},
            },
        }
        path = self.work / f"agent-{self.lives}.yaml"
        # JSON is YAML.
        path.write_text(json.dumps(config, indent=1))
        self.running = process.Process(
            self.work, f"agent-{self.lives}", [self.binary, "--config", path])
        process.until("the agent is up", lambda: self.running.is_running() and self.books())

    def books(self):
        """Records by where they are."""
        samples = process.prometheus(f"http://127.0.0.1:{self.port}/metrics")
        one = lambda name: process.total(samples, f"thyme_conservation_{name}_records")
        books = {name: one(name) for name in ("read", "acknowledged", "queued", "dead_lettered")}
        reasons = {}
        for sample, value in samples.items():
            if sample.startswith(DROPPED + "{") and value:
                reasons[sample.split('reason="')[1].split('"')[0]] = round(value)
        return {**books, "dropped": reasons}

    def settle(self, records, within_seconds=90):
        """Waits until that many were read, and none is queued; returns the books all the same."""
        def is_settled():
            books = self.books()
            return books["read"] >= records and books["queued"] == 0
        try:
            process.until("all is settled", is_settled, within_seconds)
        except TimeoutError:
            pass
        return self.books()

    def hold(self, words, within_seconds=30):
        """Waits until the log has all of these words; returns the books."""
        found = lambda: all(word in self.running.log() for word in words)
        try:
            process.until(f"the log says {words}", found, within_seconds)
        except TimeoutError:
            pass
        return self.books()

    def end(self):
        return self.running.end()

    def kill(self):
        return self.running.end(signal.SIGKILL)
