// Serves the live picture to browsers, to `beholder view` and to any HTTP client on this machine, and takes their
// settings. Loopback only unless asked otherwise; from another machine through an ssh tunnel, which the log names.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "beholder/callback.h"
#include "beholder/thread_safety.h"

namespace beholder {

struct LiveServerOptions {
  /// Where it listens: "127.0.0.1", "::1", "localhost". Any other address lets the network in, without encryption.
  std::string address = "127.0.0.1";
  /// Other host names, without port, by which it may be asked: of a reverse proxy, of a tunnel's other end. By itself
  /// it answers to the names of loopback, and where `address` lets the network in to this machine's host name, its full
  /// name and plain IP addresses. Any other name is refused, so that no stranger's can be bent to it (DNS rebinding).
  /// Empty = those of the environment's BEHOLDER_ALLOWED_HOSTS, separated by commas.
  std::vector<std::string> allowed_hosts;
  int port = 0;           ///< 1..65535; 0 = 6007, or the next free one
  std::string token;      ///< at least 8 letters, digits, - or _; empty = 256 random bits of the system
  int max_viewers = 64;   ///< pictures, streams and downloads at once, 1..1000; more are told to try again (503)
  int jpeg_quality = 90;  ///< 1..100
  /// CPU time of the server's own threads, as a share of one core, above 0 to 64; half of Options::max_background at
  /// most, which it is a part of. Beyond it viewers get fewer pictures, down to one a second each. Where the training
  /// leaves no core idle, 3 % of a core is the limit.
  double max_cpu = 0.2;
};

/// What a LiveServer is doing. A value.
struct LiveServerState {
  std::string url;      ///< with the token; empty while it is not open
  std::string address;  ///< where it listens
  int port = 0;
  std::string token;
  int viewers = 0;      ///< pictures, streams and downloads that are being waited for or sent now
  int connections = 0;  ///< open
  int threads = 0;      ///< that answer; at most max_viewers + 4
  double cpu = 0;       ///< CPU time of its threads over the last seconds, as a share of one core
};

/// Add it with Beholder::add(). What it serves is described in the README ("HTTP interface").
///
/// Multithreading: open(), show() and close() as Callback says; show() never waits for a viewer; state() from any
/// thread.
/// Shutdown: close() and the destructor end all connections within a second, also those of viewers that wait or stall.
/// Errors: open() throws std::runtime_error with one line where the port is taken or the address is not this machine's.
/// A live.json that cannot be written is one warning.
class LiveServer : public Callback {
 public:
  /// Throws std::invalid_argument where an option is out of its range.
  explicit LiveServer(LiveServerOptions options = {});
  ~LiveServer() override;

  std::string name() const override { return "live server"; }
  Needs needs() const override;
  Overflow overflow() const override { return Overflow::KeepLatest; }
  void open(const Run& run) override;
  void show(std::shared_ptr<const Picture> picture) override;
  void close() override;

  LiveServerState state() const;

 private:
  struct Open;
  std::shared_ptr<Open> now_open() const;

  const LiveServerOptions options_;
  mutable Mutex mutex_;
  std::shared_ptr<Open> open_ BEHOLDER_GUARDED_BY(mutex_);
};

}  // namespace beholder
