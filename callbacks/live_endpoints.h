// What the live server answers to each path: HTTP by cpp-httplib, on the threads of LiveConnections. Owned by the live
// server; internal.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "beholder/callbacks/live_access.h"
#include "beholder/callbacks/live_connections.h"
#include "beholder/callbacks/live_file.h"
#include "beholder/callbacks/live_view.h"

namespace beholder {

struct EndpointOptions {
  int max_viewers = 0, jpeg_quality = 0;
  OwnNames names;
};

/// Multithreading: serve() on several threads at once.
class LiveEndpoints {
 public:
  LiveEndpoints(LiveView& view, LiveRun run, EndpointOptions options);
  ~LiveEndpoints();

  /// Answers one request.
  void serve(Exchange& exchange);
  int viewers() const;

 private:
  class Http;
  std::unique_ptr<Http> http_;
};

}  // namespace beholder
