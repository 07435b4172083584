// What the live server's viewers share: the newest picture, a number that changes with the state, and the CPU time that
// they may use. Owned by the live server; internal.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "beholder/callback.h"
#include "beholder/callbacks/cpu_share.h"
#include "beholder/thread_safety.h"

namespace beholder {

/// A film in the run's folder.
struct RecordingFile {
  std::string name;
  int64_t bytes = 0;
  double time = 0;  ///< Unix time of the last change, in seconds
};
/// The films of `directory`, the newest first.
std::vector<RecordingFile> recordings_in(const std::string& directory);
/// "video-....mp4", "....mkv" or the ".jsonl" beside it: nothing else of the folder is handed out.
bool is_recording_name(const std::string& name);

/// # Multithreading
/// Any thread. Waiting holds no lock.
class LiveView {
 public:
  using Clock = std::chrono::steady_clock;

  struct Now {
    std::shared_ptr<const Picture> picture;  ///< nullptr before the first
    uint64_t sequence = 0;                   ///< of it
    uint64_t revision = 1;
    uint64_t layout = 0;  ///< changes whenever the sections stand elsewhere
    bool ended = false;   ///< the run has ended: nothing comes any more
  };
  /// What a viewer waits for.
  struct Wish {
    std::optional<uint64_t> after;     ///< a picture with a larger sequence; else any
    std::optional<uint64_t> revision;  ///< or another revision; else none
    Clock::time_point deadline;
  };
  struct Answer {
    Now now;
    bool picture_due = false;  ///< now.picture is one that the viewer waits for
  };

  LiveView(const Run& run, double max_cpu);
  ~LiveView();
  LiveView(const LiveView&) = delete;
  LiveView& operator=(const LiveView&) = delete;

  /// A new picture. Never waits for a viewer.
  void show(std::shared_ptr<const Picture> picture);
  /// The state is another one.
  void changed();
  /// Wakes all who wait, for good.
  void end();
  /// Somebody who waits may have reason not to: see `gone` below.
  void look_up();

  Now now() const;
  /// Looks at what nobody announces (what films are there) and at now().
  Now look();
  /// Waits for what `wish` says, and for the budget before a picture; ends early when gone() is true or the run ends.
  Answer wait(const Wish& wish, const std::function<bool()>& gone);

  const Run& run() const { return run_; }
  CpuShare& cpu() { return cpu_; }
  /// State::waiting_for_update, as far as viewers have been shown what came.
  bool waiting_for_update() const;
  std::vector<RecordingFile> recordings() const;
  std::string last_solo() const;

 private:
  void watch();
  void note_settings();

  const Run run_;
  CpuShare cpu_;
  int listener_ = 0;  // used by the thread that makes and destroys the view

  mutable Mutex mutex_;
  Condition changed_, watchers_;
  Now now_ BEHOLDER_GUARDED_BY(mutex_);
  int waiting_ BEHOLDER_GUARDED_BY(mutex_) = 0;  // viewers in wait()
  std::vector<RecordingFile> recordings_ BEHOLDER_GUARDED_BY(mutex_);
  std::string last_solo_ BEHOLDER_GUARDED_BY(mutex_);
  std::thread thread_;  // looks for changes that nobody announces, while there are viewers
};

}  // namespace beholder
