"""`accelerate`: layers exchanged in place, seen by everybody as the plain ones are."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from conftest import need_compiled_code, tiny_config
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.flop_counter import FlopCounterMode

from cifar_cli.kernels import accelerate, restore, uses_compiled_code
from cifar_cli.kernels.modules import Conv2d
from cifar_cli.models import build_model, custom_resnet, speed_resnet
from cifar_cli.models.summary import summarise

LAST = torch.channels_last
CPU = torch.device("cpu")
NETWORKS = {
    "custom_resnet": {"model__width": 16},
    "speed_resnet": {
        "model__name": "speed_resnet",
        "model__widths": [32, 64, 64],
        "model__residual": True,
    },
}
CONTAINERS = {
    custom_resnet.CustomResnet,
    custom_resnet.ResidualLayer,
    custom_resnet.ResidualPair,
    custom_resnet.ConvBlock,
    speed_resnet.SpeedResnet,
    speed_resnet.Group,
    speed_resnet.ConvBlock,
}


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Where the compiled code lies, which is loaded."""
    need_compiled_code(tmp_path_factory)
    return tmp_path_factory.getbasetemp()


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    config = tiny_config(**NETWORKS[request.param])
    return build_model(config.model, 10, 32).to(memory_format=LAST)


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 32, 32).to(memory_format=LAST)


def test_networks_are_plain_torch_but_for_their_containers(network: nn.Module) -> None:
    kinds = {type(layer) for layer in network.modules()} - CONTAINERS
    assert {kind for kind in kinds if not kind.__module__.startswith("torch.nn.modules.")} == set()
    assert nn.Conv2d in kinds
    for kind in CONTAINERS:  # which have nothing of their own to compute with
        layers = [layer for layer in network.modules() if type(layer) is kind]
        assert not any(list(layer.parameters(recurse=False)) for layer in layers)


def test_only_classes_change_and_change_back(network: nn.Module, folder: Any) -> None:
    before = {name: type(layer) for name, layer in network.named_modules()}
    parameters = dict(network.named_parameters())
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for _ in range(2):
        accelerate(network, cache=folder)
        assert list(network.state_dict()) == list(state)
        assert all(torch.equal(state[name], t) for name, t in network.state_dict().items())
        assert all(parameters[name] is p for name, p in network.named_parameters())
        now = {name: type(layer) for name, layer in network.named_modules()}
        assert [name for name in before if not issubclass(now[name], before[name])] == []
        convolutions = [kind for kind in before.values() if kind is nn.Conv2d]
        swapped = [kind for kind in now.values() if kind is Conv2d]
        assert len(swapped) == len(convolutions) - hasattr(network, "stem")
    restore(network)
    assert {name: type(layer) for name, layer in network.named_modules()} == before
    assert not any("compiled" in vars(layer) for layer in network.modules())


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_a_convolution_runs_with_its_pooling(padding_mode: str, folder: Any) -> None:
    convolution = nn.Conv2d(8, 64, 3, padding=1, padding_mode=padding_mode, bias=False)
    block = nn.Sequential(convolution, nn.MaxPool2d(2), nn.ReLU()).to(memory_format=LAST)
    x = torch.randn(4, 8, 9, 9).to(memory_format=LAST)
    expected = block(x)
    accelerate(block, cache=folder)
    out = block(x)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    assert operations(out) == ["ReluBackward0", "_ConvolutionBackward"]
    # By itself, each layer is the plain one.
    assert block[0](x).shape == (4, 64, 9, 9)
    assert block[1](block[0](x)).shape == (4, 64, 4, 4)


def operations(out: Tensor) -> list[str]:
    """The names of the functions that a tensor comes from, the last one first."""
    names, function = [], out.grad_fn
    while function is not None and "AccumulateGrad" not in function.name():
        names.append(function.name())
        function = next((f for f, _ in function.next_functions if f is not None), None)
    return names


@pytest.mark.parametrize(
    "pooling",
    [nn.MaxPool2d(3), nn.MaxPool2d(2, 1), nn.MaxPool2d(2, padding=1), nn.AvgPool2d(2)],
    ids=str,
)
def test_other_poolings_run_by_themselves(pooling: nn.Module) -> None:
    block = nn.Sequential(nn.Conv2d(96, 96, 3, padding=1, bias=False), pooling)
    accelerate(block)
    assert type(block) is nn.Sequential
    assert type(block[0]) is Conv2d


def is_fast(layer: nn.Module, x: Tensor) -> bool:
    return "_Convolution" in str(layer(x).grad_fn)


def fast_layer(**changed: Any) -> nn.Conv2d:
    arguments = {"kernel_size": 3, "padding": 1, "bias": False, **changed}
    layer = nn.Conv2d(96, 96, **arguments)
    accelerate(layer)
    return layer


def wide(count: int = 2) -> Tensor:
    return torch.randn(count, 96, 8, 8).to(memory_format=LAST)


def test_a_layer_is_fast_only_if_convolutions_are_wanted() -> None:
    layer, x = fast_layer(), wide()
    assert is_fast(layer, x)
    out = layer(x)
    accelerate(layer, convolutions=False)
    assert not is_fast(layer, x)
    torch.testing.assert_close(out, layer(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changed",
    [
        {"stride": 2},
        {"dilation": 2},
        {"groups": 2},
        {"bias": True},
        {"kernel_size": 1},
        {"padding": 0},
        {"padding_mode": "circular"},
    ],
    ids=str,
)
def test_other_convolutions_stay_torchs_own(changed: dict[str, Any]) -> None:
    assert type(fast_layer(**changed)) is nn.Conv2d


@pytest.mark.parametrize(
    "prepare",
    [lambda x: x.contiguous(), lambda x: x.double()],
    ids=["another layout", "another precision"],
)
def test_other_tensors_are_convolved_by_torch(prepare: Callable[[Tensor], Tensor]) -> None:
    x = prepare(wide())
    assert not is_fast(fast_layer().to(x.dtype), x)


def test_autocast_and_transforms_of_functions_get_torchs_own() -> None:
    layer, x = fast_layer(), wide()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    each = torch.func.vmap(layer)(x.unsqueeze(1))
    torch.testing.assert_close(each.squeeze(1), layer(x), rtol=1e-4, atol=1e-4)


def test_outputs_can_be_changed_in_place_and_be_empty() -> None:
    layer, x = fast_layer(), wide()
    layer(x).relu_().sum().backward()
    assert layer(x[:0]).shape == (0, 96, 8, 8)


@pytest.fixture(params=["each layer", "all modules"])
def watched(request: pytest.FixtureRequest) -> Iterator[Callable[[nn.Module], list[Any]]]:
    """Runs a network with forward hooks; each leaf with the shapes of its input and output."""
    handles: list[Any] = []

    def watch(network: nn.Module) -> list[Any]:
        names = {layer: name for name, layer in network.named_modules()}
        seen: list[Any] = []

        def note(layer: nn.Module, arguments: tuple[Tensor, ...], out: Tensor) -> None:
            if not list(layer.children()):
                seen.append((names[layer], arguments[0].shape, out.shape))

        if request.param == "all modules":
            handles.append(register_module_forward_hook(note))
        else:
            handles.extend(layer.register_forward_hook(note) for layer in names)
        network(images())
        while handles:
            handles.pop().remove()
        return seen

    yield watch
    for handle in handles:
        handle.remove()


def test_hooks_see_each_layer_as_in_the_plain_network(
    network: nn.Module, watched: Callable[[nn.Module], list[Any]], folder: Any
) -> None:
    plain = watched(network)
    accelerate(network, cache=folder)
    assert watched(network) == plain
    assert len(plain) == sum(not list(layer.children()) for layer in network.modules())


def test_the_layer_table_and_flops_are_those_of_the_plain_network(
    network: nn.Module, folder: Any
) -> None:
    def flops() -> int:
        with FlopCounterMode(display=False) as counter:
            network(images()).sum().backward()
        return counter.get_total_flops()

    table, plain = summarise(network, 32, 4), flops()
    accelerate(network, cache=folder)
    assert summarise(network, 32, 4) == table
    assert flops() == plain


@pytest.mark.parametrize("is_accelerated", [False, True])
def test_networks_can_be_exported(network: nn.Module, is_accelerated: bool, folder: Any) -> None:
    network.eval()
    expected = network(images(2).fill_(0.1))
    if is_accelerated:
        accelerate(network, cache=folder)
    program = torch.export.export(network, (images(2),))
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "aten.conv2d.default" in called
    assert "aten.max_pool2d.default" in called
    exported = program.module()(images(2).fill_(0.1))
    torch.testing.assert_close(exported, expected, rtol=1e-4, atol=1e-4)


def test_copies_are_accelerated_too(network: nn.Module, folder: Any) -> None:
    accelerate(network, cache=folder)
    network.eval()
    expected = network(images().fill_(0.1))
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert [type(m) for m in other.modules()] == [type(m) for m in network.modules()]
        assert uses_compiled_code(other)
        assert torch.equal(other(images().fill_(0.1)), expected)
        ours, theirs = ({p.data_ptr() for p in m.parameters()} for m in (network, other))
        assert not ours & theirs
