r"""Learn one space for picture, sound and motion, and measure retrieval in it.

    align synth demo/in --count 48 --duration 125 --size 192x108 --fps 15 --accl-noise 0.2 --gyro-noise 0.02
    align run --source ego4d --input demo/in --output demo/out --window 5 --stride 2.5 \
        --image-size 64 --imu-rate 100 --split train=0.75,val=0.25
    python examples/contrastive.py demo/out --results results
    python examples/contrastive.py demo/out --results shifted --imu-shift 1

Sound and motion are bound to the picture by InfoNCE, as in ImageBind (arXiv 2305.05665); a window that lacks
a modality takes no part in its loss, and pairs that are no negatives are masked. The encoders are small and
start from nothing, so the picture's is trained too. Held-out recordings are then searched: given a picture,
which of all sounds (motions) is its own, and the other way round. ``--imu-shift`` takes the motion that many
seconds later than the picture: what a data set with an unnoticed clock error would teach.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

import align
from align.transforms.index.negatives import not_negatives

OTHERS = ("audio", "imu")
CENTRAL_S = 2.0  # of the sound and the motion around the picture's instant
WIDTH = 64
PEAK_RATE, WARM_UP = 2e-3, 0.3
Fed = tuple[Mapping[str, Any], Mapping[str, Tensor]]
"""A batch and what the encoders take of it."""


class ImageEncoder(nn.Module):
    """Texture and tint count, the place in the picture does not."""

    def __init__(self) -> None:
        super().__init__()
        channels = (3, 24, 48, 96)
        layers = [
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in pairwise(channels)
        ]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels[-1], WIDTH)

    def forward(self, image: Tensor) -> Tensor:
        """[n, 3, s, s] to [n, WIDTH]."""
        return self.head(self.layers(image).mean(dim=(2, 3)))


class SeriesEncoder(nn.Module):
    """Where in the window something happens counts."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (channels, 48, 64, 64)
        layers = [
            nn.Sequential(nn.Conv1d(a, b, 7, 2, 3), nn.BatchNorm1d(b), nn.ReLU()) for a, b in pairwise(widths)
        ]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(8), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(8 * widths[-1], 128), nn.ReLU(), nn.Linear(128, WIDTH))

    def forward(self, series: Tensor) -> Tensor:
        """[n, channels, time] to [n, WIDTH]."""
        return self.head(self.layers(series))


class Model(nn.Module):
    """An encoder per modality and a learnt temperature per pair."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {"image": ImageEncoder(), "audio": SeriesEncoder(129), "imu": SeriesEncoder(6)}
        )
        self.log_scale = nn.ParameterDict({m: nn.Parameter(torch.tensor(math.log(10.0))) for m in OTHERS})

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Embeddings of unit length, by modality."""
        return {m: functional.normalize(self.encoders[m](x), dim=1) for m, x in inputs.items()}


def inputs_of(batch: Mapping[str, Any], rates: Mapping[str, int], shift_s: float) -> dict[str, Tensor]:
    """What the encoders take: the picture, and the central part of the sound's spectrogram and the IMU."""
    sound = central(batch["audio"], rates["audio"], 0.0)
    spectrum = torch.stft(sound, 256, 160, window=torch.hann_window(256), return_complex=True).abs()
    return {
        "image": batch["image"],
        "audio": torch.log1p(spectrum),
        "imu": central(batch["imu"], rates["imu"], shift_s),
    }


def central(series: Tensor, rate: int, shift_s: float) -> Tensor:
    """``CENTRAL_S`` seconds around a window's centre, moved by ``shift_s``, on the last axis."""
    count = round(CENTRAL_S * rate)
    start = (series.shape[-1] - count) // 2 + round(shift_s * rate)
    if not 0 <= start <= series.shape[-1] - count:
        raise SystemExit("the windows are too short for this shift: write longer ones, or shift less")
    return series[..., start : start + count]


def info_nce(image: Tensor, other: Tensor, scale: Tensor, no_negative: Tensor) -> Tensor:
    """Symmetric InfoNCE over the pairs of a batch, without pairs that are no negatives."""
    logits = (scale * image @ other.T).masked_fill(no_negative, -torch.inf)
    target = torch.arange(len(logits))
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def loss_of(model: Model, batch: Mapping[str, Any], inputs: Mapping[str, Tensor]) -> Tensor:
    """The sum over pairs (image, other), each over the windows that have both."""
    found = model(inputs)
    no_negative = not_negatives(batch["ids"], by=("sample", "picture"))
    losses = []
    for name in OTHERS:
        both = batch["present"]["image"] & batch["present"][name]
        if both.sum() > 1:
            scale = model.log_scale[name].exp().clamp(max=100)
            masked = no_negative[both][:, both]
            losses.append(info_nce(found["image"][both], found[name][both], scale, masked))
    return torch.stack(losses).sum() if losses else found["image"].sum() * 0


def retrieval(model: Model, batches: Iterator[Fed]) -> dict[str, Any]:
    """Recall at 1, 5 and 10 of image to other and back, over all windows that have both, and chance."""
    model.eval()
    with torch.inference_mode():
        embedded = [(batch["present"], model(inputs)) for batch, inputs in batches]
    report: dict[str, Any] = {}
    for name in OTHERS:
        both = [present["image"] & present[name] for present, _ in embedded]
        image = torch.cat([found["image"][b] for b, (_, found) in zip(both, embedded, strict=True)])
        other = torch.cat([found[name][b] for b, (_, found) in zip(both, embedded, strict=True)])
        similarity = image @ other.T
        report[name] = {
            "windows": len(image),
            f"image to {name}": recalls(similarity),
            f"{name} to image": recalls(similarity.T),
            "chance": {f"R@{k}": min(k / len(image), 1.0) for k in (1, 5, 10)},
        }
    return report


def recalls(similarity: Tensor) -> dict[str, float]:
    """Share of the rows whose own column is among the k most similar; ties count against it."""
    better = (similarity >= similarity.diagonal()[:, None]).sum(dim=1)
    return {f"R@{k}": float((better <= k).float().mean()) for k in (1, 5, 10)}


def plot(report: Mapping[str, Any], losses: list[float], path: Path) -> None:
    """Recall against chance, and the course of the loss."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 1 + len(report), figsize=(4 * (1 + len(report)), 3.2), layout="tight")
    for axis, (name, found) in zip(axes, report.items(), strict=False):
        bars = {label: values for label, values in found.items() if label != "windows"}
        for i, (label, values) in enumerate(bars.items()):
            axis.bar([x + 0.27 * i for x in range(3)], values.values(), 0.25, label=label)
        axis.set_xticks([0.27, 1.27, 2.27], ["R@1", "R@5", "R@10"])
        axis.set(ylim=(0, 1), title=f"image and {name}, {found['windows']} windows")
        axis.legend(fontsize=7)
    axes[-1].plot(losses)
    axes[-1].set(title="training loss", xlabel="epoch")
    figure.savefig(path, dpi=120)


def train(model: Model, data: Any, feed: Callable[[Any], Iterator[Fed]], options: Any) -> list[float]:
    """Train to the end, from the checkpoint if there is one; the mean loss of each epoch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.05)
    steps = options.epochs * data.batches(options.workers)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: pace(step / steps))
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    checkpoint, losses = options.results / "checkpoint.pt", list[float]()
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        losses = saved["losses"]
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    started, before = time.monotonic(), len(losses)
    for epoch in range(before, options.epochs):
        data.set_epoch(epoch)
        model.train()
        batches = [step(model, optimizer, schedule, *fed) for fed in feed(data)]
        losses.append(sum(batches) / len(batches))
        passed = time.monotonic() - started
        left = passed / (epoch + 1 - before) * (options.epochs - epoch - 1)
        said = f"epoch {epoch + 1}/{options.epochs}  loss {losses[-1]:.3f}"
        print(f"{said}  {passed:.0f} s, {left:.0f} s to go", flush=True)
        torch.save({name: p.state_dict() for name, p in parts.items()} | {"losses": losses}, checkpoint)
    return losses


def pace(done: float) -> float:
    """Share of the peak learning rate when ``done`` of the training is: up, then half a cosine down."""
    if done < WARM_UP:
        return 0.04 + 0.96 * done / WARM_UP
    return 0.5 + 0.5 * math.cos(math.pi * min((done - WARM_UP) / (1 - WARM_UP), 1.0))


def step(model: Model, optimizer: Any, schedule: Any, batch: Mapping[str, Any], inputs: Any) -> float:
    """One step of gradient descent; the loss before it."""
    loss = loss_of(model, batch, inputs)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    return loss.item()


def main(arguments: list[str] | None = None) -> None:
    """Train, resume where a checkpoint lies, and report."""
    parser = argparse.ArgumentParser(description="Contrastive training on a data set that align wrote.")
    parser.add_argument("out", help="the data set, with splits train and val")
    parser.add_argument("--results", type=Path, default=Path("results"), help="checkpoint, report and plot")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=0, help="loader processes")
    parser.add_argument("--imu-shift", type=float, default=0.0, metavar="SECONDS", help="the control")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)

    wanted = {"modalities": ("image", *OTHERS), "normalise": "train", "batch_size": options.batch_size}
    seen = align.load(options.out, split="train", seed=options.seed, **wanted)
    held_out = align.load(options.out, split="val", shuffle=False, **wanted)
    rates = {m: seen.options[f"{m}_rate"] for m in OTHERS}

    def feed(data: Any) -> Iterator[Fed]:
        for batch in DataLoader(data, batch_size=None, num_workers=options.workers):
            yield batch, inputs_of(batch, rates, options.imu_shift)

    model = Model()
    losses = train(model, seen, feed, options)
    report = retrieval(model, feed(held_out))
    asked = {"imu_shift_s": options.imu_shift, "epochs": options.epochs, "seed": options.seed}
    content = asked | {"retrieval": report, "losses": losses}
    (options.results / "retrieval.json").write_text(json.dumps(content, indent=2) + "\n")
    plot(report, losses, options.results / "retrieval.png")
    for found in report.values():
        for label in (k for k in found if k != "windows"):
            numbers = "  ".join(f"{k} {100 * v:5.1f} %" for k, v in found[label].items())
            print(f"{label:16} {numbers}")


if __name__ == "__main__":
    main()
