"""What an image must be, whoever runs it: read from its configuration and its files."""

import json
import os
import subprocess

PROGRAMS = {"thyme": "thyme-agent", "log-generator": "log-generator", "nop-collector": "nop-collector"}
LABELS = ("title", "description", "licenses", "source", "version", "revision", "created")
SHELLS = ("bin/sh", "bin/bash", "usr/bin/sh", "usr/bin/bash", "usr/bin/apt-get")


def reference(name):
    return "ghcr.io/ollygarden/thyme" + ("" if name == "thyme" else f"/{name}") + ":latest"


def output(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def examine(check):
    revision = output("git", "rev-parse", "HEAD").strip()
    for name, program in PROGRAMS.items():
        config = json.loads(output("buildah", "inspect", "--type", "image", reference(name)))["OCIv1"]["config"]
        check(f"{name}: user 65534:65534, entry point {program}, no arguments",
              config.get("User") == "65534:65534" and not config.get("Cmd")
              and config.get("Entrypoint") == [f"/usr/local/bin/{program}"], json.dumps(config))
        labels = {label: config.get("Labels", {}).get(f"org.opencontainers.image.{label}") for label in LABELS}
        check(f"{name}: labels say what it is and which commit", all(labels.values())
              and labels["revision"] == revision and labels["title"] == name, json.dumps(labels))
        container = output("buildah", "from", "--pull-never", reference(name)).strip()
        try:
            root = output("buildah", "mount", container).strip()
            # The other programs are in the other images, and a shell in none.
            found = output("find", f"{root}/usr/local/bin", "-type", "f", "-printf", "%f %m %U\n").split("\n")[:-1]
            shells = [path for path in SHELLS if os.path.lexists(f"{root}/{path}")]
        finally:
            output("buildah", "rm", container)
        check(f"{name}: one program, root's, and no shell", found == [f"{program} 555 0"] and not shells,
              f"{found} {shells}")
