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


class Table:
    def __init__(self):
        self.values, self.failed = {}, 0

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

    def ratio(self, a, b):
        """Of figures that were measured turn by turn: the median of the turns' ratios."""
        pairs = list(zip(self.values[a], self.values[b]))
        if len(self.values[a]) == len(self.values[b]) and len(pairs) > 1:
            return statistics.median(x / y for x, y in pairs)
        return self.get(a) / self.get(b)

    def title(self, text, *columns):
        print(f"\n{text}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")

    def row(self, *cells):
        print("| " + " | ".join(cells) + " |")

    def bound(self, what, value, shown, must, least=False):
        good = value >= must if least else value <= must
        self.failed += not good
        self.row(what, shown, (">= " if least else "<= ") + f"{must:g}", "pass" if good else "**FAIL**")


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
    ratios = {peer: table.ratio(f"{network}.{peer}.blocked_cpu_ms", ours) for peer in PEERS
              if table.has(f"{network}.{peer}.blocked_cpu_ms")}
    if ratios:
        peer = min(ratios, key=ratios.get)
        table.bound(f"{NETWORKS[network]}: best other tool ({peer}) / {WAYS[way]}", ratios[peer], f"{ratios[peer]:.0f} x",
                    40, least=True)


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
            gather = table.ratio(f"{network}.gather_classic_ms", f"{network}.memcpy_classic_ms")
            table.bound(f"{NETWORKS[network]}: gather, original's layout, in the training / memcpy of its values there",
                        gather, f"{gather:.2f} x", 2)
    if table.has("memcpy.gather"):
        gather, render = table.get("memcpy.gather"), table.get("memcpy.render")
        table.row("(ResNet-18, both with warm caches: each twice in a row, the second time)", f"{gather:.2f} x", "", "")
        table.bound("render of the original's picture of ResNet-18 / memcpy of it", render, f"{render:.2f} x", 8)
    core = lambda name: "core." + name
    if table.has(core("render/classic_variance_20")):
        for window in (2, 20):
            ratio = table.ratio(core(f"render/classic_variance_{window}"), core("render/classic_current"))
            table.bound(f"variance over {window} / current", ratio, f"{ratio:.2f} x", 1.5)
    if table.has("parameters.1.gather_us", "parameters.1000.gather_us"):
        for figure in ("gather", "render"):
            slope = (table.get(f"parameters.1000.{figure}_us") / table.get(f"parameters.1.{figure}_us")) ** (1 / 3) - 1
            table.bound(f"{figure}: growth for each tenfold number of parameters", slope, f"{100 * slope:+.1f} %", 0.1)
    for name, what, must in (("free", "a core is free", 0.02), ("busy", "all cores busy", 0.08)):
        if table.has(f"throughput.{name}.ratio"):
            lost = 1 - table.get(f"throughput.{name}.ratio")
            table.bound(f"slow-down of the example, recorder at {table.get(f'throughput.{name}.fps'):.1f} FPS, {what}",
                        lost, f"{100 * lost:+.1f} %", must)
    if table.has("throughput.watched.ratio"):
        kept = table.get("throughput.watched.ratio")
        table.bound(f"the example's speed with film, server and a viewer at {table.get('throughput.watched.fps'):.1f} FPS, "
                    "OpenMP threads = cores", kept, f"{100 * kept:.2f} %", 0.98, least=True)
    for name in table.values:
        for promise in ("overhead", "background"):
            if name.endswith(f".max_{promise}"):
                stem = name[: -len(f".max_{promise}")]
                share, most = table.get(f"{stem}.{promise}"), table.get(name)
                table.bound(f"{stem}: {promise} / max_{promise} ({table.get(stem + '.fps'):.1f} pictures/s)", share / most,
                            f"{share / most:.3f} ({100 * share:.2f} %)", 1.1)
        if name.endswith(".max_host_bytes"):
            stem = name[: -len(".max_host_bytes")]
            grown, most = table.get(stem + ".growth_bytes"), table.get(name)
            table.bound(f"{stem}: growth of the process / max_host_bytes", grown / most,
                        f"{grown / most:.2f} ({grown / 2**20:.0f} MiB)", 1)


def main():
    table = Table()
    table.read_lines(sys.argv[1])
    if len(sys.argv) > 2:
        table.read_core(sys.argv[2])
    for network in NETWORKS:
        if table.has(f"{network}.recorder_10.blocked_cpu_ms"):
            blocked(table, network)
    growth(table)
    bounds(table)
    sys.exit(1 if table.failed else 0)


if __name__ == "__main__":
    main()
