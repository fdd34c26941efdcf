"""Counts checks and prints their lines."""


class Checks:
    def __init__(self):
        self.passes, self.failures = 0, 0

    def __call__(self, what, holds, detail=""):
        if holds:
            self.passes += 1
            print(f"PASS {what}", flush=True)
        else:
            self.failed(what, detail)
        return bool(holds)

    def failed(self, what, detail=""):
        self.failures += 1
        print(f"FAIL {what}{': ' if detail else ''}{detail}", flush=True)

    def close(self):
        """The closing line; returns the exit code."""
        print(f"{self.passes} passed, {self.failures} failed", flush=True)
        return 1 if self.failures or not self.passes else 0
