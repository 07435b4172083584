// The viewer's window: an OpenCV (HighGUI) window that shows what a LiveClient has, and turns keys and the mouse into
// its actions. Belongs to the main thread, which is the only one that toolkits like.
#pragma once

#include <chrono>
#include <fstream>
#include <memory>
#include <opencv2/core.hpp>
#include <optional>
#include <string>

#include "tools/live_client.h"
#include "tools/view_geometry.h"

namespace beholder::viewer {

class ViewWindow {
 public:
  /// latencies: empty, or a file that gets a line for each picture shown: its sequence, the time of its capture and the
  /// time when it stood in the window (Unix time in seconds).
  ViewWindow(LiveClient& client, const std::string& latencies);
  ~ViewWindow();

  /// Until q or the window's close button.
  void run();

 private:
  using Clock = std::chrono::steady_clock;

  void on_mouse(int event, int x, int y);
  /// False for q.
  bool on_key(int code);
  void click();
  void ask_for_value();
  bool is_open() const;
  bool is_changed();
  void compose();
  void scale_picture(const LivePixels& pixels);
  void note_latency();

  LiveClient& client_;
  std::shared_ptr<const RunView> view_;
  WindowLayout window_;
  bool sized_ = false;  // the window has the first picture's size

  bool help_ = false, hint_ = true;
  std::optional<Clock::time_point> first_shown_;  // of a picture: the hint stays for a while
  std::string answer_;                            // what the last action brought
  bool answer_failed_ = false;
  std::string title_;

  std::optional<Pixel> mouse_;  // in the window; nothing: not over it
  Pixel pressed_;
  Clock::time_point mouse_moved_{};
  std::optional<size_t> hovered_;
  std::optional<PointedValue> pointed_;
  std::optional<PointedValue> asked_;  // the last question
  Clock::time_point asked_at_{};

  cv::Mat canvas_, scaled_;                        // RGB
  std::shared_ptr<const LivePixels> scaled_from_;  // what scaled_ shows, ...
  Rect scaled_to_;                                 // ... in this size
  bool dirty_ = true;
  std::ofstream latencies_;
  uint64_t latency_of_ = 0;  // sequence of the last line
};

}  // namespace beholder::viewer
