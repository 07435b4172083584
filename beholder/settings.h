// The live settings: what is shown and how. A value type, the one table that describes its controls, and a
// shared copy with a revision for the threads that read and change it. No torch, no devices.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "beholder/thread_safety.h"

namespace beholder {

/// What there is to see. Buffers are BatchNorm's running statistics and their like; Optimizer is what attached
/// optimizers keep (Adam's moments, momentum).
enum class Values { Parameters, Gradients, Activations, Buffers, Optimizer, Arrays, Frame };
/// The values now, their variance over a window of past pictures, or their difference to the previous picture.
enum class Mode { Current, Variance, Change };
/// The range that the colours span: each section's own, one for all sections, or symmetric around 0.
enum class Scaling { Section, All, ZeroCentred };
/// How sections stand on the canvas. (`solo` is not a layout of its own here: see Settings::solo.)
enum class LayoutKind { Fit, Classic };
enum class Colormap { Magma, Inferno, Plasma, Viridis, Gray, Diverging };

/// What a viewer can change while the training runs. Compared and copied as a value.
struct Settings {
  Values values = Values::Parameters;
  Mode mode = Mode::Current;
  int window_size = 15;  ///< pictures in the variance window, 2..20
  Scaling scaling = Scaling::Section;
  bool show_all = false;
  LayoutKind layout = LayoutKind::Fit;
  Colormap colormap = Colormap::Magma;
  double fps = 10.0;  ///< pictures per second that the user wishes, 0..60; 0 shows nothing new
  bool recording = false;
  bool info = true;
  std::string filter;  ///< globs on tensor names, comma separated, `!` excludes; empty = everything

  // The live view alone: these never reach the film (see film()).
  bool paused = false;
  std::string solo;    ///< name of the section that fills the canvas; empty = all sections
  int page = 0;        ///< 0-based page of the fit layout when there are more sections than room
  double zoom = 1.0;   ///< in solo: 1 (whole) .. 64
  double pan_x = 0.0;  ///< in solo: where the visible part begins, 0..1 of what is hidden
  double pan_y = 0.0;

  /// The settings of the film: the same without what belongs to the live view alone.
  Settings film() const;

  friend bool operator==(const Settings& a, const Settings& b);
  friend bool operator!=(const Settings& a, const Settings& b) { return !(a == b); }
};

/// True where the two settings need other values from the training thread (a new capture), not only other colours.
bool needs_capture(const Settings& from, const Settings& to);
/// True where past pictures cannot be compared with new ones: the history starts anew.
bool clears_history(const Settings& from, const Settings& to);

const char* to_string(Values v);
const char* to_string(Mode v);
const char* to_string(Scaling v);
const char* to_string(LayoutKind v);
const char* to_string(Colormap v);

/// A key as viewers name it: a lower-case character, or "space", "Esc", "left", "right", "up", "down".
struct KeyBinding {
  std::string key;
  int direction = 1;  ///< +1: next, more, right, down; -1: previous, less, left, up
};

/// One row of the table of controls. Key handling, help, the command line, the HTTP interface and the README's
/// table are made from it, so they cannot disagree.
struct Control {
  enum class Type { Choice, Switch, Number, Text, Action };
  std::string keys;  ///< as a person reads them: "v", "[ ]", "space"; empty = no key
  /// The same for programs, with the keys that share them on common keyboards ("=" for "+").
  std::vector<KeyBinding> bindings;
  std::string name;   ///< wire name: "window_size"; for an action its verb: "snapshot"
  std::string label;  ///< "window size"
  Type type = Type::Choice;
  std::vector<std::string> choices;  ///< of a Choice
  double minimum = 0, maximum = 0;   ///< of a Number
  bool whole = false;                ///< of a Number: no fractions
  std::string help;                  ///< one line

  /// The value in `s` as text ("magma", "on", "15"), which set() takes for the same value; empty for an action.
  std::function<std::string(const Settings& s)> get;
  /// Sets the value from text. Returns an empty string, or what is wrong: expected, found. `s` is then unchanged.
  std::function<std::string(Settings& s, const std::string& text)> set;
  /// What the control's keys do, by KeyBinding::direction. Choices go round, numbers step.
  std::function<void(Settings& s, int direction)> step;
};

/// The table, in the order in which it is shown. Lives for the whole program.
const std::vector<Control>& controls();
/// The control of this wire name, or nullptr.
const Control* find_control(const std::string& name);
/// Sets one setting from text; returns an empty string or one line that says what is allowed.
std::string set_by_name(Settings& s, const std::string& name, const std::string& text);

/// Text from outside for a message of one line: in quotes, at most 60 bytes of it, control characters as `?`.
std::string quoted(const std::string& text);

/// True where `name` passes `filter`: globs separated by commas, `*` and `?` cross dots, a leading `!` excludes;
/// only exclusions = everything else; an empty filter = everything. Takes at most the product of the lengths.
bool matches_filter(const std::string& filter, const std::string& name);

/// The settings that all threads share.
/// Numbers outside the ranges of the table (possible through set() and edit()) are moved to the nearest end.
/// Multithreading: every member may be called from any thread, also by listeners. No lock is held over what is called
/// (but a listener's own), so that who reads the settings waits for nobody. Changes are made one after the other, in
/// the order in which they were asked for; listeners run on one thread at a time.
class SharedSettings {
 public:
  explicit SharedSettings(Settings initial = {});

  Settings get() const;
  /// Changes whenever the settings change; starts at 1. Lock-free: the training thread reads it at each update().
  uint64_t revision() const;
  /// Settings and their revision together.
  std::pair<Settings, uint64_t> snapshot() const;
  /// Replaces everything. Returns the new revision (the old one where nothing differs).
  uint64_t set(const Settings& s);
  /// One change. `edit` gets a copy, which takes the settings' place when it returns. What it changes through this
  /// object is a part of the same change, and get() is as before it. Other changes wait for it: it should be short, and
  /// must neither wait for another thread's change nor remove a listener.
  uint64_t edit(const std::function<void(Settings&)>& edit);
  /// As set_by_name(), for the shared copy.
  std::string set_by_name(const std::string& name, const std::string& text);
  /// Several changes, all or none; returns what is wrong with the first bad one.
  std::string set_by_name(const std::vector<std::pair<std::string, std::string>>& changes);
  /// Called after each change, before what changes returns: on the thread that changes, or on another one that changes
  /// at the same time. Once for all changes that came since the last call. A change that a listener makes is told of
  /// when the listeners have returned. Returns an id for remove_listener().
  int add_listener(std::function<void()> listener);
  /// When this has returned, the listener does not run any more, on no thread. (It may remove itself.)
  void remove_listener(int id);
  /// The values that Esc goes back to.
  Settings defaults() const;
  /// What a reset returns to; called once by the owner at construction.
  void set_defaults(const Settings& s);

 private:
  struct Listener {
    int id;  // these two: set before it is one of listeners_
    std::function<void()> call;
    RecursiveMutex running;  // held while it runs, so that remove_listener() can wait for its end
    bool removed BEHOLDER_GUARDED_BY(running) = false;
  };

  using Listeners = std::vector<std::shared_ptr<Listener>>;

  void tell_listeners(uint64_t revision);

  mutable Mutex mutex_;
  Condition turn_, told_all_;
  Settings settings_ BEHOLDER_GUARDED_BY(mutex_);
  Settings defaults_ BEHOLDER_GUARDED_BY(mutex_);
  std::atomic<uint64_t> revision_{1};  // written under mutex_
  // Changes take their turn like customers with numbers.
  uint64_t next_number_ BEHOLDER_GUARDED_BY(mutex_) = 0, served_ BEHOLDER_GUARDED_BY(mutex_) = 0;
  std::thread::id editor_ BEHOLDER_GUARDED_BY(mutex_);      // runs its edit; none: nobody does
  Settings* edited_ BEHOLDER_GUARDED_BY(mutex_) = nullptr;  // its copy, which it alone looks at
  std::thread::id teller_ BEHOLDER_GUARDED_BY(mutex_);      // calls the listeners; likewise
  uint64_t told_ BEHOLDER_GUARDED_BY(mutex_) = 1;           // the revision that they all know of
  int next_listener_ BEHOLDER_GUARDED_BY(mutex_) = 1;
  std::shared_ptr<const Listeners> listeners_ BEHOLDER_GUARDED_BY(mutex_) = std::make_shared<Listeners>();
};

}  // namespace beholder
