// A viewer of the live server, for benchmarks.
#pragma once

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <stdexcept>
#include <string>

namespace beholder::benchmarks {

/// Somebody who looks at the live server, in a process of his own, as a player does: JPEGs with captions.
class Viewer {
 public:
  explicit Viewer(int port, const std::string& token) {
    const std::string url = "http://127.0.0.1:" + std::to_string(port) + "/stream.mjpg?token=" + token;
    const char* arguments[] = {"curl", "-s", "-N", "-o", "/dev/null", url.c_str(), nullptr};
    if (posix_spawnp(&process_, "curl", nullptr, nullptr, const_cast<char**>(arguments), environ) != 0) {
      throw std::runtime_error("cannot start curl, which is the viewer");
    }
  }
  ~Viewer() {
    kill(process_, SIGTERM);
    waitpid(process_, nullptr, 0);
  }
  Viewer(const Viewer&) = delete;
  Viewer& operator=(const Viewer&) = delete;

 private:
  pid_t process_ = 0;
};

}  // namespace beholder::benchmarks
