"""Pruned networks keep their outputs' shapes, are as small as promised, and answer nearly as before."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from headrace.compression.data.augmentation import augmented
from headrace.compression.data.dataset import Dataset
from headrace.compression.errors import CompressionError, DataError, NotApplicable
from headrace.compression.export.onnx import OnnxExport
from headrace.compression.networks.architectures.blocks import TransformerLayer
from headrace.compression.networks.network import Network
from headrace.compression.pruning import PruneChannels, PruneMagnitude, PruneNM
from headrace.compression.pruning.allocation import Sizes, plan_removal
from headrace.compression.steps import StepContext
from headrace.runtimes.base import find_runtime


def accuracy(network: Network, rows: Dataset) -> float:
    return float((network.infer(rows.inputs)["label"] == rows.labels).mean())


def without_rows(context: StepContext) -> StepContext:
    none = context.data.train.take(slice(0, 0))
    return dataclasses.replace(context, data=dataclasses.replace(context.data, train=none, calibration=none))


def unlabelled(context: StepContext) -> StepContext:
    train = dataclasses.replace(context.data.train, labels=None)
    return dataclasses.replace(context, data=dataclasses.replace(context.data, train=train))


class Tangled(nn.Module):
    """Batch norms, a shortcut, a depthwise convolution, branches joined, and a pooled head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(32, 48, 1), nn.ReLU(), nn.Conv2d(48, 32, 3, padding=1), nn.BatchNorm2d(32))
        self.depthwise = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.BatchNorm2d(32), nn.ReLU())
        self.wide, self.narrow = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 16, 3, padding=1)
        self.classify = nn.Linear(48, 10)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        stem = self.stem(image)
        features = self.depthwise(stem + self.block(stem))
        joined = torch.cat([self.wide(features), self.narrow(features)], dim=1).relu()
        pooled = joined.mean(dim=(2, 3))
        return {"scores": self.classify(pooled), "features": self.block(stem)[:, :, 0, 0]}


class Mixer(nn.Module):
    """A transformer's layer: only what is within its perceptron can go."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.layer = TransformerLayer(32, heads=4, hidden=64)
        self.classify = nn.Linear(32, 10)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.layer(self.embed(image.flatten(1, 2)))
        scores: Tensor = self.classify(tokens.mean(dim=1))
        return scores


def network_of(module: nn.Module, digits: Dataset, *outputs: str) -> Network:
    return Network("tangled", module.eval(), digits.take(slice(0, 8)).inputs, outputs)


def test_half_of_the_channels_go_and_the_digits_stay_readable(digits_network: Network, context: StepContext) -> None:
    before = accuracy(digits_network, context.data.test)
    pruned = PruneChannels(ratio=0.5, rounds=1, epochs=12, copies=2).change(digits_network, context)
    assert accuracy(pruned, context.data.test) >= before - 0.02
    record = pruned.provenance["steps"][-1]
    assert record["history"][-1]["removed_share"] == pytest.approx(0.5, abs=0.1)
    assert record["parameters"][1] < record["parameters"][0] / 2
    assert all(kept % 16 == 0 or kept == 8 for _, kept in record["channels"].values())
    # The one that was given is as it was.
    assert accuracy(digits_network, context.data.test) == before


def test_a_pruned_network_is_exported_with_any_number_of_rows(digits_network: Network, context: StepContext) -> None:
    step = PruneChannels(ratio=0.7, rounds=2, epochs=0, criterion="magnitude")
    pruned = step.change(digits_network, context)
    package = OnnxExport().export(pruned, context)
    assert package.size_bytes < 60_000
    model = find_runtime("onnxruntime", "cpu", 1).load(package)
    found = model.infer(context.data.test.inputs)
    model.close()
    assert found["scores"].shape == (len(context.data.test), 10)
    assert [each["step"] for each in package.manifest.provenance["steps"]] == ["PruneChannels", "OnnxExport"]


def test_without_labels_the_original_alone_teaches(digits_network: Network, context: StepContext) -> None:
    pruned = PruneChannels(ratio=0.4, rounds=1, epochs=6, copies=0).change(digits_network, unlabelled(context))
    assert accuracy(pruned, context.data.test) > 0.9
    assert pruned.provenance["steps"][-1]["history"][0]["labelled_rows"] == 0


def test_the_same_seed_prunes_the_same_way(digits_network: Network, context: StepContext) -> None:
    step = PruneChannels(rounds=1, epochs=1, copies=1)
    one, other = (
        step.change(digits_network, dataclasses.replace(context, folder=context.folder / name)) for name in "ab"
    )
    for a, b in zip(one.module.parameters(), other.module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_channels_that_reach_an_output_stay(digits: Dataset, context: StepContext) -> None:
    torch.manual_seed(0)
    network = network_of(Tangled(), digits, "scores", "features")
    pruned = PruneChannels(ratio=0.9, rounds=1, epochs=0).change(network, context)
    # What `features` shows is tied to the stem by the shortcut, and the depthwise convolution comes after it.
    assert set(pruned.provenance["steps"][-1]["channels"]) == {"block.0", "wide", "narrow"}
    for name, array in network.infer(network.example).items():
        assert pruned.infer(network.example)[name].shape == array.shape


def test_shortcuts_and_depthwise_convolutions_go_as_one(digits: Dataset, context: StepContext) -> None:
    torch.manual_seed(0)
    network = network_of(Tangled(), digits, "scores")
    pruned = PruneChannels(ratio=0.5, rounds=1, epochs=0).change(network, context)
    channels = pruned.provenance["steps"][-1]["channels"]
    assert len(channels) == 4
    assert sum(kept for _, kept in channels.values()) <= 0.6 * sum(first for first, _ in channels.values())
    OnnxExport().export(pruned, context)


def test_what_attention_needs_is_left_alone(digits: Dataset, context: StepContext) -> None:
    torch.manual_seed(0)
    network = network_of(Mixer(), digits, "scores")
    pruned = PruneChannels(ratio=0.5, rounds=1, epochs=0).change(network, context)
    assert pruned.provenance["steps"][-1]["channels"] == {"layer.mlp.1": [64, 32]}


def test_a_network_of_one_layer_has_no_channels_to_give(digits: Dataset, context: StepContext) -> None:
    network = network_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1)), digits, "scores")
    with pytest.raises(NotApplicable, match="no channels that could go"):
        PruneChannels().change(network, context)


@pytest.mark.parametrize("step", [PruneChannels(), PruneMagnitude(), PruneNM()])
def test_without_rows_it_says_what_is_missing(
    digits_network: Network, context: StepContext, step: PruneChannels | PruneMagnitude | PruneNM
) -> None:
    with pytest.raises(DataError, match="no rows to train it with; give rows"):
        step.change(digits_network, without_rows(context))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (PruneChannels, {"ratio": 1.0}),
        (PruneChannels, {"rounds": 0}),
        (PruneChannels, {"criterion": "luck"}),
        (PruneMagnitude, {"sparsity": 0.0}),
        (PruneNM, {"n": 4, "m": 4}),
    ],
)
def test_options_that_make_no_sense_are_refused(kind: type, options: dict[str, object]) -> None:
    with pytest.raises(CompressionError):
        kind(**options)


def test_zeros_stay_zeros_through_fine_tuning_and_gzip_sees_them(digits_network: Network, context: StepContext) -> None:
    pruned = PruneMagnitude(sparsity=0.8, rounds=2, epochs=6, copies=0).change(digits_network, context)
    record = pruned.provenance["steps"][-1]
    assert record["zero_share"] == pytest.approx(0.8, abs=1e-3)
    assert record["gzip_bytes"][1] < record["gzip_bytes"][0] / 2
    assert accuracy(pruned, context.data.test) > 0.9
    # Plain weights are left, which export and load as those of the original.
    assert set(pruned.module.state_dict()) == set(digits_network.module.state_dict())


def test_two_of_four_weights_live_along_the_input_channels(digits_network: Network, context: StepContext) -> None:
    pruned = PruneNM(epochs=2, copies=0).change(digits_network, context)
    assert pruned.provenance["steps"][-1]["layers"] == [
        "network.features.2",
        "network.features.5",
        "network.classify.1",
    ]
    weight = pruned.module.get_submodule("network.features.2").weight
    assert isinstance(weight, Tensor)
    live = (weight != 0).reshape(48, 6, 4, 3, 3).sum(dim=2)
    assert int(live.max()) == 2
    assert accuracy(pruned, context.data.test) > 0.9


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 70), min_size=1),
    st.floats(0.05, 0.95),
    st.sampled_from([1, 8, 16]),
)
def test_no_plan_removes_a_whole_layer_or_leaves_the_sizes_allowed(
    layers: dict[str, int], share: float, round_to: int
) -> None:
    random = np.random.default_rng(0)
    scores = {name: random.random(size) for name, size in layers.items()}
    sizes = Sizes(round_to, keep_least=0.1)
    plan = plan_removal(scores, layers, share, sizes=sizes, savings=dict.fromkeys(layers, 1.0))
    for name, gone in plan.items():
        kept = layers[name] - len(gone)
        assert kept >= 0.1 * layers[name]
        assert kept % round_to == 0 or kept in {round_to // 2, round_to // 4}
        # Those that go are worth no more than those that stay.
        stay = np.delete(scores[name], gone)
        assert scores[name][gone].max() <= stay.min()


def test_shifted_copies_are_other_images_of_the_same_rows(digits: Dataset) -> None:
    few = digits.take(slice(0, 5))
    more = augmented(few, 2, seed=0)
    assert more is not None
    assert more.labels is None
    assert more.inputs["image"].shape == (10, 1, 8, 8)
    for copy, image in zip(more.inputs["image"], np.tile(few.inputs["image"], (2, 1, 1, 1)), strict=True):
        assert not np.array_equal(copy, image)
        assert np.array_equal(copy[0, 2:-2, 2:-2].sum() > 0, image[0, 2:-2, 2:-2].sum() > 0)
    assert augmented(Dataset({"words": np.zeros((3, 4), np.int64)}), 2, seed=0) is None
