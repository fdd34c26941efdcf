"""The script `images` against stand-ins of docker, podman, k3d and kind on PATH, which record how they are
called. Run by `check`; needs git and nothing else."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
DIGEST = "sha256:" + "0123456789abcdef" * 4
TARGETS = ["thyme", "log-generator", "nop-collector"]
REPOSITORIES = ["thyme", "thyme/log-generator", "thyme/nop-collector"]

# Appends its name and arguments as JSON; fails where FAIL is among them; says what docker says of a push.
STAND_IN = """#!/usr/bin/env python3
import json, os, sys
words = sys.argv[1:]
with open(os.environ["RECORD"], "a") as record:
    record.write(json.dumps([os.path.basename(sys.argv[0]), *words]) + "\\n")
if os.environ.get("FAIL") and any(os.environ["FAIL"] in word for word in words):
    sys.exit("stand-in: refused")
if words[0] == "push":
    if "--digestfile" in words:
        open(words[words.index("--digestfile") + 1], "w").write(os.environ["DIGEST"])
    elif os.environ["DIGEST"]:
        print("latest: digest: %s size: 1234" % os.environ["DIGEST"])
"""


class Images(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.tree = self.directory / "tree"
        (self.tree / "deployment" / "images").mkdir(parents=True)
        shutil.copy(ROOT / "deployment" / "images" / "images", self.tree / "deployment" / "images")
        shutil.copy(ROOT / "Cargo.toml", self.tree)
        (self.tree / ".gitignore").write_text("/local\n")
        self.bin = self.directory / "bin"
        self.bin.mkdir()
        for tool in ("docker", "podman", "buildah", "k3d", "kind"):
            (self.bin / tool).write_text(STAND_IN)
            (self.bin / tool).chmod(0o755)
        self.record = self.directory / "record"
        self.git("init", "--quiet")
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "one")
        self.commit = self.git("rev-parse", "HEAD").strip()
        self.tag = self.commit[:12]

    def git(self, *words):
        who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        return subprocess.run(["git", *who, *words], cwd=self.tree, check=True, capture_output=True, text=True).stdout

    def images(self, *words, **variables):
        """Runs the script; returns its exit code, what it said, and the calls that it made."""
        self.record.write_text("")
        environment = {"PATH": f"{self.bin}:{os.environ['PATH']}", "HOME": str(self.directory),
                       "RECORD": str(self.record), "DIGEST": DIGEST, **variables}
        done = subprocess.run([self.tree / "deployment" / "images" / "images", *words], env=environment,
                              capture_output=True, text=True)
        calls = [json.loads(line) for line in self.record.read_text().splitlines()]
        return done.returncode, done.stdout + done.stderr, calls

    def records(self):
        found = sorted((self.tree / "local" / "images").glob("*"))
        return {path.name: json.loads(path.read_text()) for path in found}

    def test_build_makes_three_targets_with_both_tags(self):
        """Scenario: a clean tree, no variables.
        Guarantees: each target under the commit's tag and latest, labelled with the commit and its time."""
        code, said, calls = self.images("build")
        self.assertEqual(code, 0, said)
        self.assertEqual(len(calls), 3)
        time = self.git("log", "-1", "--format=%cd", "--date=format-local:%Y-%m-%dT%H:%M:%SZ")
        for call, target, repository in zip(calls, TARGETS, REPOSITORIES):
            text = " ".join(call)
            self.assertTrue(text.startswith("docker build --file Dockerfile"), text)
            self.assertIn(f"--target {target} ", text)
            self.assertIn(f"--tag ghcr.io/ollygarden/{repository}:{self.tag} ", text)
            self.assertIn(f"--tag ghcr.io/ollygarden/{repository}:latest .", text)
            self.assertIn(f"REVISION={self.commit} ", text)
            self.assertRegex(text, r"VERSION=\d+\.\d+\.\d+ ")
            self.assertRegex(text, r"CREATED=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ")
            self.assertIn("SOURCE_DATE_EPOCH=", text)
        self.assertTrue(time)

    def test_variables_reach_the_tool(self):
        """Scenario: another registry, tag, tool, platform, options of several words.
        Guarantees: all of them are on the command line, and podman keeps no layer that has old labels."""
        code, said, calls = self.images("build", REGISTRY="1.dkr.ecr.example.com/", TAG="v1", CONTAINER_TOOL="podman",
                                        PLATFORM="linux/arm64", BUILD_OPTIONS="--pull-never --build-arg A=b")
        self.assertEqual(code, 0, said)
        text = " ".join(calls[2])
        self.assertTrue(text.startswith("podman build "), text)
        for part in ("--platform linux/arm64", "--pull-never --build-arg A=b", "--layers=false",
                     "--tag 1.dkr.ecr.example.com/thyme/nop-collector:v1 "):
            self.assertIn(part, text)

    def test_a_failed_build_stops(self):
        """Scenario: the second target does not build.
        Guarantees: a failure, and the third is not tried."""
        code, _, calls = self.images("build", FAIL="thyme/log-generator")
        self.assertNotEqual(code, 0)
        self.assertEqual(len(calls), 2)

    def test_the_tag_tells_of_changes(self):
        """Scenario: a changed file; a file that git does not know, in and outside what the image is made of.
        Guarantees: -dirty for what may be in the image."""
        self.assertEqual(self.images("tag")[1].strip(), self.tag)
        (self.tree / "note").write_text("")
        self.assertEqual(self.images("tag")[1].strip(), self.tag)
        (self.tree / "crates").mkdir()
        (self.tree / "crates" / "new.rs").write_text("")
        self.assertEqual(self.images("tag")[1].strip(), f"{self.tag}-dirty")
        shutil.rmtree(self.tree / "crates")
        (self.tree / "Cargo.toml").write_text("changed")
        self.assertEqual(self.images("tag")[1].strip(), f"{self.tag}-dirty")

    def test_push_sends_both_tags_and_keeps_the_digests(self):
        """Scenario: a push by docker, which says the digest, and by podman, which writes it.
        Guarantees: TAG, then latest, of each image; a record with image, tag, digest and commit."""
        for tool in ("docker", "podman", "buildah"):
            code, said, calls = self.images("push", CONTAINER_TOOL=tool)
            self.assertEqual(code, 0, said)
            self.assertEqual([(call[0], call[1], call[-1]) for call in calls],
                             [(tool, "push", f"ghcr.io/ollygarden/{repository}:{tag}")
                              for repository in REPOSITORIES for tag in (self.tag, "latest")])
            self.assertEqual(self.records(), {
                f"{target}.digest": {"image": f"ghcr.io/ollygarden/{repository}", "tag": self.tag, "digest": DIGEST,
                                     "revision": self.commit}
                for target, repository in zip(TARGETS, REPOSITORIES)})

    def test_push_refuses_a_tree_with_changes(self):
        """Scenario: a changed tree; then ALLOW_DIRTY=true.
        Guarantees: nothing is pushed; then everything."""
        (self.tree / "Cargo.toml").write_text("changed")
        code, said, calls = self.images("push")
        self.assertNotEqual(code, 0)
        self.assertEqual(calls, [])
        self.assertIn("ALLOW_DIRTY=true", said)
        code, said, calls = self.images("push", ALLOW_DIRTY="true")
        self.assertEqual((code, len(calls)), (0, 6), said)

    def test_no_record_outlives_a_failed_push(self):
        """Scenario: records of an earlier push; now the second image, or its latest, is refused.
        Guarantees: a failure that names the image, and no record but of what was pushed whole."""
        for refused in ("log-generator:" + self.tag, "log-generator:latest"):
            self.images("push")
            code, said, _ = self.images("push", FAIL=refused)
            self.assertNotEqual(code, 0)
            self.assertIn(refused, said)
            self.assertEqual(list(self.records()), ["thyme.digest"])

    def test_a_push_without_digest_fails(self):
        """Scenario: the tool succeeds and says no digest, or something else.
        Guarantees: a failure, no record."""
        for digest in ("", "sha256:123", "latest"):
            for tool in ("docker", "podman"):
                code, said, _ = self.images("push", DIGEST=digest, CONTAINER_TOOL=tool)
                self.assertNotEqual(code, 0, f"{tool} {digest}")
                self.assertIn("no digest", said)
                self.assertEqual(self.records(), {})

    def test_images_are_loaded_into_a_local_cluster(self):
        """Scenario: k3d and kind, with the cluster's usual name and another.
        Guarantees: the three images by the tag that the overlay uses."""
        latest = [f"ghcr.io/ollygarden/{repository}:latest" for repository in REPOSITORIES]
        code, said, calls = self.images("k3d-load")
        self.assertEqual((code, calls), (0, [["k3d", "image", "import", "--cluster", "thyme", *latest]]), said)
        code, said, calls = self.images("kind-load", KIND_CLUSTER="other")
        self.assertEqual((code, calls), (0, [["kind", "load", "docker-image", "--name", "other", *latest]]), said)

    def test_missing_tools_and_bad_words_are_named(self):
        """Scenario: a tool that is none of the three; one that is not installed; a bad tag; no command.
        Guarantees: a failure that says which, before anything is called."""
        for variables, words in (({"CONTAINER_TOOL": "nerdctl"}, "nerdctl"), ({"TAG": "a b"}, "a b")):
            code, said, calls = self.images("build", **variables)
            self.assertNotEqual(code, 0)
            self.assertEqual(calls, [])
            self.assertIn(words, said)
        (self.bin / "k3d").unlink()
        code, said, _ = self.images("k3d-load", PATH=f"{self.bin}:/usr/bin:/bin")
        self.assertNotEqual(code, 0)
        self.assertIn("k3d is missing", said)
        code, said, _ = self.images()
        self.assertEqual(code, 2)
        self.assertIn("usage", said)


class Dockerfile(unittest.TestCase):
    def test_it_compiles_with_the_toolchain_of_the_workspace(self):
        """Scenario: the version in rust-toolchain.toml changes.
        Guarantees: this fails until the Dockerfile's base image has it too, and both bases are of one
        Debian, by literal names: Dependabot reads no others."""
        toolchain = (ROOT / "rust-toolchain.toml").read_text()
        version = toolchain.split('channel = "')[1].split('"')[0]
        dockerfile = (ROOT / "Dockerfile").read_text()
        self.assertIn(f"\nFROM docker.io/library/rust:{version}-trixie AS builder\n", dockerfile)
        self.assertIn("\nFROM gcr.io/distroless/cc-debian13:nonroot AS runtime\n", dockerfile)
        self.assertNotRegex(dockerfile, r"\nFROM \$")

    def test_documents_build_for_the_nodes_platform(self):
        """Scenario: the documents about AWS are followed on a Mac, which builds for arm64.
        Guarantees: each build in them names the platform of the nodes."""
        for document in ("deployment/aws/README.md", "infrastructure/aws/README.md"):
            builds = [line for line in (ROOT / document).read_text().splitlines()
                      if line.strip().startswith("make docker-build")]
            self.assertTrue(builds)
            for line in builds:
                self.assertIn("PLATFORM=linux/amd64", line, document)

    def test_every_member_of_the_workspace_is_in_the_context(self):
        """Scenario: a new member of the workspace.
        Guarantees: .dockerignore lets it in; cargo would refuse to build without it."""
        members = (ROOT / "Cargo.toml").read_text().split("members = [")[1].split("]")[0]
        allowed = (ROOT / ".dockerignore").read_text().splitlines()
        for member in members.replace('"', "").split(","):
            self.assertIn("!" + member.strip().split("/")[0], allowed)


if __name__ == "__main__":
    unittest.main()
