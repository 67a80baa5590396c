"""How a machine is named."""

from __future__ import annotations

import pytest

from headrace.contracts.package.processor import name_in, place_of, processor_name

EPYC = "processor\t: 0\nmodel name\t: AMD EPYC  9654 96-Core Processor\n\nprocessor\t: 1\nmodel name\t: other\n"
ARM = "processor : 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\n"


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (EPYC, "AMD EPYC 9654 96-Core Processor"),
        (ARM, "CPU implementer 0x41 CPU part 0xd0c CPU variant 0x3"),
        ("", ""),
        ("no colon\nmodel name\t:\n", ""),
    ],
)
def test_the_name_is_that_of_the_first_core(cpuinfo: str, name: str) -> None:
    assert name_in(cpuinfo) == name


def test_this_machine_has_a_name_that_stays() -> None:
    assert processor_name()
    assert processor_name() == processor_name()


def test_a_place_is_a_processor_and_a_kind_of_device() -> None:
    assert place_of("cpu") == f"{processor_name()}, cpu"
    assert place_of("cuda:1") == place_of("cuda")
    assert place_of("cuda") != place_of("cpu")
