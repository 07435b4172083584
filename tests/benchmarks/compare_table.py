#!/usr/bin/env python3
"""Makes the tables of compare.sh: compare_table.py LINES [CORE_JSON]. LINES: "name value", as the programs here tell them;
a name that comes several times is one measured in several turns. Exit status 1 where a bound is missed."""
import json
import statistics
import sys

NETWORKS = {"resnet18": "ResNet-18", "transformer": "transformer, 300 tensors"}
PEERS = {"numpy": "numpy renderer of the original's algorithm", "tensorboard": "TensorBoard add_histogram, parameters",
         "wandb": 'wandb.watch(log="all"), offline', "rerun": "rerun, the tensors"}
WAYS = {"recorder_10": "Beholder, recorder at 10 FPS", "recorder_30": "Beholder, recorder at 30 FPS",
        "live_10": "Beholder, live server with one viewer", "activations_10": "Beholder, activations, recorder at 10 FPS",
        "classic_10": "Beholder, the original's layout, recorder at 10 FPS"}


# What the training thread is blocked for, in ms for each picture: (way, what, aim, {network: must}). `must` is about
# twice what the machine of the README takes, since other machines are slower.
BLOCKED = [("recorder_10", "a due update(), fit", {"resnet18": (0.1, 0.4), "transformer": (0.25, 1.2)}),
           ("activations_10", "activations", {"resnet18": (0.5, 2.0), "transformer": (1.5, 6.0)})]


def digits(value, must, least=2):
    """`value` with as many digits as it takes to see on which side of `must` it lies."""
    for count in range(least, 12):
        text = f"{value:.{count}f}"
        if (float(text) > must, float(text) < must) == (value > must, value < must):
            break
    return text


class Table:
    def __init__(self):
        self.values, self.failed, self.unjudged = {}, 0, 0

    def read_lines(self, path):
        for line in open(path):
            words = line.split()
            if len(words) == 2 and "." in words[0]:
                self.values.setdefault(words[0], []).append(float(words[1]))

    def read_core(self, path):
        for row in json.load(open(path))["benchmarks"]:
            if row.get("run_type") == "iteration":
                unit = {"ns": 1e-3, "us": 1.0, "ms": 1e3}[row["time_unit"]]
                self.values.setdefault("core." + row["run_name"], []).append(row["cpu_time"] * unit)

    def has(self, *names):
        return all(name in self.values for name in names)

    def get(self, name):
        return statistics.median(self.values[name])

    def ratios(self, a, b):
        """Of figures that were measured turn by turn: each turn's."""
        if len(self.values[a]) == len(self.values[b]):
            return [x / y for x, y in zip(self.values[a], self.values[b])]
        return [self.get(a) / self.get(b)]

    def ratio(self, a, b):
        return statistics.median(self.ratios(a, b))

    def title(self, text, *columns):
        print(f"\n{text}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")

    def row(self, *cells):
        print("| " + " | ".join(cells) + " |")

    def bound(self, what, values, must, unit="x", scale=1, least=False, turns=1, steady=False, note=""):
        """`values`: one for each turn; what counts is their median. It is judged where there are `turns` of them at
        least and, unless it is `steady`, the run was no quick one: a single turn may be noise. Shown in `unit`, times
        `scale`."""
        values = sorted(values)
        value = statistics.median(values)
        shown = f"{digits(value * scale, must * scale)} {unit}"
        if len(values) > 1:
            shown += f" ({values[0] * scale:.4g} to {values[-1] * scale:.4g} in {len(values)} turns)"
        if note:
            shown += f"; {note}"
        judged = len(values) >= turns and (steady or not self.has("run.quick"))
        good = value >= must if least else value <= must
        self.failed += judged and not good
        self.unjudged += not judged
        self.row(what, shown, f"{'>=' if least else '<='} {must * scale:g} {unit}",
                 ("pass" if good else "**FAIL**") if judged else "not judged")


def milliseconds(value):
    return f"{value:.3f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def blocked(table, network):
    table.title(f"What the training thread is blocked for, {NETWORKS[network]}, in ms for each picture or call",
                "what", "CPU time", "wall time", "x Beholder")
    ours = f"{network}.recorder_10.blocked_cpu_ms"

    def line(name, what):
        cpu, wall = f"{network}.{name}.blocked_cpu_ms", f"{network}.{name}.blocked_wall_ms"
        if table.has(cpu):
            table.row(what, milliseconds(table.get(cpu)), milliseconds(table.get(wall)), f"{table.ratio(cpu, ours):.2g}"
                      if table.ratio(cpu, ours) < 10 else f"{table.ratio(cpu, ours):.0f}")

    for name, what in (("alone", "(the training step alone, C++)"), ("python_alone", "(the training step alone, Python)")):
        if table.has(f"{network}.{name}.step_ms"):
            table.row(what, milliseconds(table.get(f"{network}.{name}.step_ms")), "", "")
    for name, what in {**WAYS, **PEERS}.items():
        line(name, what)
    for name, what in (("gather_fit_ms", "(the gather of the values alone, right after a training step)"),
                       ("memcpy_fit_ms", "(a memcpy of as many, right after a training step)"),
                       ("gather_classic_ms", "(the gather of the original's layout)"),
                       ("memcpy_classic_ms", "(a memcpy of as many)")):
        table.row(what, milliseconds(table.get(f"{network}.{name}")), "", "")


def best_peer(table, network, way):
    ours = f"{network}.{way}.blocked_cpu_ms"
    peers = [peer for peer in PEERS if table.has(f"{network}.{peer}.blocked_cpu_ms")]
    if peers:
        ratios = {peer: table.ratios(f"{network}.{peer}.blocked_cpu_ms", ours) for peer in peers}
        peer = min(peers, key=lambda peer: statistics.median(ratios[peer]))
        table.bound(f"{NETWORKS[network]}: best other tool ({peer}) / {WAYS[way]}", ratios[peer], 40, least=True, turns=3)


def growth(table):
    table.title("How it grows, in us of CPU time", "what", "gather", "render", "values shown")
    names = {"parameters": "million parameters", "tensors": "tensors (10 million parameters)",
             "canvas": "pixels high (ResNet-18, 16:9)", "window_fit": "pictures of variance (ResNet-18, fit)",
             "window_classic": "pictures of variance (ResNet-18, classic)"}
    for name in table.values:
        group, variant, figure = (name.split(".") + ["", ""])[:3]
        if group in names and figure == "gather_us":
            stem = f"{group}.{variant}"
            what = f"{variant} {names[group]}" if variant != "current" else f"current ({names[group].split('(')[1]}"
            table.row(what, f"{table.get(name):.1f}", f"{table.get(stem + '.render_us'):.0f}",
                      f"{table.get(stem + '.values'):.0f}")


def bounds(table):
    table.title("Bounds", "what", "measured", "must", "")
    for network in NETWORKS:
        if table.has(f"{network}.recorder_10.blocked_cpu_ms"):
            best_peer(table, network, "recorder_10")
            best_peer(table, network, "classic_10")
            table.bound(f"{NETWORKS[network]}: gather, original's layout, in the training / memcpy of its values there",
                        table.ratios(f"{network}.gather_classic_ms", f"{network}.memcpy_classic_ms"), 2, turns=3)
            for way, what, figures in BLOCKED:
                aim, must = figures[network]
                table.bound(f"{NETWORKS[network]}: {what}, CPU time for each picture (aim: {aim} ms)",
                            table.values[f"{network}.{way}.blocked_cpu_ms"], must, "ms", turns=3)
    if table.has("memcpy.gather"):
        gather = table.get("memcpy.gather")
        table.row("(ResNet-18, both with warm caches: each twice in a row, the second time)", f"{gather:.2f} x", "", "")
        table.bound("render of the original's picture of ResNet-18 / memcpy of it", table.values["memcpy.render"], 8)
    core = lambda name: "core." + name
    if table.has(core("render/classic_variance_20")):
        for window in (2, 20):
            ratio = table.get(core(f"render/classic_variance_{window}")) / table.get(core("render/classic_current"))
            table.bound(f"variance over {window} / current", [ratio], 1.5)
    if table.has("parameters.1.gather_us", "parameters.1000.gather_us"):
        for figure in ("gather", "render"):
            slope = (table.get(f"parameters.1000.{figure}_us") / table.get(f"parameters.1.{figure}_us")) ** (1 / 3) - 1
            table.bound(f"{figure}: growth for each tenfold number of parameters", [slope], 0.1, "%", 100)
    for name, what, must in (("free", "a core is free", 0.02), ("busy", "all cores busy", 0.08)):
        if table.has(f"throughput.{name}.ratio"):
            table.bound(f"slow-down of the example, recorder at {table.get(f'throughput.{name}.fps'):.1f} FPS, {what}",
                        [1 - ratio for ratio in table.values[f"throughput.{name}.ratio"]], must, "%", 100)
    if table.has("throughput.watched.ratio"):
        table.bound(f"the example's speed with film, server and a viewer at {table.get('throughput.watched.fps'):.1f} FPS, "
                    "OpenMP threads = cores", table.values["throughput.watched.ratio"], 0.98, "%", 100, least=True, turns=5)
    for values, what in (("activations", "activations of batches and sequences of random length"),
                         ("arrays", "arrays of random length")):
        if table.has(f"shapes.{values}"):
            table.bound(f"{what}: pictures / those wished", table.values[f"shapes.{values}"], 0.9, "%", 100, least=True)
    for name in list(table.values):
        for promise in ("overhead", "background"):
            if name.endswith(f".max_{promise}"):
                stem = name[: -len(f".max_{promise}")]
                share, most = table.get(f"{stem}.{promise}"), table.get(name)
                table.bound(f"{stem}: {promise} / max_{promise} ({table.get(stem + '.fps'):.1f} pictures/s)", [share / most],
                            1.1, note=f"{100 * share:.2f} %", steady=True)
        if name.endswith(".max_host_bytes"):
            stem = name[: -len(".max_host_bytes")]
            grown, most = table.get(stem + ".growth_bytes"), table.get(name)
            table.bound(f"{stem}: growth of the process / max_host_bytes", [grown / most], 1,
                        note=f"{grown / 2**20:.0f} MiB", steady=True)


def main():
    table = Table()
    table.read_lines(sys.argv[1])
    if len(sys.argv) > 2:
        table.read_core(sys.argv[2])
    for network in NETWORKS:
        if table.has(f"{network}.recorder_10.blocked_cpu_ms"):
            blocked(table, network)
    if any(name.endswith(".gather_us") for name in table.values):
        growth(table)
    bounds(table)
    if table.unjudged:
        print(f"\n{table.unjudged} not judged: too few turns, or a quick run.")
    sys.exit(1 if table.failed else 0)


if __name__ == "__main__":
    main()
