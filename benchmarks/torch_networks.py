"""The networks of benchmarks/zoo.py in PyTorch: oracle of tests, rivals of benchmarks, source of weights.

Where torchvision has the network, modules have the names they have there
(https://github.com/pytorch/vision, torchvision/models), so that state_dicts have the same entries. Dropout
is there for its number among the modules, and off: two systems never drop the same. Every module gives
logits in training mode. Imported only where PyTorch is installed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu


def lenet5(size: int) -> nn.Module:
    layers: dict[str, nn.Module] = {
        "c1": nn.Conv2d(1, 6, 5),
        "tanh1": nn.Tanh(),
        "s2": nn.AvgPool2d(2),
        "c3": nn.Conv2d(6, 16, 5),
        "tanh3": nn.Tanh(),
        "s4": nn.AvgPool2d(2),
        "flatten": nn.Flatten(),
        "c5": nn.Linear(16 * ((size - 12) // 4) ** 2, 120),
        "tanh5": nn.Tanh(),
        "f6": nn.Linear(120, 84),
        "tanh6": nn.Tanh(),
        "output": nn.Linear(84, 10),
    }
    return nn.Sequential(OrderedDict(layers))


class Classifier(nn.Module):
    """`features`, flattened, and `classifier`."""

    def __init__(self, features: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.features, self.classifier = features, classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


def alexnet(size: int) -> nn.Module:
    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),
    )
    classifier = nn.Sequential(
        nn.Dropout(0.0),
        nn.Linear(flat_size(features, size), 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(0.0),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Linear(4096, 1000),
    )
    return Classifier(features, classifier)


def vgg16(size: int) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for block in ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)):
        for maps in block:
            layers += [nn.Conv2d(channels, maps, 3, padding=1), nn.ReLU(inplace=True)]
            channels = maps
        layers.append(nn.MaxPool2d(2))
    features = nn.Sequential(*layers)
    classifier = nn.Sequential(
        nn.Linear(flat_size(features, size), 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(0.0),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(0.0),
        nn.Linear(4096, 1000),
    )
    return Classifier(features, classifier)


def flat_size(features: nn.Module, size: int) -> int:
    """How many numbers the features of an image are."""
    with torch.no_grad():
        return features(torch.zeros(1, 3, size, size)).numel()


class BasicConv2d(nn.Module):
    """Convolution, batch normalisation, relu: GoogLeNet's."""

    def __init__(self, channels: int, maps: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, maps, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(maps, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn(self.conv(x)), inplace=True)


class Inception(nn.Module):
    def __init__(
        self, channels: int, single: int, middle: tuple[int, int], wide: tuple[int, int], pooled: int
    ) -> None:
        super().__init__()
        self.branch1 = BasicConv2d(channels, single, 1)
        self.branch2 = nn.Sequential(BasicConv2d(channels, middle[0], 1), BasicConv2d(*middle, 3))
        self.branch3 = nn.Sequential(BasicConv2d(channels, wide[0], 1), BasicConv2d(*wide, 3))
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True), BasicConv2d(channels, pooled, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = BasicConv2d(3, 64, 7, stride=2)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = BasicConv2d(64, 64, 1)
        self.conv3 = BasicConv2d(64, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception3a = Inception(192, 64, (96, 128), (16, 32), 32)
        self.inception3b = Inception(256, 128, (128, 192), (32, 96), 64)
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = Inception(480, 192, (96, 208), (16, 48), 64)
        self.inception4b = Inception(512, 160, (112, 224), (24, 64), 64)
        self.inception4c = Inception(512, 128, (128, 256), (24, 64), 64)
        self.inception4d = Inception(512, 112, (144, 288), (32, 64), 64)
        self.inception4e = Inception(528, 256, (160, 320), (32, 128), 128)
        self.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.inception5a = Inception(832, 256, (160, 320), (32, 128), 128)
        self.inception5b = Inception(832, 384, (192, 384), (48, 128), 128)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.0)
        self.fc = nn.Linear(1024, 1000)

    def forward(self, x: Tensor) -> Tensor:
        for name, part in self.named_children():
            x = part(x.flatten(1)) if name == "fc" else part(x)
        return x


class Block(nn.Module):
    """ResNet's: convolutions of the given (kernel, maps), the first 3x3 of them with the stride."""

    def __init__(self, channels: int, shapes: tuple[tuple[int, int], ...], stride: int) -> None:
        super().__init__()
        self.count, inner = len(shapes), channels
        strided = next(i for i, (kernel, _) in enumerate(shapes) if kernel == 3)
        for i, (kernel, maps) in enumerate(shapes):
            step = stride if i == strided else 1
            self.add_module(f"conv{i + 1}", nn.Conv2d(inner, maps, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(maps))
            inner = maps
        self.downsample = None
        if stride > 1 or channels != inner:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, inner, 1, stride, bias=False), nn.BatchNorm2d(inner)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.count:
                y = relu(y, inplace=True)
        return relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class ResNet(nn.Module):
    def __init__(self, blocks: tuple[int, ...], has_bottlenecks: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for i, (maps, count) in enumerate(zip((64, 128, 256, 512), blocks, strict=True)):
            shapes = ((1, maps), (3, maps), (1, 4 * maps)) if has_bottlenecks else ((3, maps), (3, maps))
            layer = nn.Sequential()
            for number in range(count):
                layer.append(Block(channels, shapes, 2 if i > 0 and number == 0 else 1))
                channels = shapes[-1][1]
            self.add_module(f"layer{i + 1}", layer)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels, 1000)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.children():
            x = part(x)
        return x


class DenseLayer(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(relu(self.norm1(x), inplace=True))
        return self.conv2(relu(self.norm2(x), inplace=True))


class DenseBlock(nn.Module):
    def __init__(self, channels: int, layers: int, growth: int) -> None:
        super().__init__()
        for i in range(layers):
            self.add_module(f"denselayer{i + 1}", DenseLayer(channels + i * growth, growth))

    def forward(self, x: Tensor) -> Tensor:
        """The maps are joined anew for each layer, as in torchvision."""
        maps = [x]
        for layer in self.children():
            maps.append(layer(torch.cat(maps, 1)))
        return torch.cat(maps, 1)


def densenet121(size: int) -> nn.Module:
    features = nn.Sequential()
    features.add_module("conv0", nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False))
    features.add_module("norm0", nn.BatchNorm2d(64))
    features.add_module("relu0", nn.ReLU(inplace=True))
    features.add_module("pool0", nn.MaxPool2d(3, stride=2, padding=1))
    channels, growth = 64, 32
    for number, layers in enumerate((6, 12, 24, 16), start=1):
        features.add_module(f"denseblock{number}", DenseBlock(channels, layers, growth))
        channels += layers * growth
        if number < 4:
            features.add_module(f"transition{number}", transition(channels))
            channels //= 2
    features.add_module("norm5", nn.BatchNorm2d(channels))
    features.add_module("relu5", nn.ReLU(inplace=True))
    features.add_module("pool5", nn.AdaptiveAvgPool2d(1))
    return Classifier(features, nn.Linear(channels, 1000))


def transition(channels: int) -> nn.Module:
    parts = nn.Sequential()
    parts.add_module("norm", nn.BatchNorm2d(channels))
    parts.add_module("relu", nn.ReLU(inplace=True))
    parts.add_module("conv", nn.Conv2d(channels, channels // 2, 1, bias=False))
    parts.add_module("pool", nn.AvgPool2d(2))
    return parts


class InvertedResidual(nn.Module):
    """MobileNet v2's bottleneck."""

    def __init__(self, channels: int, maps: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        layers: list[nn.Module] = [conv_norm_relu6(channels, inner, 1)] if expansion > 1 else []
        layers.append(conv_norm_relu6(inner, inner, 3, stride, groups=inner))
        layers += [nn.Conv2d(inner, maps, 1, bias=False), nn.BatchNorm2d(maps)]
        self.conv = nn.Sequential(*layers)
        self.is_residual = stride == 1 and channels == maps

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.is_residual else self.conv(x)


def conv_norm_relu6(channels: int, maps: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, maps, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(maps),
        nn.ReLU6(inplace=True),
    )


def mobilenet_v2(size: int) -> nn.Module:
    layers: list[nn.Module] = [conv_norm_relu6(3, 32, 3, stride=2)]
    channels = 32
    for expansion, maps, blocks, first_stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for stride in (first_stride, *[1] * (blocks - 1)):
            layers.append(InvertedResidual(channels, maps, stride, expansion))
            channels = maps
    layers += [conv_norm_relu6(channels, 1280, 1), nn.AdaptiveAvgPool2d(1)]
    return Classifier(nn.Sequential(*layers), nn.Sequential(nn.Dropout(0.0), nn.Linear(1280, 1000)))


class Double(nn.Module):
    """Two 3x3 convolutions of U-Net; on the way up, after an expansion whose maps join those of a skip."""

    def __init__(self, channels: int, maps: int, expands: bool = False) -> None:
        super().__init__()
        self.expand = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2) if expands else None
        self.conv1 = nn.Conv2d(channels, maps, 3, padding=1)
        self.conv2 = nn.Conv2d(maps, maps, 3, padding=1)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        if self.expand is not None and skip is not None:
            x = torch.cat([skip, self.expand(x)], 1)
        return relu(self.conv2(relu(self.conv1(x), inplace=True)), inplace=True)


class UNet(nn.Module):
    def __init__(self, maps: int = 64) -> None:
        super().__init__()
        levels = [maps * 2**i for i in range(5)]
        for i, width in enumerate(levels[:-1]):
            self.add_module(f"down{i + 1}", Double(levels[i - 1] if i else 1, width))
            self.add_module(f"up{i + 1}", Double(levels[i + 1], width, expands=True))
        self.bottom = Double(levels[-2], levels[-1])
        self.classes = nn.Conv2d(maps, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for i in range(1, 5):
            skips.append(getattr(self, f"down{i}")(x))
            x = max_pool2d(skips[-1], 2)
        x = self.bottom(x)
        for i in range(4, 0, -1):
            x = getattr(self, f"up{i}")(x, skips[i - 1])
        return self.classes(x)


class PositionBias(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class AlphaGo(nn.Module):
    """Logits in training mode, probabilities otherwise."""

    def __init__(self, size: int, maps: int = 192) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(48, maps, 5, padding=2)
        for i in range(2, 13):
            self.add_module(f"conv{i}", nn.Conv2d(maps, maps, 3, padding=1))
        self.conv13 = nn.Conv2d(maps, 1, 1, bias=False)
        self.position = PositionBias(1, size, size)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(1, 13):
            x = relu(getattr(self, f"conv{i}")(x), inplace=True)
        logits = self.position(self.conv13(x)).flatten(1)
        return logits if self.training else logits.softmax(1)


MODULES: Mapping[str, Callable[[int], nn.Module]] = {
    "lenet5": lenet5,
    "alexnet": alexnet,
    "vgg16": vgg16,
    "googlenet": lambda size: GoogLeNet(),
    "resnet18": lambda size: ResNet((2, 2, 2, 2), has_bottlenecks=False),
    "resnet50": lambda size: ResNet((3, 4, 6, 3), has_bottlenecks=True),
    "densenet121": densenet121,
    "mobilenet_v2": mobilenet_v2,
    "unet": lambda size: UNet(),
    "alphago": AlphaGo,
}
"""From the size of the images to the module, by the names of the zoo."""
