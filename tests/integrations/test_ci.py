# SPDX-License-Identifier: Apache-2.0
"""The GitHub Action and the GitLab template: their very shell, as each CI runs it.

Against a real server and a real repository, without a terminal, with the variables that
a runner sets, and an issuer of identity tokens on loopback.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fakes.issuer import SUBJECT, Issuer, Key
from fakes.serving import FeedProcess
from fakes.trees import make_tree

ROOT = Path(__file__).resolve().parents[2]
ACTION = yaml.safe_load((ROOT / "integrations/github/action.yml").read_text())
TEMPLATE = yaml.safe_load(
    (ROOT / "integrations/gitlab/updaterd.gitlab-ci.yml").read_text()
)[".updaterd-push"]
HOSTILE = "$(touch evil)`touch evil`'\"; touch evil #"


@pytest.fixture(scope="module")
def key():
    return Key("ec")


@pytest.fixture(scope="module")
def issuer(key):
    with Issuer(key) as issuer:
        yield issuer


@pytest.fixture(scope="module")
def feed(issuer, tmp_path_factory):
    with FeedProcess(tmp_path_factory.mktemp("feed") / "state") as feed:
        rule = f"issuer={issuer.url},subject={SUBJECT},audience=https://feed"
        updaterd("token", "create", "--state", feed.state, "--scope",
                 "publish:acme/stable", "--oidc", rule)  # fmt: skip
        yield feed


def updaterd(*words):
    command = [sys.executable, "-m", "updaterd", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def job(tmp_path):
    """A checkout with a workspace, and the environment of a runner's shell."""
    updaterd("release", "init", tmp_path / "ops", "--profile", "demo",
             "--product", "acme", "--channel", "stable")  # fmt: skip
    make_tree(tmp_path / "build", {"bin/app": "echo 1\n"})
    (tmp_path / "temp").mkdir()
    return tmp_path


def environment(folder, **more):
    binaries = Path(sys.executable).parent
    return {
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder / "temp"),
        "CI": "true",
        "LANG": "C.UTF-8",
        **more,
    }


def run(shell, script, folder, env):
    """Run a script as a runner does: from a file, with nobody at a terminal."""
    path = folder / "temp" / "script.sh"
    path.write_text(script)
    return subprocess.run(
        [*shell, str(path)],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,  # no controlling terminal either
        timeout=120,
    )


def github(folder, more, **inputs):
    """Run the action's steps; return the last one's end and what it put out."""
    values = {
        name: inputs.get(name, about.get("default"))
        for name, about in ACTION["inputs"].items()
    }
    env = environment(
        folder,
        GITHUB_ACTIONS="true",
        GITHUB_OUTPUT=str(folder / "temp/output"),
        GITHUB_STEP_SUMMARY=str(folder / "temp/summary"),
        RUNNER_TEMP=str(folder / "temp"),
        **more,
    )
    for step in ACTION["runs"]["steps"]:
        assert step["shell"] == "bash"
        own = {
            name: re.fullmatch(r"\$\{\{ inputs\.(\w+) \}\}", text)[1]
            for name, text in step["env"].items()
        }
        own = {name: values[value] for name, value in own.items()}
        shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]
        done = run(shell, step["run"], folder, {**env, **own})
        if done.returncode:
            break
    output = folder / "temp/output"
    lines = output.read_text().splitlines() if output.exists() else []
    return done, dict(line.split("=", 1) for line in lines)


def gitlab(folder, more, **variables):
    """Run the template's script; return its end and the variables for later jobs."""
    env = environment(folder, GITLAB_CI="true", **TEMPLATE["variables"])
    env |= {f"UPDATERD_{name.upper()}": text for name, text in variables.items()} | more
    script = "set -eo pipefail\n" + "\n".join(TEMPLATE["script"])
    done = run(["bash"], script, folder, env)
    output = folder / "updaterd.env"
    lines = output.read_text().splitlines() if output.exists() else []
    values = dict(line.split("=", 1) for line in lines)
    return done, {name[9:].lower(): value for name, value in values.items()}


ASKED = {"product": "acme", "version": "1.0.0", "channel": "stable", "trees": "build"}


def identity(ci, issuer, key, audience="https://feed", **changes):
    """Return what a CI puts into a job's environment for identity tokens."""
    token = key.sign(issuer.claims(aud=audience, **changes))
    if ci is gitlab:
        return {"UPDATERD_ID_TOKEN": token}
    issuer.answer_to_job(token)
    return {
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{issuer.url}/token?api-version=2.0",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-the-runner",
    }


def audience(ci):
    return {"audience" if ci is github else "oidc_audience": "https://feed"}


@pytest.mark.parametrize("ci", [github, gitlab])
def test_job_pushes_and_announces_without_a_stored_secret(job, feed, issuer, key, ci):
    """The release is out, the feed has its event, later steps get its number."""
    env = identity(ci, issuer, key)
    address = f"{feed.url}/v1/events"
    done, output = ci(job, env, feed=address, **ASKED, **audience(ci))
    assert done.returncode == 0, done.stdout + done.stderr
    assert output["seq"] == "1"
    assert re.fullmatch(r"[0-9a-f]+\.\d+-\d+", output["event"])
    assert (job / "ops/public/metadata/timestamp.json").exists()
    progress = [line for line in done.stderr.splitlines() if "acme 1.0.0" in line]
    assert len(progress) == 2, "one line when it begins, and one when it is done"
    assert "\r" not in done.stderr
    if ci is github:
        assert "seq 1" in (job / "temp/summary").read_text()
        assert issuer.job_requests == [("bearer of-the-runner", "https://feed")]


@pytest.mark.parametrize("ci", [github, gitlab])
def test_job_of_another_repository_is_told_why(job, feed, issuer, key, ci):
    """The job fails with the feed's reason; what was published stands."""
    env = identity(ci, issuer, key, sub="repo:acme/app-evil:ref:refs/tags/v1.0.0")
    address = f"{feed.url}/v1/events"
    done, output = ci(job, env, feed=address, **ASKED, **audience(ci))
    assert done.returncode == 1
    assert "its subject is" in done.stdout + done.stderr
    assert output["event"] == ""
    if ci is github:
        assert "::error title=updaterd token_refused::" in done.stdout


@pytest.mark.parametrize("ci", [github, gitlab])
def test_job_without_an_identity_ends_before_it_builds(job, feed, ci):
    done, _ = ci(job, {}, feed=f"{feed.url}/v1/events", **ASKED)
    assert done.returncode == 1
    assert ("id-token: write" if ci is github else "id_tokens") in done.stderr
    assert "building" not in done.stderr


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A checkout whose workspace has encrypted keys."""
    folder = tmp_path_factory.mktemp("locked")
    (folder / "temp").mkdir()
    make_tree(folder / "build", {"bin/app": "echo 1\n"})
    secret = folder / "pass"
    secret.write_text("long enough to be good\n")
    secret.chmod(0o600)
    updaterd("release", "init", folder / "ops", "--profile", "prod", "--product",
             "acme", "--channel", "stable", "--passphrase-file", secret)  # fmt: skip
    return folder


@pytest.mark.parametrize("ci", [github, gitlab])
def test_missing_passphrase_is_an_error_and_no_prompt(locked, ci):
    """Nobody is there to be asked: said at once, before anything is built."""
    done, _ = ci(locked, {}, **ASKED, arguments="--no-announce")
    assert done.returncode == 1
    assert "passphrase" in done.stderr
    assert "building" not in done.stderr


def recorded(folder, ci, **asked):
    """Run with a program of updaterd's name that writes down its arguments."""
    (folder / "temp/bin").mkdir(parents=True)
    stub = folder / "temp/bin/updaterd"
    stub.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" >{folder}/temp/argv\n")
    stub.chmod(0o755)
    path = f"{stub.parent}{os.pathsep}{environment(folder)['PATH']}"
    done, _ = ci(folder, {"PATH": path}, requirement="", **asked)
    assert done.returncode == 0, done.stderr
    return (folder / "temp/argv").read_text().split("\0")[:-1]


@pytest.mark.parametrize("ci", [github, gitlab])
def test_name_that_is_a_command(tmp_path, ci):
    """A tag may be called anything that git allows; no shell may run it."""
    asked = dict.fromkeys(("product", "version", "channel", "trees", "feed"), HOSTILE)
    words = recorded(tmp_path, ci, **asked)
    assert not list(tmp_path.rglob("evil"))
    assert f"--version={HOSTILE}" in words
    assert words[-1] == HOSTILE


@pytest.mark.parametrize("ci", [github, gitlab])
def test_lines_are_arguments(tmp_path, ci):
    trees = "linux-x86_64=build\nlinux-aarch64=my folder/arm\n"
    words = recorded(
        tmp_path, ci, **ASKED | {"trees": trees}, arguments="--critical\n--note=a b\n"
    )
    assert words[:2] == ["release", "push"]
    assert {"--critical", "--note=a b", "--product=acme", "--permille=1000"} < {*words}
    assert [word for word in words if word.startswith("--tree")] == [
        "--tree=linux-x86_64=build",
        "--tree=linux-aarch64=my folder/arm",
    ]


def test_no_expression_stands_in_a_script_of_the_action():
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"]
    assert {f"steps.push.outputs.{name}" for name in ACTION["outputs"]} == {
        about["value"].strip("${} ") for about in ACTION["outputs"].values()
    }


def test_template_asks_for_the_token_that_updaterd_reads():
    assert TEMPLATE["id_tokens"] == {
        "UPDATERD_ID_TOKEN": {"aud": "$UPDATERD_OIDC_AUDIENCE"}
    }
