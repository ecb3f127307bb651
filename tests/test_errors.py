"""The exception tree: messages, hints, exit codes, and the way through a process boundary."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys

import pytest

from rlzoo import errors
from rlzoo.errors import ConfigError, ContractError, DataError, Diverged, Interrupted, PluginError, RlzooError

CODES = {RlzooError: 1, ConfigError: 2, PluginError: 3, ContractError: 3, DataError: 4, Diverged: 5, Interrupted: 130}


def test_every_class_has_its_exit_code():
    found = {cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, RlzooError)}
    assert {cls: cls.exit_code for cls in found} == CODES


@pytest.mark.parametrize("cls", CODES)
def test_message_and_hint_survive_pickling(cls):
    again = pickle.loads(pickle.dumps(cls("what happened", "what to do")))
    assert type(again) is cls
    assert (again.message, again.hint) == ("what happened", "what to do")


def test_text_of_an_error():
    assert str(RlzooError("what")) == "what"
    assert str(RlzooError("what", "do this")) == "what\nhint: do this"


def test_a_broken_contract_is_a_plugin_error():
    assert issubclass(ContractError, PluginError)


def test_a_full_disk_behind_the_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "rlzoo", "plugins", "list"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr.startswith("error: No space left on device\n")
    assert "Traceback" not in done.stderr
    assert done.returncode != 0
