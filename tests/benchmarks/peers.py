#!/usr/bin/env python3
"""What other tools take of the training thread for the parameters of a network, each called after every training step:
TensorBoard's histograms, wandb.watch(log="all") offline, rerun with the tensors, and a numpy renderer of the original's
algorithm. One thread. The network is that of networks.h; steps alone and watched take turns.

  peers.py NETWORK CALLS [TOOL...]    NETWORK: resnet18 or transformer

Prints lines "NETWORK.TOOL.blocked_cpu_ms X" (medians; CPU time of the training thread, which is what it is blocked for
where nobody else uses the machine) and "...blocked_wall_ms X"."""
import os
import shutil
import statistics
import sys
import tempfile
import time

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true", WANDB_CONSOLE="off", RERUN_ANALYTICS="0")

import numpy as np
import torch
from torch import nn

import numpy_renderer


class BasicBlock(nn.Module):
    def __init__(self, width_in, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or width_in != width:
            self.downsample = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (self.downsample(x) if self.downsample else x))


class ResNet18(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        layers, width_in = [], 64
        for width in (64, 128, 256, 512):
            layers += [BasicBlock(width_in, width, 1 if width == width_in else 2), BasicBlock(width, width, 1)]
            width_in = width
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(512, 1000)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(nn.functional.adaptive_avg_pool2d(self.layers(x), 1).flatten(1))


class Training:
    def __init__(self, network):
        torch.manual_seed(0)
        if network == "resnet18":
            self.net = ResNet18()
            images, labels = torch.randn(2, 3, 96, 96), torch.randint(1000, (2,))
            self.loss = lambda: nn.functional.cross_entropy(self.net(images), labels)
        elif network == "transformer":
            layer = nn.TransformerEncoderLayer(128, 4, dim_feedforward=512, dropout=0)
            self.net = nn.TransformerEncoder(layer, 25, enable_nested_tensor=False)
            tokens = torch.randn(32, 2, 128)
            self.loss = lambda: self.net(tokens).square().mean()
        else:
            sys.exit(f"expected resnet18 or transformer, found {network}")
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.001, momentum=0.9)

    def step(self):
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()

    def parameters(self):
        return [(name, parameter.detach()) for name, parameter in self.net.named_parameters()]


def timed(call):
    """CPU and wall time of a call on this thread, in milliseconds."""
    wall, cpu = time.perf_counter(), time.thread_time()
    call()
    return 1e3 * (time.thread_time() - cpu), 1e3 * (time.perf_counter() - wall)


def tell(name, value):
    print(f"{name} {value:.6g}", flush=True)


def tell_blocked(name, times):
    times = times[max(1, len(times) // 5):]  # the first calls open files and warm up
    tell(f"{name}.blocked_cpu_ms", statistics.median(cpu for cpu, _ in times))
    tell(f"{name}.blocked_wall_ms", statistics.median(wall for _, wall in times))


def called_after_steps(training, calls, watch):
    """The times of watch(step), called after each of so many training steps."""
    times = []
    for step in range(calls):
        training.step()
        times.append(timed(lambda: watch(step)))
    return times


def tensorboard(training, calls, folder):
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder)

    def watch(step):
        for name, parameter in training.parameters():
            writer.add_histogram(name, parameter, step)

    times = called_after_steps(training, calls, watch)
    writer.close()
    return times


def wandb(training, calls, folder, network):
    """Its work is in hooks, spread over forward and backward: a watched step against one of a second network, alone."""
    import wandb as w

    run = w.init(project="benchmark", dir=folder, settings=w.Settings(x_disable_stats=True))
    watched = Training(network)
    w.watch(watched.net, log="all", log_freq=1)

    def watched_step():
        watched.step()
        w.log({"loss": 0.0})

    times = []
    for _ in range(calls):
        alone, with_watch = timed(training.step), timed(watched_step)
        times.append((with_watch[0] - alone[0], with_watch[1] - alone[1]))
    run.finish()
    return times


def rerun(training, calls, folder):
    import rerun as rr

    rr.init("benchmark")
    rr.save(os.path.join(folder, "tensors.rrd"))

    def watch(step):
        rr.set_time("step", sequence=step)
        for name, parameter in training.parameters():
            rr.log(name.replace(".", "/"), rr.Tensor(parameter.numpy()))

    times = called_after_steps(training, calls, watch)
    rr.disconnect()
    return times


def numpy_original(training, calls, _):
    """From arrays in the layouts that the original's TensorFlow had: kernels (h, w, in, out), matrices (in, out)."""
    table, times = np.random.default_rng(0).random((256, 3)), []
    for _ in range(calls):
        training.step()
        arrays = [np.ascontiguousarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T)
                  for array in (parameter.numpy() for _, parameter in training.parameters())]
        times.append(timed(lambda: numpy_renderer.frame_of(arrays, table)))
    return times


def main():
    network, calls = sys.argv[1], int(sys.argv[2])
    tools = sys.argv[3:] or ["numpy", "tensorboard", "rerun", "wandb"]
    torch.set_num_threads(1)
    training = Training(network)
    for _ in range(3):
        training.step()
    tell(f"{network}.python_alone.step_ms", statistics.median(timed(training.step)[0] for _ in range(11)))
    tell(f"{network}.tensors", len(training.parameters()))
    calls_of = {"numpy": numpy_original, "tensorboard": tensorboard, "rerun": rerun,
                "wandb": lambda *arguments: wandb(*arguments, network)}
    for tool in tools:
        folder = tempfile.mkdtemp(prefix="beholder-peers-")
        try:
            tell_blocked(f"{network}.{tool}", calls_of[tool](training, calls, folder))
        except ImportError as error:
            print(f"peers.py: {tool} is not measured: {error}", file=sys.stderr)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
