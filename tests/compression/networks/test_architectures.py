"""The families are those of the papers: parameters at 224 pixels and 1,000 classes, and fit for small images."""

from __future__ import annotations

import pytest
import torch

from headrace.compression.networks.architectures import FAMILIES, ImageTask, build

#: Millions of parameters as the papers (for SqueezeNet 1.1 and ViT-Tiny, their authors' code) state them.
PARAMETERS = {
    "mobilenet-v2": 3.5,
    "mobilenet-v3": 5.5,
    "squeezenet": 1.24,
    "efficientnet-b0": 5.3,
    "vit-tiny": 5.7,
    "swin-tiny": 28.3,
    "mobilevit": 5.6,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_the_parameters_of_its_paper(family: str) -> None:
    with torch.device("meta"):
        network = build(family, ImageTask(3, 224, 224, 1000))
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert millions == pytest.approx(PARAMETERS[family], rel=0.011)


@pytest.mark.parametrize("size", [(1, 8, 8), (1, 28, 28), (3, 50, 35)])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_takes_small_images_row_by_row(family: str, size: tuple[int, int, int]) -> None:
    network = build(family, ImageTask(*size, classes=7))
    images = torch.randn(3, *size)
    with torch.inference_mode():
        logits = network(images)
        alone = network(images[1:2])
    assert logits.shape == (3, 7)
    # Random weights make logits of any size.
    torch.testing.assert_close(logits[1:2], alone, rtol=1e-3, atol=1e-4 * float(logits.abs().max()))
    # What a row gives depends on the row.
    assert not torch.allclose(logits[0], logits[1], rtol=1e-4, atol=0)


@pytest.mark.parametrize(("side", "left_out"), [(224, 0), (128, 0), (64, 1), (32, 2), (28, 3), (8, 4), (4, 5), (1, 5)])
def test_small_images_are_halved_less_often(side: int, left_out: int) -> None:
    assert ImageTask(3, side, side, 10).halvings_left_out == left_out


def test_the_same_seed_gives_the_same_weights_and_leaves_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    one, other = (build("squeezenet", ImageTask(1, 8, 8, 10), seed=3) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
