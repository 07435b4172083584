#!/usr/bin/env python3
"""Makes the table of run.sh: run_table.py LINES CORE_JSON, both as compare_table.py reads them. Exit status 1 where a
bound is missed."""
import sys

from compare_table import Table


def main():
    table = Table()
    table.read_lines(sys.argv[1])
    table.read_core(sys.argv[2])
    core = lambda name: table.get("core." + name)

    def beside(what, ours, unit, floor, floor_is, must, least=False):
        scale = {"us": 1, "ms": 1e-3}[unit]
        table.bound(what, [ours / floor], must, f"x {floor_is}", least=least, note=f"{scale * ours:.3g} {unit}")

    table.title("What Beholder costs", "what", "measured", "must", "")
    table.bound("update() when nothing is due", [1e3 * core("update/idle")], 200, "ns", steady=True)
    beside("gather of a due update(), ResNet-18, classic, again and again", core("update/due_classic"), "us",
           core("memcpy/classic_values"), "a memcpy of its values", 3)
    beside("the same, fit 1280 x 720", core("update/due_fit"), "us", core("update/due_classic"), "classic", 0.6)
    whole = table.get("face.classic.cpu_us")
    beside("a whole due update() from outside, real module, classic, caches cold", whole, "us",
           table.get("face.classic.memcpy_us"), "a memcpy that is as cold", 3)
    beside("the same, fit 1280 x 720", table.get("face.fit.cpu_us"), "us", whole, "classic", 0.6)
    render = core("render/classic_current")
    beside("render, classic, current", render, "ms", core("memcpy/classic_picture"), "a memcpy of the picture", 8)
    beside("the same by numpy", 1e3 * table.get("numpy.ms"), "ms", render, "ours", 15, least=True)
    for window in (2, 20):
        beside(f"variance, window {window}", core(f"render/classic_variance_{window}"), "ms", render, "current", 1.5)
    million = {n: core(f"parameters/millions/{n}") for n in (1, 10, 100, 1000)}
    table.bound("capture and render, 1 to 1000 million parameters", [million[1000] / million[1]], 1.3,
                note=", ".join(f"{us:.0f}" for us in million.values()) + " us")
    table.bound("training throughput with recorder at 10 FPS, all cores busy", table.values["throughput.busy.ratio"], 0.92,
                "%", 100, least=True)
    if table.unjudged:
        print(f"\n{table.unjudged} not judged: a quick run.")
    sys.exit(1 if table.failed else 0)


if __name__ == "__main__":
    main()
