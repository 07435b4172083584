// live.json in <logdir>/plugins/beholder: how a viewer on the same machine finds the live server of a run and its
// token. Written by the live server, read by `beholder view`. Internal; plain functions, any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace beholder {

/// Where a run is served. A value.
struct LiveRun {
  std::string address;  ///< "127.0.0.1"
  int port = 0;
  std::string token;  ///< a secret: never in a log but the one line with the URL, never in an argv
  int64_t pid = 0;    ///< of the training
  /// Which of the processes that had this number over time it is: when it started, in clock ticks since boot, and the
  /// boot's random id. 0 and empty where the system does not say, and in files of older versions.
  uint64_t pid_started = 0;
  std::string boot_id;
  std::string nonce;      ///< hex; another one for each server
  double started = 0;     ///< Unix time in seconds
  std::string version;    ///< of Beholder, "0.1.0"
  std::string directory;  ///< the folder of the live.json; not in the file
};

/// What `directory` (<logdir>/plugins/beholder) has. Nothing where there is no file, it is not a regular file of this
/// user, or it says nothing useful. Stale or not is another question: see answers().
std::optional<LiveRun> read_live_file(const std::string& directory);

/// Whether the server is there: its process exists, and GET /state with the token answers with its nonce within
/// `timeout`. Never raises SIGPIPE.
bool answers(const LiveRun& run, std::chrono::milliseconds timeout = std::chrono::milliseconds(1000));

/// Notes in `run` that it is one of this process.
void note_this_process(LiveRun& run);
/// Whether the process of `run` exists on this machine: this very one, where the file says when it started, since its
/// number may have been given to another process. One that has ended but was not reaped by its parent does not. Cheap.
bool process_exists(const LiveRun& run);
/// Whether `run` is one of this process.
bool is_of_this_process(const LiveRun& run);

/// The run that started last among those at and below `folder` (a logdir, or a folder of logdirs, at most 6 levels;
/// links to folders are not followed) whose process exists. `check` also asks the servers, see answers(). Without it
/// only a server is asked whose process may be another one (the file does not say when it started); the newest of these
/// is better than none.
std::optional<LiveRun> newest_live_run(const std::string& folder, bool check = true);

enum class LiveFileResult {
  Written,
  Taken,  ///< a living server of another run is named there: nothing was changed
};
/// Writes `run` into `directory`, readable by this user alone; aside first, then renamed. A stale file is replaced, one
/// of a living server is left. Throws std::system_error where it cannot be written.
LiveFileResult write_live_file(const std::string& directory, const LiveRun& run);

/// Removes the file where its nonce is still this one. Never throws.
void remove_live_file(const std::string& directory, const std::string& nonce) noexcept;

/// "http://127.0.0.1:6007/?token=..."
std::string url_of(const LiveRun& run);

}  // namespace beholder
