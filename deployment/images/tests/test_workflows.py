"""The workflows of .github: what they give to actions exists, and nothing is published unchecked. Needs
actionlint in PATH and PyYAML.

actionlint has lists of popular actions' inputs, by major version, and looks none up for an action that is
pinned by its commit. So the workflows are shown to it once more with the major version that stands behind
each pin. What it does not know is in INPUTS.
"""

import collections
import pathlib
import re
import subprocess
import tempfile
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[3]
WORKFLOWS = ROOT / ".github" / "workflows"
PIN = re.compile(r"uses: ([\w.-]+/[\w./-]+)@([0-9a-f]{40}) # v(\d+)\.(\d+\.\d+)")

# Inputs that actionlint 1.7.12 does not know, as the action.yml in each repository had them in November 2026.
INPUTS = {
    ("actions/checkout", 7): {
        "repository", "ref", "token", "ssh-key", "ssh-known-hosts", "ssh-strict", "ssh-user", "persist-credentials",
        "path", "clean", "filter", "sparse-checkout", "sparse-checkout-cone-mode", "fetch-depth", "fetch-tags",
        "show-progress", "lfs", "submodules", "set-safe-directory", "github-server-url", "allow-unsafe-pr-checkout",
    },
    ("opentofu/setup-opentofu", 2): {
        "cli_config_credentials_hostname", "cli_config_credentials_token", "tofu_version", "tofu_version_file",
        "tofu_wrapper", "github_token",
    },
    ("hashicorp/setup-terraform", 4): {
        "cli_config_credentials_hostname", "cli_config_credentials_token", "terraform_version",
        "terraform_version_file", "terraform_wrapper",
    },
    ("sigstore/cosign-installer", 4): {"cosign-release", "install-dir", "use-sudo"},
}  # fmt: skip


def workflow(name):
    """A workflow; `on` is the key True for a YAML parser."""
    return yaml.safe_load((WORKFLOWS / name).read_text())


def actionlint(files):
    """What actionlint says of workflows in a repository of their own."""
    with tempfile.TemporaryDirectory() as directory:
        place = pathlib.Path(directory) / ".github" / "workflows"
        place.mkdir(parents=True)
        for name, text in files.items():
            (place / name).write_text(text)
        subprocess.run(["git", "init", "--quiet"], cwd=directory, check=True)
        done = subprocess.run(["actionlint", "-no-color", "-oneline", "-shellcheck=", "-pyflakes="], cwd=directory,
                              capture_output=True, text=True)
        return done.stdout + done.stderr


class Actions(unittest.TestCase):
    def setUp(self):
        self.texts = {path.name: path.read_text() for path in sorted(WORKFLOWS.glob("*.yml"))}
        self.pins = collections.defaultdict(set)
        for text in self.texts.values():
            for action, commit, major, rest in PIN.findall(text):
                self.pins[action].add((commit, int(major), rest))

    def known(self):
        """Actions and majors whose inputs actionlint knows: it complains of one that nobody has."""
        wanted = sorted((action, major) for action, pins in self.pins.items() for _, major, _ in pins)
        steps = "".join(f"      - uses: {action}@v{major}\n        with: {{no-such-input: 1}}\n" for action, major in wanted)
        said = actionlint({"probe.yml": f"on: push\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n{steps}"})
        complained = set(re.findall(r'input "no-such-input" is not defined in action "([^"@]+)@v(\d+)"', said))
        return {(action, int(major)) for action, major in complained}

    def test_one_commit_for_each_action(self):
        """Scenario: an action is moved to another version in one workflow only.
        Guarantees: each has one commit and one version everywhere."""
        self.assertGreater(len(self.pins), 8)
        for action, pins in self.pins.items():
            self.assertEqual(len(pins), 1, f"{action}: {pins}")

    def test_inputs_exist(self):
        """Scenario: a new major version of an action has dropped an input, or a name is misspelt.
        Guarantees: each input is one of that major version; each action's inputs are known."""
        by_major = {name: PIN.sub(r"uses: \1@v\3", text) for name, text in self.texts.items()}
        self.assertEqual(actionlint(by_major), "")
        known = self.known()
        self.assertGreater(len(known), 5, "actionlint knows popular actions")
        for action, pins in self.pins.items():
            major = next(iter(pins))[1]
            if (action, major) not in known:
                self.assertIn((action, major), INPUTS, "write down the inputs of this major version")
        for name in self.texts:
            for job in workflow(name)["jobs"].values():
                for step in job.get("steps", []):
                    action = step.get("uses", "").partition("@")[0]
                    if action in self.pins and (action, (major := next(iter(self.pins[action]))[1])) in INPUTS:
                        self.assertLessEqual(set(step.get("with", {})), INPUTS[action, major], f"{name}: {action}")

    def test_a_wrong_input_is_found(self):
        """Scenario: an input that upload-artifact does not have.
        Guarantees: the check above would say so."""
        text = self.texts["nightly.yml"].replace("if-no-files-found:", "if-no-file-found:")
        said = actionlint({"nightly.yml": PIN.sub(r"uses: \1@v\3", text)})
        self.assertIn("if-no-file-found", said)


class Publishing(unittest.TestCase):
    def test_nothing_is_published_that_has_not_passed(self):
        """Scenario: a push whose tests fail.
        Guarantees: every job that may write waits for the checks, by others or itself; the checks are CI's, and
        no job of them is left out after a push but the one that builds what is then built."""
        self.assertIn("workflow_call", workflow("ci.yml")[True])

        def before(jobs, job):
            needs = jobs[job].get("needs", [])
            needs = [needs] if isinstance(needs, str) else needs
            return set(needs).union(*(before(jobs, one) for one in needs))

        images, release = (workflow(name) for name in ("images.yml", "release.yml"))
        self.assertIn("workflow_call", images[True])
        self.assertNotIn("tags", images[True]["push"], "a tag is release.yml's")
        for jobs, first, expected in ((images["jobs"], "ci", {"build", "publish"}), (release["jobs"], "images", {"release"})):
            self.assertEqual(jobs[first]["uses"], f"./.github/workflows/{first}.yml")
            writing = {job for job, content in jobs.items() if "write" in content["permissions"].values()} - {first}
            self.assertEqual(writing, expected)
            for job in writing:
                self.assertIn(first, before(jobs, job))
        conditional = {name for name, job in workflow("ci.yml")["jobs"].items() if "if" in job}
        self.assertEqual(conditional, {"images"})

    def tags(self, ref_type, ref_name, version=None):
        """What the step that joins the images would tag them as; with another version than Cargo.toml's, if given."""
        steps = workflow("images.yml")["jobs"]["publish"]["steps"]
        script = next(step["run"] for step in steps if step.get("id") == "join")
        stand_ins = """
            docker() { [ "$3" = create ] || { echo sha256:0; return; }; shift 3; printf '%s ' "$@" >&3; }
            cat() { echo sha256:1; }
        """
        script = script.replace("$(deployment/images/images tag)", "abc")
        if version:
            script, count = re.subn(r"version=\$\(sed .*\)", f"version={version}", script)
            self.assertEqual(count, 1)
        with tempfile.TemporaryDirectory() as directory:
            said = pathlib.Path(directory) / "said"
            environment = {"PATH": "/usr/bin:/bin", "OWNER": "OllyGarden", "IMAGE": "log-generator", "REF_TYPE": ref_type,
                           "REF_NAME": ref_name, "DIGESTS": "d", "GITHUB_OUTPUT": f"{directory}/o",
                           "GITHUB_STEP_SUMMARY": f"{directory}/s"}
            done = subprocess.run(["bash", "-e", "-c", f"exec 3>{said}\n{stand_ins}\n{script}"], cwd=ROOT,
                                  env=environment, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            words = said.read_text().split()
        repository = "ghcr.io/ollygarden/thyme/log-generator"
        self.assertEqual(words[-2:], [f"{repository}@sha256:1"] * 2)
        return {word.removeprefix(f"{repository}:") for word in words[:-2] if word != "--tag"}

    def test_latest_is_the_last_release(self):
        """Scenario: a push to main; a release; a run by hand on a branch.
        Guarantees: main moves `main`, a release its versions and `latest`, a branch nothing but its commit's. What is
        released to be tried moves nothing but its own version."""
        version = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
        self.assertEqual(self.tags("branch", "main"), {"abc", "main"})
        self.assertEqual(self.tags("tag", f"v{version}"), {"abc", version, version.rpartition(".")[0], "latest"})
        self.assertEqual(self.tags("branch", "other"), {"abc"})
        self.assertEqual(self.tags("tag", "v1.2.3-rc.1", "1.2.3-rc.1"), {"abc", "1.2.3-rc.1"})

    def test_each_image_says_what_it_is_made_of(self):
        """Scenario: each of the three images.
        Guarantees: its own program's list of crates is attested for the digest that was signed."""
        steps = workflow("images.yml")["jobs"]["publish"]["steps"]
        script = next(step["run"] for step in steps if step.get("name") == "Attest what it is made of")
        for image, program in (("thyme", "thyme-agent"), ("log-generator",) * 2, ("nop-collector",) * 2):
            done = subprocess.run(["bash", "-e", "-c", f'cosign() {{ echo "$@"; }}\n{script}'], capture_output=True,
                                  text=True, env={"IMAGE": image, "SBOM": "s", "REFERENCE": "r@sha256:1"}, check=True)
            self.assertEqual(done.stdout, f"attest --yes --type cyclonedx --predicate s/{program}.cdx.json r@sha256:1\n")


class Releasing(unittest.TestCase):
    """The steps of release.yml that publish, with stand-ins of what reaches the network."""

    def step(self, job, name, stand_ins, **environment):
        """Runs a step in a directory that has scripts/release and dist; what it asked for, and how it ended."""
        steps = workflow("release.yml")["jobs"][job]["steps"]
        script = next(step["run"] for step in steps if step.get("name") == name)
        with tempfile.TemporaryDirectory() as directory:
            place = pathlib.Path(directory)
            (place / "scripts").mkdir()
            (place / "dist").mkdir()
            release = place / "scripts/release"
            release.write_text('#!/bin/sh\ncase "$1" in version) echo 1.2.3;; notes) echo "- This.";; esac\n')
            release.chmod(0o755)
            for file in ("a.tar.gz", "SHA256SUMS"):
                (place / "dist" / file).touch()
            called = place / "called"
            called.touch()
            environment = {"PATH": "/usr/bin:/bin", "CALLED": str(called)} | environment
            done = subprocess.run(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", f"{stand_ins}\n{script}"],
                                  cwd=place, env=environment, capture_output=True, text=True)
            return called.read_text().splitlines(), done.returncode, done.stdout + done.stderr

    def test_a_tag_that_is_no_version_makes_nothing(self):
        """Scenario: the tag of the version that is written down, and another one.
        Guarantees: the second ends the run, and says both."""
        self.assertEqual(self.step("version", "The tag is the version", "", REF_NAME="v1.2.3")[1], 0)
        _, status, said = self.step("version", "The tag is the version", "", REF_NAME="v1.2.4")
        self.assertEqual(status, 1)
        self.assertIn("the tag is v1.2.4, and Cargo.toml says 1.2.3", said)

    def test_the_chart_is_signed_by_its_digest(self):
        """Scenario: the registry takes the chart; it fails; it says no digest.
        Guarantees: what was pushed is signed, by digest and in lower case; otherwise nothing is, and the step fails."""
        helm = """
            cosign() { echo "cosign $*" >>"$CALLED"; }
            helm() { echo "helm $*" >>"$CALLED"; [ "$1" != push ] || push; }
        """
        digest = "sha256:" + "0" * 64
        names = {"OWNER": "OllyGarden", "ACTOR": "me", "TOKEN": "secret"}

        def pushed(push):
            return self.step("release", "Push the chart, and sign it", helm + f"push() {{ {push}; }}", **names)

        called, status, said = pushed(f'echo "Digest: {digest}"')
        self.assertEqual(status, 0, said)
        self.assertIn("helm push dist/thyme-1.2.3.tgz oci://ghcr.io/ollygarden/charts", called)
        self.assertEqual(called[-1], f"cosign sign --yes ghcr.io/ollygarden/charts/thyme@{digest}")
        self.assertNotIn("secret", "".join(called))
        for push in ("return 1", "echo Pushed"):
            called, status, _ = pushed(push)
            self.assertEqual((status, [one for one in called if "cosign sign " in one]), (1, []), push)

    def test_a_release_has_all_files_and_its_notes(self):
        """Scenario: a version, and one that is not for everybody.
        Guarantees: all that was made is given to it, and the second is marked."""
        gh = 'gh() { echo "gh $*" >>"$CALLED"; cat notes.md >>"$CALLED"; }'
        called, status, said = self.step("release", "Make the release", gh, REF_NAME="v1.2.3")
        self.assertEqual(status, 0, said)
        asked = "gh release create v1.2.3 --verify-tag --title thyme 1.2.3 --notes-file notes.md dist/SHA256SUMS dist/a.tar.gz"
        self.assertEqual(called, [asked, "- This."])
        called, _, _ = self.step("release", "Make the release", gh, REF_NAME="v1.2.3-rc.1")
        self.assertIn(" --prerelease ", called[0])


class Nightly(unittest.TestCase):
    def test_what_runs_each_night(self):
        """Scenario: what no push waits for.
        Guarantees: a workflow runs each by schedule, by the target that a developer has."""
        run = set()
        for path in WORKFLOWS.glob("*.yml"):
            content = workflow(path.name)
            if "schedule" in content[True]:
                run |= {step["run"] for job in content["jobs"].values() for step in job["steps"] if "run" in step}
        for target in ("test-kind", "test-kubernetes", "test-sinks", "simulate", "fuzz", "advisories", "links"):
            self.assertTrue(any(re.search(rf"\bmake {target}\b", line) for line in run), target)
            self.assertRegex((ROOT / "Makefile").read_text(), rf"(?m)^{target}:")


if __name__ == "__main__":
    unittest.main()
