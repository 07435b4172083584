#!/usr/bin/env python3
"""The real window of `beholder view`, on a display of its own (Xvfb), with a real training: keys and the mouse come
from xdotool; what they did is read from the live server and from screenshots.

  window_test.py --beholder PROGRAM --live-run PROGRAM --watch-run PROGRAM --out FOLDER [--short | --all]

Exit status 77 where Xvfb, xdotool or ImageMagick's import is missing. Screenshots stay in FOLDER.
"""
import argparse
import ctypes
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

SKIPPED = 77
PATIENCE_S = 30  # generous: the machine may be busy
STATUS_HEIGHT = 24  # of the viewer's status line, at its normal scale
NOTES_HEIGHT = 120  # above it: where notes and the hint stand
AMBER, BRIGHT = (240, 180, 80), (235, 235, 240)  # of text


def wait_for(what, condition, seconds=PATIENCE_S):
    """The condition's first true value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def check(condition, what):
    if not condition:
        raise AssertionError(what)


class Display:
    """An X server on a free display number."""

    def __init__(self):
        reading, writing = os.pipe()
        self.process = subprocess.Popen(
            ["Xvfb", "-displayfd", str(writing), "-screen", "0", "2800x1700x24", "-nolisten", "tcp",
             "-noreset"],  # it would be away for a moment each time its last client goes
            pass_fds=[writing], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(writing)
        with os.fdopen(reading) as number:
            self.name = ":" + number.readline().strip()
        check(self.name != ":", "Xvfb did not start")

    def environment(self, **more):
        env = dict(os.environ, DISPLAY=self.name, **more)
        for name in ("WAYLAND_DISPLAY", "QT_QPA_PLATFORM", "BEHOLDER_VIEWER"):
            if name not in more:
                env.pop(name, None)
        return env

    def xdotool(self, *arguments):
        done = subprocess.run(["xdotool", *map(str, arguments)], env=self.environment(), capture_output=True, text=True)
        return done.stdout

    def windows(self, title):
        """Ids of visible windows with this in their title."""
        return self.xdotool("search", "--onlyvisible", "--name", title).split()

    def ask_to_close(self, window):
        """What a window manager sends when the close button is clicked (WM_DELETE_WINDOW)."""
        x = ctypes.CDLL("libX11.so.6")
        x.XOpenDisplay.restype = ctypes.c_void_p
        x.XInternAtom.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
        x.XInternAtom.restype = ctypes.c_ulong
        x.XSendEvent.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
        x.XCloseDisplay.argtypes = [ctypes.c_void_p]

        class ClientMessage(ctypes.Structure):
            _fields_ = [("type", ctypes.c_int), ("serial", ctypes.c_ulong), ("send_event", ctypes.c_int),
                        ("display", ctypes.c_void_p), ("window", ctypes.c_ulong), ("message_type", ctypes.c_ulong),
                        ("format", ctypes.c_int), ("data", ctypes.c_long * 5), ("padding", ctypes.c_long * 24)]

        connection = x.XOpenDisplay(self.name.encode())
        check(connection, "cannot connect to Xvfb")
        event = ClientMessage(type=33, window=int(window), format=32,
                              message_type=x.XInternAtom(connection, b"WM_PROTOCOLS", 0))
        event.data[0] = x.XInternAtom(connection, b"WM_DELETE_WINDOW", 0)
        x.XSendEvent(connection, int(window), 0, 0, ctypes.byref(event))
        x.XCloseDisplay(connection)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(PATIENCE_S)


class Program:
    """A child whose output is collected."""

    started = []  # all of them

    def __init__(self, command, **options):
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, **options)
        Program.started.append(self)
        self.lines = []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def said(self, part):
        return [line for line in self.lines if part in line]

    def is_running(self):
        return self.process.poll() is None

    def ended(self):
        """Its exit status."""
        status = self.process.wait(PATIENCE_S)
        self.reader.join(5)
        return status

    def finish(self):
        """Closes its standard input: trainings end then."""
        self.process.stdin.close()
        return self.ended()

    def stop(self):
        if self.is_running():
            self.process.kill()
            self.process.wait()


class Training(Program):
    """live_run or watch_run, and its live server."""

    def __init__(self, command, logdir, **options):
        super().__init__(command, **options)
        self.directory = pathlib.Path(logdir, "plugins", "beholder")
        path = self.directory / "live.json"

        def live():
            check(self.is_running(), f"the training ended: {self.lines}")
            try:
                found = json.loads(path.read_text())
            except (OSError, ValueError):
                return None
            return found if found["pid"] == self.process.pid else None

        self.live = wait_for("live.json of the training", live)

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.live["address"], self.live["port"], timeout=PATIENCE_S)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None,
                               {"Authorization": "Bearer " + self.live["token"], "Content-Type": "application/json"})
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def state(self):
        return json.loads(self.request("GET", "/state")[1])

    def settings(self):
        return self.state()["settings"]

    def set(self, **settings):
        response, body = self.request("POST", "/settings", settings)
        check(response.status == 200, body)

    def picture(self):
        """Width, height, RGB bytes of the newest picture."""
        response, body = self.request("GET", "/frame?format=raw")
        return int(response.headers["X-Beholder-Width"]), int(response.headers["X-Beholder-Height"]), body

    def goes_on(self):
        before = self.state()["counters"]["updates"]
        wait_for("the training goes on", lambda: self.state()["counters"]["updates"] > before + 5)


class Shot:
    """A screenshot: rows of RGB bytes."""

    def __init__(self, display, window, path):
        subprocess.run(["import", "-silent", "-window", window, str(path)], env=display.environment(), check=True)
        raw = subprocess.run(["convert", str(path), "-depth", "8", "ppm:-"], check=True, capture_output=True).stdout
        header = raw.split(b"\n", 3)
        self.width, self.height = map(int, header[1].split())
        self.pixels = header[3]

    def rows(self, top, bottom):
        return self.pixels[3 * self.width * top:3 * self.width * bottom]

    def picture(self):
        """Without the status line and the notes above it."""
        return self.rows(0, self.height - STATUS_HEIGHT - NOTES_HEIGHT)

    def status(self):
        return self.rows(self.height - STATUS_HEIGHT, self.height)

    def box(self, left, top, width, height):
        return b"".join(self.pixels[3 * (y * self.width + left):3 * (y * self.width + left + width)]
                        for y in range(top, top + height))

    def hint(self):
        """Where "h for help" stands."""
        return self.box(self.width - 110, self.height - STATUS_HEIGHT - 40, 105, 36)

    def pixel(self, x, y):
        at = 3 * (y * self.width + x)
        return tuple(self.pixels[at:at + 3])


def brightness(pixels):
    return sum(pixels) / max(1, len(pixels))


def count_near(pixels, color):
    r, g, b = pixels[0::3], pixels[1::3], pixels[2::3]
    return sum(1 for p in zip(r, g, b) if all(abs(a - c) < 12 for a, c in zip(p, color)))


class Viewer(Program):
    def __init__(self, programs, display, *arguments, cwd=None):
        super().__init__([programs.beholder.resolve(), "view", *arguments], env=display.environment(), cwd=cwd)
        self.display, self.out, self.shots = display, programs.out, 0
        self.window = wait_for("a window", lambda: (check(self.is_running(), self.lines),
                                                    display.windows("Beholder"))[1])[0]
        self.focus()

    def focus(self):
        self.display.xdotool("windowfocus", "--sync", self.window)

    def key(self, name):
        self.display.xdotool("key", "--clearmodifiers", name)

    def shot(self, name=""):
        self.shots += 1
        path = self.out / f"{name or 'now'}.png"
        return Shot(self.display, self.window, path)

    def shows(self, what, condition, name="", seconds=PATIENCE_S):
        """Waits for a screenshot for which the condition holds."""
        found = []

        def look():
            shot = self.shot(name)
            if condition(shot):
                found.append(shot)
            return found

        wait_for(f"the window shows {what}", look, seconds)
        return found[0]

    def resize(self, width, height):
        self.display.xdotool("windowsize", self.window, width, height)
        return self.shows("its new size", lambda s: (s.width, s.height) == (width, height))

    def place(self):
        text = self.display.xdotool("getwindowgeometry", "--shell", self.window)
        values = dict(line.split("=") for line in text.split() if "=" in line)
        return int(values["X"]), int(values["Y"])

    def mouse(self, x, y):
        left, top = self.place()
        self.display.xdotool("mousemove", left + x, top + y)

    def click(self):
        self.display.xdotool("click", 1)


X_NAMES = {"[": "bracketleft", "]": "bracketright", "+": "plus", "=": "equal", "-": "minus", "_": "underscore",
           "<": "less", ">": "greater", ",": "comma", ".": "period", "?": "question", "Esc": "Escape", "left": "Left",
           "right": "Right", "up": "Up", "down": "Down"}


def has_picture(shot):
    return brightness(shot.picture()) > 40


def film_grows(training):
    wait_for("some frames in the film", lambda: training.state()["counters"]["rendered"] > 12)


def film_is_whole(training):
    films = sorted(training.directory.glob("video-*.mp4"))
    check(films, "there is a film")
    done = subprocess.run(["ffprobe", "-v", "error", "-count_frames", "-select_streams", "v", "-show_entries",
                           "stream=nb_read_frames", "-of", "csv=p=0", str(films[-1])], capture_output=True, text=True)
    check(done.returncode == 0 and not done.stderr, f"ffprobe reads the film: {done.stderr}")
    check(int(done.stdout.strip().strip(",")) > 3, f"the film has frames: {done.stdout}")


# ---- the tests: each gets the programs, a display and an empty logdir


def live_run(programs, logdir, *options):
    return Training([programs.live_run, "--logdir", logdir, *options], logdir)


def waits_shows_ends_and_comes_back(programs, display, logdir):
    viewer = Viewer(programs, display, logdir)
    waiting = viewer.shows("a text while there is no run", lambda s: 2 < brightness(s.picture()) < 40, "waiting")
    training = live_run(programs, logdir)
    viewer.shows("a picture", has_picture, "first")
    wait_for("the run in the title", lambda: display.windows(pathlib.Path(logdir).name + " - Beholder"))
    check(waiting.picture() != viewer.shot().picture(), "the picture replaces the text")
    moving = viewer.shot().picture()
    viewer.shows("moving pictures", lambda s: s.picture() != moving)
    check(training.finish() == 0, "the training ends well")
    ended = viewer.shows("that the run ended", lambda s: count_near(
        s.rows(s.height - STATUS_HEIGHT - 50, s.height - STATUS_HEIGHT), AMBER) > 100, "ended")
    check(has_picture(ended), "the last picture stays")
    check(viewer.is_running(), "the viewer stays")
    again = live_run(programs, logdir)
    wait_for("the viewer at the new run", lambda: again.state()["counters"]["viewers"] >= 1)
    viewer.shows("the new run", lambda s: has_picture(s) and s.picture() != ended.picture())
    viewer.key("q")
    check(viewer.ended() == 0, "q ends the viewer")
    again.goes_on()
    film_grows(again)
    check(again.finish() == 0, "the training ends well")
    film_is_whole(again)


def every_key(programs, display, logdir):
    """While paused: what changes on the screen, a key did it."""
    training = live_run(programs, logdir)
    viewer = Viewer(programs, display, logdir)
    first = viewer.shows("a picture and the hint", lambda s: has_picture(s) and count_near(s.hint(), BRIGHT) > 10)
    viewer.mouse(1279, 725)

    # h: help over a dimmed picture that still moves, and the first hint goes.
    viewer.key("h")
    helped = viewer.shows("help", lambda s: brightness(s.picture()) < 0.6 * brightness(first.picture()) and
                          count_near(s.picture(), AMBER) > 200, "help")
    check(count_near(helped.hint(), BRIGHT) < 10, "the hint goes when help was asked for")
    viewer.shows("a moving picture under the help", lambda s: s.box(0, 30, 60, 400) != helped.box(0, 30, 60, 400))
    viewer.key("question")
    viewer.shows("no help", lambda s: brightness(s.picture()) > 0.9 * brightness(first.picture()))

    viewer.key("space")
    wait_for("paused", lambda: training.settings()["paused"])
    time.sleep(0.5)  # a picture that was on its way
    paused = viewer.shot("paused")
    check(count_near(paused.rows(paused.height - 64, paused.height - 24), BRIGHT) > 50, "it says paused")
    time.sleep(0.5)
    check(viewer.shot().picture() == paused.picture(), "a paused picture stands still")

    unseen = {"paused", "fps", "recording", "window_size"}  # in the picture; the first three are seen below it
    done = {"help", "quit", "paused", "reset"}
    controls = [c for c in training.state()["controls"] if c["bindings"] and c["name"] not in done]
    in_solo = {"next", "zoom", "pan"}
    presses = 0

    def press(control, binding, before_settings):
        nonlocal presses
        before = viewer.shot()
        viewer.key(X_NAMES.get(binding["key"], binding["key"]))
        presses += 1
        what = f"key {binding['key']} ({control['name']})"
        if control["name"] == "snapshot":
            wait_for(what, lambda: list(training.directory.glob("picture-*.png")))
            return
        name = control["name"]
        keys = {"next": ["solo"], "solo_toggle": ["solo"], "pan": ["pan_x", "pan_y"]}.get(name, [name])
        wait_for(what, lambda: any(training.settings()[k] != before_settings[k] for k in keys))
        wait_for(what + ": no more waiting", lambda: not training.state()["waiting"])
        if control["name"] not in unseen:
            viewer.shows(what, lambda s: s.picture() != before.picture(), "key-" + control["name"])
        elif control["name"] != "window_size":
            viewer.shows(what, lambda s: s.status() != before.status(), "key-" + control["name"])

    for control in controls:
        if control["name"] in in_solo:
            continue
        for binding in sorted(control["bindings"], key=lambda b: -b["direction"]):
            if control["name"] == "info":
                training.set(solo="")  # captions tell more where there is room
            press(control, binding, training.settings())
        training.request("POST", "/action", {"control": "reset"})
        training.set(paused=True)
        wait_for("reset", lambda: training.settings()["solo"] == "" and not training.state()["waiting"])
        time.sleep(0.3)

    training.set(solo="entry.weight")
    wait_for("solo", lambda: not training.state()["waiting"])
    time.sleep(0.3)
    for control in sorted((c for c in controls if c["name"] in in_solo), key=lambda c: c["name"] == "next"):
        if control["name"] == "pan":
            training.set(zoom=8, pan_x=0.5, pan_y=0.5)
            wait_for("zoomed", lambda: not training.state()["waiting"])
            time.sleep(0.3)
        for binding in sorted(control["bindings"], key=lambda b: -b["direction"]):
            press(control, binding, training.settings())
        if control["name"] == "pan":
            training.set(zoom=1)
            time.sleep(0.3)
    check(presses >= 20, f"{presses} keys")

    # Shift and caps lock do not matter; Ctrl is another key.
    before = training.settings()["colormap"]
    viewer.key("shift+c")
    wait_for("C like c", lambda: training.settings()["colormap"] != before)
    before = training.settings()["colormap"]
    viewer.key("ctrl+c")
    time.sleep(0.5)
    check(training.settings()["colormap"] == before, "Ctrl and a key do nothing")

    training.set(colormap="gray", mode="variance", solo="conv1.weight")
    viewer.key("Escape")
    wait_for("Esc resets", lambda: training.settings() == training.state()["defaults"])
    viewer.key("q")
    check(viewer.ended() == 0, "q ends the viewer")
    training.goes_on()
    film_grows(training)
    check(training.finish() == 0, "the training ends well")
    film_is_whole(training)


def mouse(programs, display, logdir):
    training = live_run(programs, logdir, "--fps", 4)
    viewer = Viewer(programs, display, logdir)
    viewer.shows("a picture", has_picture)
    sections = training.state()["picture"]["sections"]
    section = next(s for s in sections if s["name"] == "conv2.weight")
    left, top, width, height = section["picture"]
    training.set(paused=True)
    time.sleep(0.5)
    viewer.mouse(1279, 725)
    plain = viewer.shot()
    x, y = left + width // 3 + 7, top + height // 3 + 7  # not in a gap between kernels
    viewer.mouse(x, y)
    hover = viewer.shows("the section's numbers and the value under the mouse",
                         lambda s: s.picture() != plain.picture() and count_near(s.box(x, y, 500, 240), AMBER) > 8,
                         "hover")
    check(hover.pixel(left - 2, top + height // 2) == (255, 255, 255), "the section is outlined")
    viewer.click()
    wait_for("a click shows the section alone", lambda: training.settings()["solo"] == "conv2.weight")
    viewer.shows("the section alone", lambda s: s.picture() != hover.picture(), "solo")
    wait_for("solo is there", lambda: len(training.state()["picture"]["sections"]) == 1)
    viewer.click()
    wait_for("another click goes back", lambda: training.settings()["solo"] == "")
    check(viewer.is_running(), "the viewer runs")
    viewer.key("q")
    viewer.ended()
    training.finish()


def resizing(programs, display, logdir):
    training = live_run(programs, logdir)
    viewer = Viewer(programs, display, logdir)
    viewer.shows("a picture", has_picture)
    training.set(paused=True)
    time.sleep(0.7)
    viewer.mouse(1279, 725)
    viewer.key("h")
    viewer.key("h")  # the hint goes
    width, height, rgb = training.picture()
    section = next(s for s in training.state()["picture"]["sections"] if s["name"] == "middle.0.weight")
    left, top, w, h = section["picture"]

    def source(x, y):
        at = 3 * ((top + y) * width + left + x)
        return tuple(rgb[at:at + 3])

    # Pixel for pixel where the window has the picture's size.
    shot = viewer.shows("the picture as it is", lambda s: s.pixel(left, top) == source(0, 0))
    check((shot.width, shot.height) == (width, 702 + STATUS_HEIGHT), "a fresh window has the picture's size")
    for y in range(0, h, 7):
        for x in range(0, w, 7):
            check(shot.pixel(left + x, top + y) == source(x, y), f"pixel {x}, {y}")
    # Twice as large: sharp, every pixel is four. The status line's text grows with the window.
    viewer.resize(2 * width + 10, 2 * (702 + STATUS_HEIGHT) + 12)
    x0, y0 = 5, 6

    def is_doubled(s):
        return all(s.pixel(x0 + 2 * (left + x) + i, y0 + 2 * (top + y) + j) == source(x, y)
                   for x in range(0, w, 9) for y in range(0, h, 9) for i in (0, 1) for j in (0, 1))

    viewer.shows("every pixel as four equal ones", is_doubled, "large")
    # Smaller: averaged, in its shape, bars left and right or above and below.
    for size in ((640, 726), (1280, 300)):
        shot = viewer.resize(*size)
        scale = min(size[0] / width, (size[1] - STATUS_HEIGHT) / 702)
        x0 = (size[0] - round(width * scale)) // 2
        y0 = (size[1] - STATUS_HEIGHT - round(702 * scale)) // 2

        def agrees(s):
            got = s.box(round(x0 + left * scale) + 2, round(y0 + top * scale) + 2, round(w * scale) - 4,
                        round(h * scale) - 4)
            want = b"".join(rgb[3 * ((top + y) * width + left):3 * ((top + y) * width + left + w)] for y in range(h))
            return all(abs(brightness(got[k::3]) - brightness(want[k::3])) < 6 for k in range(3))

        viewer.shows(f"the picture in its shape at {size}", agrees, f"small-{size[0]}x{size[1]}")
    viewer.resize(90, 60)  # absurd sizes do no harm
    viewer.resize(1280, 726)
    viewer.shows("the picture again", has_picture)
    viewer.key("q")
    check(viewer.ended() == 0, "the viewer ends well")
    training.finish()


def slow_pictures_and_pause_answer_at_once(programs, display, logdir):
    training = live_run(programs, logdir, "--fps", 0.5)
    log = programs.out / "latencies.txt"
    viewer = Viewer(programs, display, "--latencies", log, logdir)
    viewer.shows("a picture", has_picture)

    def shown_after(moment):
        times = [float(line.split()[2]) for line in log.read_text().splitlines() if len(line.split()) == 3]
        return min((t for t in times if t > moment), default=None)

    for paused in (False, True):
        training.set(paused=paused)
        time.sleep(2.5)  # a picture that was on its way
        before = viewer.shot()
        took = []
        for key in "sscccsscccc":
            pressed = time.time()
            viewer.key(key)
            took.append(wait_for(f"a picture after key {key}", lambda: shown_after(pressed)) - pressed)
            time.sleep(0.3)
        took.sort()
        how = "paused" if paused else "0.5 FPS"
        print(f"   {how}: from key to window {1000 * took[len(took) // 2]:.0f} ms (median)")
        # Without an answer of its own, a key would wait a second on average for the next picture, or for ever.
        check(took[len(took) // 2] < 0.5, f"keys do not wait for the next picture: {took}")
        viewer.shows("other colours", lambda s: s.picture() != before.picture())
        before = viewer.shot()
        viewer.key("v")
        viewer.shows("other values after the next update", lambda s: s.picture() != before.picture(), seconds=10)
        training.set(values="parameters")
    viewer.key("q")
    viewer.ended()
    training.finish()


def a_killed_viewer_and_a_closed_window(programs, display, logdir):
    training = live_run(programs, logdir)
    viewer = Viewer(programs, display, logdir)
    viewer.shows("a picture", has_picture)
    viewer.process.kill()
    viewer.ended()
    training.goes_on()
    viewer = Viewer(programs, display, logdir)
    viewer.shows("a picture", has_picture)
    display.ask_to_close(viewer.window)
    check(viewer.ended() == 0, "the close button ends the viewer well")
    training.goes_on()
    film_grows(training)
    check(training.finish() == 0, "the training ends well")
    film_is_whole(training)


def no_display(programs, display, logdir):
    for environment in ({}, {"DISPLAY": ":4093"}):
        env = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
        done = subprocess.run([programs.beholder, "view", logdir], env=dict(env, **environment), capture_output=True,
                              text=True, timeout=PATIENCE_S)
        check(done.returncode == 1, f"exit status {done.returncode}")
        check(done.stderr.count("\n") == 1 and "no display" in done.stderr, done.stderr)
    done = subprocess.run([programs.beholder, "view", "https://localhost/"], env=display.environment(),
                          capture_output=True, text=True, timeout=PATIENCE_S)
    check(done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr)


def by_url(programs, display, logdir):
    training = live_run(programs, logdir)
    live = training.live
    viewer = Viewer(programs, display, f"http://localhost:{live['port']}/?token={live['token']}")
    viewer.shows("a picture", has_picture)
    check(training.finish() == 0, "the training ends well")
    viewer.shows("that nobody answers", lambda s: count_near(
        s.rows(s.height - STATUS_HEIGHT - 50, s.height - STATUS_HEIGHT), AMBER) > 100, "url-ended")
    viewer.key("q")
    check(viewer.ended() == 0, "q ends the viewer")


def without_an_argument(programs, display, logdir):
    parent = pathlib.Path(logdir).parent
    viewer = Viewer(programs, display, cwd=parent)
    viewer.shows("a text while there is no run", lambda s: 2 < brightness(s.picture()) < 40)
    training = live_run(programs, str(parent / "runs" / "deeper" / "one"))
    viewer.shows("the newest run below ./runs", has_picture)
    wait_for("the run in the title", lambda: display.windows("one - Beholder"))
    viewer.key("q")
    check(viewer.ended() == 0, "q ends the viewer")
    training.finish()


def children_of(pid):
    return subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True).stdout.strip()


def watch_run(programs, logdir, environment):
    return Training([programs.watch_run, logdir], logdir, env=environment)


def watch_opens_a_window(programs, display, logdir):
    training = watch_run(programs, logdir, display.environment())
    window = wait_for("a window", lambda: display.windows("Beholder"))[0]
    command = children_of(training.process.pid)
    check(" view --pid " in command and training.live["token"] not in command, command)
    wait_for("the viewer's first picture", lambda: training.state()["counters"]["viewers"] >= 1)
    # Ctrl-C in the training's terminal does not reach it: it is in another session.
    child = int(command.split()[0])
    check(os.getsid(child) == child, "a session of its own")
    display.ask_to_close(window)
    wait_for("no child is left, dead or alive", lambda: not children_of(training.process.pid))
    training.goes_on()
    film_grows(training)
    check(training.finish() == 0, "the training ends well")
    check(not training.said("window:"), f"nothing is said about a window that was closed: {training.lines}")
    film_is_whole(training)


def watch_ends_its_window(programs, display, logdir):
    training = watch_run(programs, logdir, display.environment())
    wait_for("a window", lambda: display.windows("Beholder"))
    child = int(children_of(training.process.pid).split()[0])
    film_grows(training)
    check(training.finish() == 0, "the training ends well")
    check(not os.path.exists(f"/proc/{child}"), "the viewer is gone")
    film_is_whole(training)


def watch_survives_its_display(programs, display, logdir):
    mine = Display()
    try:
        training = watch_run(programs, logdir, mine.environment())
        wait_for("a window", lambda: mine.windows("Beholder"))
        wait_for("the viewer's first picture", lambda: training.state()["counters"]["viewers"] >= 1)
        mine.stop()
        wait_for("one line about it", lambda: training.said("window:"))
        training.goes_on()
        film_grows(training)
        check(training.finish() == 0, "the training ends well")
        check(len(training.said("window:")) == 1, training.said("window:"))
        film_is_whole(training)
    finally:
        mine.stop()


def watch_without_a_viewer(programs, display, logdir):
    training = watch_run(programs, logdir, display.environment(BEHOLDER_VIEWER="/nowhere/beholder"))
    wait_for("one line about it", lambda: training.said("window:"))
    training.goes_on()
    film_grows(training)
    check(training.finish() == 0, "the training ends well")
    check(len(training.said("window:")) == 1 and training.said("/nowhere/beholder"), training.lines)
    film_is_whole(training)


def watch_without_a_display(programs, display, logdir):
    env = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    training = watch_run(programs, logdir, env)
    training.goes_on()
    film_grows(training)
    check(training.finish() == 0, "the training ends well")
    check(not training.said("window:"), training.lines)
    check(training.said("http://") and training.said("ssh "), f"page and tunnel in the log: {training.lines}")
    film_is_whole(training)


SHORT = [no_display, waits_shows_ends_and_comes_back, mouse, watch_opens_a_window, watch_without_a_viewer]
LONG = [every_key, resizing, slow_pictures_and_pause_answer_at_once, a_killed_viewer_and_a_closed_window, by_url,
        without_an_argument, watch_ends_its_window, watch_survives_its_display,
        watch_without_a_display]


def main():
    parser = argparse.ArgumentParser()
    for name in ("beholder", "live-run", "watch-run", "out"):
        parser.add_argument("--" + name, required=True, type=pathlib.Path)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--only", help="the tests whose names have this in them")
    programs = parser.parse_args()
    programs.out.mkdir(parents=True, exist_ok=True)
    missing = [name for name in ("Xvfb", "xdotool", "import", "convert", "ffprobe", "ps") if not shutil.which(name)]
    if missing:
        print("skipped: missing " + ", ".join(missing))
        return SKIPPED
    tests = SHORT + LONG if programs.all or programs.only else SHORT
    failures = 0
    display = Display()
    try:
        for test in tests:
            if programs.only and programs.only not in test.__name__:
                continue
            begin = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                try:
                    test(programs, display, str(pathlib.Path(folder, "a_run")))
                    result = "ok"
                except Exception as error:  # the next tests run all the same
                    failures += 1
                    result = f"FAILED: {type(error).__name__}: {error}"
                finally:
                    while Program.started:  # what a failed test left running
                        Program.started.pop().stop()
            print(f"{test.__name__.replace('_', ' ')}: {result} ({time.monotonic() - begin:.1f} s)", flush=True)
    finally:
        display.stop()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
