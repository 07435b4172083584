#!/usr/bin/env python3
"""The original's renderer (parameters, mode current, scaling per section, classic layout) in numpy, written from its
description: what a frame of ResNet-18 costs there. Prints the median CPU time in milliseconds, "numpy.ms TIME".

Source of the algorithm: chrisranderson/beholder, commit 91771bf."""
import math
import statistics
import sys
import time

import numpy as np

WIDTH, HEIGHT, SEPARATOR = 768, 128, 5


def resnet18(rng):
    """62 tensors in TensorFlow's layouts: kernels (kh, kw, in, out), dense (in, out)."""
    shapes = [(7, 7, 3, 64), (64,), (64,)]
    width_in = 64
    for width in (64, 128, 256, 512):
        for block in range(2):
            shapes += [(3, 3, width_in if block == 0 else width, width), (width,), (width,)]
            shapes += [(3, 3, width, width), (width,), (width,)]
            if block == 0 and width != width_in:
                shapes += [(1, 1, width_in, width), (width,), (width,)]
        width_in = width
    shapes += [(512, 1000), (1000,)]
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def section_matrix(array):
    if array.ndim == 1:
        return array.reshape(1, -1)
    if array.ndim == 2:
        return array
    height, width, blocks, columns = array.shape
    rows = min(blocks, math.ceil(WIDTH // 3 * HEIGHT / (height * width * blocks)) + 1)
    part = array[:, :, :rows, :]
    return part.transpose(2, 0, 3, 1).reshape(rows * height, columns * width)


def nearest(size_in, size_out):
    scale = np.float32(size_in) / np.float32(size_out)
    index = np.floor(np.arange(size_out, dtype=np.float32) * scale).astype(np.int64)
    return np.minimum(index, size_in - 1)


def resized(matrix):
    rows, columns = nearest(matrix.shape[0], HEIGHT), nearest(matrix.shape[1], WIDTH)
    return matrix[rows][:, columns].astype(np.float32)


def scaled(section):
    values = section.astype(np.float64)
    values -= values.min()
    high = values.max()
    return values if high == 0 else values * (255.0 / high)


def frame_of(arrays, table):
    separator = np.zeros((SEPARATOR, WIDTH))
    parts = []
    for array in arrays:
        parts += [scaled(resized(section_matrix(array))), separator]
    gray = np.vstack(parts[:-1]).astype(np.uint8)
    return (table[gray] * 255).astype(np.uint8)


def main():
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    rng = np.random.default_rng(0)
    arrays, table = resnet18(rng), rng.random((256, 3))
    times = []
    for _ in range(frames + 1):
        start = time.thread_time()
        frame = frame_of(arrays, table)
        times.append(time.thread_time() - start)
    assert frame.shape == (62 * (HEIGHT + SEPARATOR) - SEPARATOR, WIDTH, 3)
    print(f"numpy.ms {1e3 * statistics.median(times[1:]):.1f}")


if __name__ == "__main__":
    main()
