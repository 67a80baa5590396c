"""Identities of processes: who is gone is known for certain, and everybody else is taken to be alive."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from headrace.workers.process.identity import is_gone, own_identity

OTHER = (
    "import sys; from headrace.workers.process.identity import own_identity; print(own_identity()); sys.stdin.read()"
)


def test_this_process_is_not_gone() -> None:
    assert own_identity() == own_identity()
    assert not is_gone(own_identity())


def test_another_process_is_gone_as_soon_as_it_has_ended_also_before_anybody_has_waited_for_it() -> None:
    command = [sys.executable, "-c", OTHER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        identity = other.stdout.readline().strip()
        assert identity != own_identity()
        assert not is_gone(identity)
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert is_gone(identity)
    assert is_gone(identity)


def test_a_process_that_has_the_pid_of_an_earlier_one_is_not_taken_for_it() -> None:
    place, pid, start = own_identity().split(":")
    assert is_gone(f"{place}:{pid}:{int(start) - 1}")


@pytest.mark.parametrize("place", ["another-boot/4026531836", ""])
def test_nothing_is_known_of_processes_of_other_machines_and_containers(place: str) -> None:
    assert not is_gone(f"{place}:999999999:1")


@pytest.mark.parametrize("identity", ["", "x", "::", f"{own_identity().split(':', maxsplit=1)[0]}:one:1"])
def test_nothing_is_known_of_what_is_no_identity(identity: str) -> None:
    assert not is_gone(identity)
