// The renderer of one View: takes the values of a slot, keeps their history, and makes pictures. Owned by the render
// thread (or by a StillRenderer); not thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "beholder/callback.h"
#include "beholder/colormaps.h"
#include "beholder/history.h"
#include "beholder/picture.h"
#include "beholder/plan.h"
#include "beholder/thread_safety.h"

namespace beholder {

/// Memory of pictures that nobody looks at any more, for new ones: a fresh 19 MB would cost thousands of page faults.
/// Thread-safe; outlives its pictures.
class PixelPool : public std::enable_shared_from_this<PixelPool> {
 public:
  /// A picture whose pixels return here when its last owner lets go. Pixels are not initialised.
  std::shared_ptr<Picture> make(size_t bytes);
  /// Of all pictures that live, of what was derived from them, and of what is kept to be used again.
  int64_t bytes() const { return bytes_->load(std::memory_order_relaxed); }
  /// Pictures that live.
  int alive() const { return alive_.load(std::memory_order_relaxed); }
  /// Lets go what is kept to be used again.
  void drop_spares();

 private:
  const std::shared_ptr<std::atomic<int64_t>> bytes_ = std::make_shared<std::atomic<int64_t>>(0);
  std::atomic<int> alive_{0};
  Mutex mutex_;
  std::vector<std::vector<uint8_t>> spare_ BEHOLDER_GUARDED_BY(mutex_);
};

/// What a picture is about, beside its values.
struct Capture {
  int64_t step = 0;
  std::chrono::system_clock::time_point time;
};

/// What a picture tells about its history.
struct HistoryFacts {
  int size = 0;
  int64_t change_steps = 0;
  at::Tensor previous;  ///< mode change: the values before; may be undefined
};

class ViewRenderer {
 public:
  explicit ViewRenderer(std::shared_ptr<PixelPool> pool) : pool_(std::move(pool)) {}

  /// Takes the slot's values of plan->views[view] into the history and renders them. Enqueues everything on the current
  /// streams; the caller records the slot's drained events afterwards and only then waits. On the CPU the picture is
  /// complete on return; otherwise after finish().
  /// `now`: the settings now, of which those count that need no other values (colours, window size); the rest is the
  /// plan's. `statistics`: mean, std, zeros and dead units are wanted.
  void render(std::shared_ptr<const Plan> plan, size_t view, const Slot& slot, const Capture& capture,
              const Settings& now, bool statistics);
  /// Renders the last values again with other colours (scaling, colormap). False where there are none.
  bool render_again(const Settings& settings, bool statistics);
  /// A renderer that keeps the picture of now while this one goes on.
  std::unique_ptr<ViewRenderer> frozen_copy() const;
  /// Completes the picture that render() began. REQUIRES that the device has finished (SideStream::synchronize()).
  std::shared_ptr<Picture> finish();

  /// The value that pixel (x, y) of the last picture shows; nothing between sections. May wait for the device.
  std::optional<ShownValue> value_at(int x, int y) const;

  /// Settings of the last picture (with what the viewer may have changed since).
  const Settings& settings() const { return settings_; }
  const ViewPlan* view() const { return plan_ ? &plan_->views[view_] : nullptr; }
  const std::shared_ptr<const Plan>& plan() const { return plan_; }

 private:
  HistoryFacts history_facts() const;
  void follow(std::shared_ptr<const Plan> plan, size_t view);
  at::Tensor take_values(const Slot& slot);
  bool take_presence(const Slot& slot);
  void keep_exact(const Slot& slot, bool whole);
  at::Tensor absent_mask(size_t section, const std::vector<int64_t>& sizes) const;
  void fill_absent(const at::Tensor& values) const;
  void blank_absent(const at::Tensor& values, const at::Tensor& shown) const;
  void paint();
  void upload(const ColourTable& table);

  std::shared_ptr<PixelPool> pool_;
  std::shared_ptr<const Plan> plan_;
  size_t view_ = 0;
  Settings settings_;
  Capture capture_;
  bool statistics_ = true;
  History history_;
  /// Of each section of the view.
  struct Seen {
    Presence present;
    bool before = false;                  // it came in a picture before this one, whose values are known
    bool part_before = false;             // the last that came was not whole
    at::Tensor exact;                     // what came last in its own dtype, where float32 rounds it; mode current
    std::optional<int64_t> absent_since;  // the step of the first picture without it
  };
  std::vector<Seen> seen_;
  std::optional<HistoryFacts> frozen_;  // of a frozen copy, which has no history of its own until its next render()
  at::Tensor shown_;                    // float32 (value_count): what the picture shows
  at::Tensor rendered_;                 // on other devices: render_on_device()'s result, kept until finish()
  at::Tensor host_;                     // pinned, the same bytes
  at::Tensor colours_, host_colours_;   // on other devices: the last ColourTable there, and pinned
  std::shared_ptr<Picture> picture_;
  std::vector<double> numbers_;
};

}  // namespace beholder
