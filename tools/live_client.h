// A client of the live server, as `beholder view` needs it: finds the run, follows its pictures and its state, sends
// what keys ask for. Owned by the viewer; three threads of its own, so that neither a slow link nor a waiting value
// holds up a key.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "beholder/callback.h"
#include "tools/live_state.h"
#include "tools/picture_format.h"

namespace beholder::viewer {

/// Where a viewer looks for a run: in a folder of this machine, or at a URL.
struct LiveTarget {
  std::string folder;       ///< a logdir, or a folder of logdirs, of which the newest live run counts
  int64_t pid = 0;          ///< not 0: only the run of this process, in `folder` itself
  std::string host, token;  ///< where `folder` is empty
  int port = 0;
  std::string
      path;  ///< before "/state": empty, or the folder of the URL below which a proxy has the run, "/proxy/6007"
};
/// A URL ("http://localhost:6007/?token=...", "http://hub/proxy/6007/?token=..."), or else a folder. Throws
/// std::invalid_argument with what was expected.
LiveTarget parse_live_target(const std::string& argument);

enum class Link {
  Waiting,  ///< no run was found yet
  Connected,
  Reconnecting,  ///< the server does not answer, its process may be there
  Ended,         ///< the run is over; a new one is looked for
  Refused,       ///< somebody answers at the URL, but not as asked: RunView::problem
};

/// Pixels as they came. Immutable.
struct LivePixels {
  uint64_t sequence = 0;
  uint64_t layout = 0;  ///< as LiveState::picture_layout
  int64_t step = 0;
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;  ///< height x width x 3, row-major, R G B
  PictureFormat format = PictureFormat::Raw;
};

/// All that is known at one moment. Immutable.
struct RunView {
  Link link = Link::Waiting;
  std::string where;                         ///< the folder or the host, for people; without the token
  std::string problem;                       ///< of Refused
  std::shared_ptr<const LiveState> state;    ///< the last one; nullptr before the first
  std::shared_ptr<const LivePixels> pixels;  ///< the last ones; nullptr before the first

  /// Where things stand in `pixels`; nullptr while the state is of another layout.
  const Picture* picture() const {
    return pixels && state && state->picture && state->picture_layout == pixels->layout ? state->picture.get()
                                                                                        : nullptr;
  }
};

/// What the server said to an action: "saved ...png", or why not.
struct LiveAnswer {
  std::string text;
  bool failed = false;
  std::chrono::steady_clock::time_point time;
};

/// One value that was asked for.
struct PointedValue {
  uint64_t sequence = 0;
  int x = 0, y = 0;
  std::optional<ShownValue> value;  ///< nothing between sections, or when there was a newer picture
};

/// Multithreading: every member from any thread.
/// Shutdown: the destructor ends requests that wait, and returns within a second or two.
class LiveClient {
 public:
  /// state_of_each_picture: for measurements; otherwise the state follows the pictures a few times a second.
  explicit LiveClient(LiveTarget target, bool state_of_each_picture = false);
  ~LiveClient();

  std::shared_ptr<const RunView> view() const;

  /// What a key of the table does, by POST /action, in order. Dropped where there is no server, or when 32 wait.
  void act(const std::string& control, int direction);
  /// One section fills the canvas; where one does already, all come back.
  void toggle_solo(const std::string& section);
  /// Steps across and down in solo, each -1, 0 or 1.
  void pan(int dx, int dy);
  /// The last answer that has something to say.
  std::optional<LiveAnswer> answer() const;

  /// Asks for one value; only the last question is kept.
  void point_at(uint64_t sequence, int x, int y);
  std::optional<PointedValue> pointed() const;

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
};

}  // namespace beholder::viewer
