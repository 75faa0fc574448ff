# SPDX-License-Identifier: Apache-2.0
"""The Ansible role leads a machine to its configuration, and then changes nothing."""

import json
import os
import pwd
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from fakes.repository import Publisher
from fakes.tools import refuse

pytestmark = pytest.mark.slow

ROLES = Path(__file__).parents[2] / "integrations/ansible/roles"


@pytest.fixture
def play(tmp_path):
    program = Path(sys.executable).with_name("ansible-playbook")
    if not program.exists():
        refuse("needs ansible-core: pip install ansible-core")
    command = tmp_path / "updaterd"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -I -m updaterd "$@" --demo\n')
    command.chmod(0o755)
    bootstrap = Publisher(tmp_path / "ops").bootstrap
    (tmp_path / "1.root.json").write_bytes(bootstrap)
    (tmp_path / "site.yml").write_text("""
- hosts: localhost
  gather_facts: false
  roles: [updaterd]
""")

    def run(**values):
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "updaterd_package": "",
            "updaterd_service": False,
            "updaterd_etc": str(tmp_path / "etc"),
            "updaterd_command": str(command),
            "updaterd_owner": pwd.getpwuid(os.geteuid()).pw_name,
            "updaterd_feed_url": "https://updates.example.com/v1/events",
            "updaterd_repository": "https://updates.example.com/repo",
            "updaterd_root": str(tmp_path / "1.root.json"),
            **values,
        }
        done = subprocess.run(
            [
                program,
                "-i",
                "localhost,",
                tmp_path / "site.yml",
                "-e",
                json.dumps(variables),
            ],
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "ANSIBLE_ROLES_PATH": str(ROLES),
                "ANSIBLE_HOME": str(tmp_path / "home"),
                "ANSIBLE_NOCOLOR": "1",
                "LC_ALL": "C.UTF-8",
            },
        )
        recap = re.search(r"changed=(\d+).*failed=(\d+)", done.stdout)
        assert recap, done.stdout + done.stderr
        return int(recap[1]), int(recap[2]), done.stdout

    return run


def test_a_second_run_changes_nothing_and_what_is_wrong_is_told(play, tmp_path):
    wanted = {
        "updaterd_products": {
            "acme": {
                "root": str(tmp_path / "opt"),
                "activate": "on-request",
                "units": [],
                "health": {"command": ["/bin/true"], "timeout_s": 5},
            }
        },
        "updaterd_settings": {"schedule": {"window": "22:00-06:00"}},
    }
    changed, failed, output = play(**wanted)
    assert (changed > 0, failed) == (True, 0), output
    written = tomllib.loads((tmp_path / "etc/updaterd.toml").read_text())
    assert written["products"]["acme"]["health"]["command"] == ["/bin/true"]
    assert written["schedule"]["window"] == "22:00-06:00"

    changed, failed, output = play(**wanted)
    assert (changed, failed) == (0, 0), output

    wanted["updaterd_products"]["acme"]["activate"] = "sometimes"
    _, failed, output = play(**wanted)
    assert failed == 1
    assert "must be one of at-once, on-request, at-exit, window" in output
