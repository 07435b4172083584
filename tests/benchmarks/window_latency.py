#!/usr/bin/env python3
"""How long a picture takes from the training to the window of `beholder view`, and a key from the keyboard to the
picture that it changes; with the CPU time that viewer and training's server take. On a display of its own (Xvfb).

  window_latency.py [--build FOLDER] [--seconds N] [--fps N] [--canvas WxH]

FOLDER (build/release) has tools/beholder and tests/live_run. Needs Xvfb and xdotool. Exit status 1 where a bound is missed.
"""
import argparse
import http.client
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("nothing came within a minute")
        time.sleep(0.02)


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build/release"))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--fps", type=float, default=10)
    parser.add_argument("--canvas", default="1280x720")
    arguments = parser.parse_args()
    children = []
    with tempfile.TemporaryDirectory() as folder:
        logdir, latencies = pathlib.Path(folder, "run"), pathlib.Path(folder, "latencies")
        try:
            reading, writing = os.pipe()
            children.append(subprocess.Popen(
                ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1920x1200x24", "-nolisten", "tcp", "-noreset"],
                pass_fds=[writing], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            os.close(writing)
            env = dict(os.environ, DISPLAY=":" + os.fdopen(reading).readline().strip())
            training = subprocess.Popen([arguments.build / "tests/live_run", "--logdir", logdir, "--fps",
                                         str(arguments.fps), "--canvas", arguments.canvas, "--no-record"],
                                        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            children.append(training)
            live_file = logdir / "plugins/beholder/live.json"
            wait_for(live_file.exists)
            live = json.loads(live_file.read_text())

            def request(method, path, body=None):
                connection = http.client.HTTPConnection(live["address"], live["port"], timeout=30)
                connection.request(method, path, json.dumps(body) if body else None,
                                   {"Authorization": "Bearer " + live["token"], "Content-Type": "application/json"})
                return json.loads(connection.getresponse().read())

            viewer = subprocess.Popen([arguments.build / "tools/beholder", "view", "--latencies", latencies, logdir],
                                      env=env, stderr=subprocess.DEVNULL)
            children.append(viewer)

            def lines():
                rows = [line.split() for line in latencies.read_text().splitlines()] if latencies.exists() else []
                return [(int(r[0]), float(r[1]), float(r[2])) for r in rows if len(r) == 3]

            wait_for(lambda: len(lines()) > 5)
            time.sleep(2)
            first, cpu, begin = len(lines()), cpu_seconds(viewer.pid), time.monotonic()
            time.sleep(arguments.seconds)
            share = (cpu_seconds(viewer.pid) - cpu) / (time.monotonic() - begin)
            server = request("GET", "/state")["counters"]["server_cpu"]
            took = [1000 * (shown - captured) for _, captured, shown in lines()[first:]]
            period = 1000 / arguments.fps
            failed = percentile(took, 0.99) > period + 50 or server > 0.1
            print(f"{len(took)} pictures of {arguments.canvas} at {arguments.fps:g} FPS, from capture to window:")
            print(f"  median {percentile(took, 0.5):.1f} ms, 99th percentile {percentile(took, 0.99):.1f} ms "
                  f"(must: a frame period + 50 ms = {period + 50:.0f} ms)")
            print(f"  viewer {100 * share:.1f} % of a core, the live server {100 * server:.1f} % (must: 10 %)")

            def shown_after(moment):
                return min((shown for _, _, shown in lines() if shown > moment), default=None)

            for name, settings in (("at 0.5 FPS", {"fps": 0.5}), ("paused", {"fps": arguments.fps, "paused": True})):
                request("POST", "/settings", settings)
                time.sleep(3)
                window = subprocess.run(["xdotool", "search", "--onlyvisible", "--name", "Beholder"], env=env,
                                        capture_output=True, text=True).stdout.split()[0]
                subprocess.run(["xdotool", "windowfocus", "--sync", window], env=env)
                took = []
                for key in "ssscccccc" * 5:
                    pressed = time.time()
                    subprocess.run(["xdotool", "key", key], env=env)
                    wait_for(lambda: shown_after(pressed))
                    took.append(1000 * (shown_after(pressed) - pressed))
                    time.sleep(0.2)
                print(f"key to window {name}, the start of xdotool included: median {percentile(took, 0.5):.0f} ms, "
                      f"90th percentile {percentile(took, 0.9):.0f} ms (must: 100 ms)")
                failed = failed or percentile(took, 0.9) > 100
        finally:
            for child in reversed(children):
                child.terminate()
                child.wait()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
