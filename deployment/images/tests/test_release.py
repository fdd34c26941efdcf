"""scripts/release in a repository of its own, with a stand-in of cargo that links nothing. Needs git, objcopy, tar."""

import gzip
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import tarfile
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
PROGRAMS = ["thyme-agent", "log-generator", "nop-collector", "rig"]
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]

# Each program is a real one, so that objcopy has something to do.
CARGO = """#!/bin/sh
echo "$@" "commit=$THYME_COMMIT day=$THYME_BUILD_DATE" >>"$CALLS"
case "$1" in
build) mkdir -p target/release && for one in thyme-agent log-generator nop-collector rig; do cp "$PROGRAM" target/release/$one; done ;;
run) for last; do :; done; for one in thyme-agent log-generator nop-collector rig; do echo "{}" >"$last/$one.cdx.json"; done ;;
esac
"""

CHANGELOG = """# Changelog

## Unreleased

- Not yet.

## 1.2.3 - 2026-11-30

### Fixed

- This.

## 1.2.2 - 2026-10-01

- That.
"""


class Release(unittest.TestCase):
    def setUp(self):
        directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.root = directory / "repository"
        (self.root / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts/release", self.root / "scripts/release")
        for name in ("LICENSE", "README.md"):
            (self.root / name).write_text(name)
        self.write("Cargo.toml", '[workspace]\n[workspace.package]\nversion = "1.2.3"\n[profile.release]\nversion = "9"\n')
        self.write("charts/thyme/Chart.yaml", 'name: thyme\nversion: 1.2.3\nappVersion: "1.2.3"\n')
        self.write("CHANGELOG.md", CHANGELOG)
        self.write(".gitignore", "/target\n/dist*\n")
        tools = directory / "tools"
        tools.mkdir()
        (tools / "cargo").write_text(CARGO)
        (tools / "cargo").chmod(0o755)
        self.calls = directory / "calls"
        person = {f"GIT_{who}_{what}": "a@b.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        days = {f"GIT_{who}_DATE": "2026-11-29T12:00:00Z" for who in ("AUTHOR", "COMMITTER")}
        self.environment = os.environ | person | days | {
            "PATH": f"{tools}:{os.environ['PATH']}", "CALLS": str(self.calls), "PROGRAM": shutil.which("true"),
            "CARGO_TARGET_DIR": "target", "GIT_CONFIG_GLOBAL": "/dev/null",
        }  # fmt: skip
        for command in (["init", "--quiet"], ["add", "-A"], ["commit", "--quiet", "-m", "one"]):
            subprocess.run(["git", *command], cwd=self.root, env=self.environment, check=True)

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def release(self, *arguments):
        return subprocess.run(["scripts/release", *arguments], cwd=self.root, env=self.environment, capture_output=True,
                              text=True)

    def done(self, *arguments):
        done = self.release(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_versions_must_agree(self):
        """Scenario: one version everywhere, then another one in the chart, none in the changelog, one without a date.
        Guarantees: the version, then an error that says where it is not."""
        self.assertEqual(self.done("version"), "1.2.3\n")
        self.write("charts/thyme/Chart.yaml", "version: 1.2.2\n")
        self.assertIn("Chart.yaml has version 1.2.2, Cargo.toml 1.2.3", self.release("version").stderr)
        self.write("charts/thyme/Chart.yaml", 'version: 1.2.3\nappVersion: "1.2.2"\n')
        self.assertIn("Chart.yaml has another appVersion than 1.2.3", self.release("version").stderr)
        self.write("charts/thyme/Chart.yaml", 'version: 1.2.3\nappVersion: "1.2.3"\n')
        for text in (CHANGELOG.replace("1.2.3", "1.2.4"), CHANGELOG.replace(" - 2026-11-30", "")):
            self.write("CHANGELOG.md", text)
            done = self.release("version")
            self.assertEqual(done.returncode, 1)
            self.assertIn("CHANGELOG.md has no part '## 1.2.3 - DATE'", done.stderr)

    def test_notes_are_the_versions_own(self):
        """Scenario: a changelog with an unreleased part, this version's and the one before.
        Guarantees: this version's alone, without its heading."""
        self.assertEqual(self.done("notes").strip(), "### Fixed\n\n- This.")

    def test_archives(self):
        """Scenario: the programs are built and packed twice.
        Guarantees: the same bytes both times, of the commit's day; programs that run, are linked to their debug files, and
        were told commit and day; the list has the checksums of all of it, and not of itself."""
        name = f"thyme-1.2.3-linux-{ARCH}"
        first, second = self.root / "dist", self.root / "dist2"
        for place in (first, second):
            self.done("binaries", place.name)
        for archive in (f"{name}.tar.gz", f"{name}-debug.tar.gz"):
            self.assertEqual((first / archive).read_bytes(), (second / archive).read_bytes())
        with tarfile.open(first / f"{name}.tar.gz") as archive:
            members = {member.name: member for member in archive}
            wanted = [name, *(f"{name}/{one}" for one in [*PROGRAMS, "LICENSE", "README.md", "CHANGELOG.md"])]
            self.assertEqual(sorted(members), sorted(wanted))
            self.assertEqual({member.mtime for member in members.values()}, {1795953600})
            self.assertEqual({(member.uid, member.gid) for member in members.values()}, {(0, 0)})
            archive.extractall(self.root / "dist-unpacked", filter="data")
        program = self.root / "dist-unpacked" / name / "thyme-agent"
        self.assertEqual(subprocess.run([program]).returncode, 0)
        sections = subprocess.run(["objdump", "--section-headers", program], capture_output=True, text=True).stdout
        self.assertIn(".gnu_debuglink", sections)
        with tarfile.open(first / f"{name}-debug.tar.gz") as archive:
            self.assertEqual(sorted(archive.getnames())[1:], sorted(f"{name}-debug/{one}.debug" for one in PROGRAMS))
        call = self.calls.read_text().splitlines()[0]
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=self.root, capture_output=True, text=True)
        self.assertIn(f"commit={commit.stdout.strip()} day=2026-11-29", call)
        self.assertIn("build --release --locked --bin=thyme-agent --bin=log-generator --bin=nop-collector --bin=rig", call)
        self.done("boms", "dist")
        for _ in range(2):
            self.done("checksums", "dist")
        listed = dict(line.split("  ")[::-1] for line in (first / "SHA256SUMS").read_text().splitlines())
        self.assertEqual(len(listed), 6)
        for file, checksum in listed.items():
            self.assertEqual(hashlib.sha256((first / file).read_bytes()).hexdigest(), checksum)
        # No name and no time in the compressed file's own header.
        self.assertEqual((first / f"{name}.tar.gz").read_bytes()[3:8], b"\0" * 5)
        self.assertTrue(gzip.decompress((first / f"{name}.tar.gz").read_bytes()))

    def test_it_says_how_it_is_called(self):
        """Scenario: no command, an unknown one, one without its directory, one with too much, --help.
        Guarantees: 2 and the usage, and 0 for the last."""
        for arguments in ([], ["nope"], ["binaries"], ["version", "x"], ["checksums", ""]):
            done = self.release(*arguments)
            self.assertEqual((done.returncode, done.stderr[:6]), (2, "usage:"), arguments)
        self.assertIn("checksums DIRECTORY", self.done("--help"))


if __name__ == "__main__":
    unittest.main(verbosity=1)
