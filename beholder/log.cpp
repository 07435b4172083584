#include "beholder/log.h"

#ifdef BEHOLDER_WITHOUT_SPDLOG
#include <cstdio>
#else
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#endif

#include <pthread.h>
#include <signal.h>
#include <time.h>

#include <memory>
#include <utility>

#include "beholder/thread_safety.h"

namespace beholder {
namespace {

struct Sink {
  Mutex mutex;
  std::function<void(LogLevel, const std::string&)> function BEHOLDER_GUARDED_BY(mutex);
};

// Leaked on purpose: static destructors of the user's program may still log.
Sink& sink() {
  static auto* instance = [] {
    // A child shall not be born while another thread holds the lock: nobody there would let go of it.
    const auto unlock = []() BEHOLDER_NO_THREAD_SAFETY_ANALYSIS { sink().mutex.unlock(); };
    ::pthread_atfork([]() BEHOLDER_NO_THREAD_SAFETY_ANALYSIS { sink().mutex.lock(); }, unlock, unlock);
    return new Sink;
  }();
  return *instance;
}

/// Standard error may be a pipe that nobody reads any more. A training that writes nothing there itself shall not die
/// of our line: SIGPIPE is held back from this thread, and taken away where the line was what raised it.
class WithoutSigpipe {
 public:
  WithoutSigpipe() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~WithoutSigpipe() {
    const timespec at_once{};
    if (!was_pending_) sigtimedwait(&pipe_, nullptr, &at_once);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  WithoutSigpipe(const WithoutSigpipe&) = delete;
  WithoutSigpipe& operator=(const WithoutSigpipe&) = delete;

 private:
  sigset_t pipe_, before_;
  bool was_pending_;
};

#ifdef BEHOLDER_WITHOUT_SPDLOG

// One call of fputs() for a line, so that lines of several threads do not mix.
void write(LogLevel, const std::string& text) { std::fputs(("[beholder] " + text + "\n").c_str(), stderr); }

#else

spdlog::logger& logger() {
  static auto* instance = [] {
    auto existing = spdlog::get("beholder");
    if (!existing) {
      existing = spdlog::stderr_color_mt("beholder");
      existing->set_pattern("[%n] %^%v%$");
    }
    return new std::shared_ptr<spdlog::logger>(existing);
  }();
  return **instance;
}

void write(LogLevel level, const std::string& text) {
  switch (level) {
    case LogLevel::Info: logger().info("{}", text); break;
    case LogLevel::Warning: logger().warn("{}", text); break;
    case LogLevel::Error: logger().error("{}", text); break;
  }
}

#endif

}  // namespace

void log(LogLevel level, const std::string& text) noexcept {
  try {
    MutexLock lock(sink().mutex);
    if (sink().function) {
      sink().function(level, text);
    } else {
      const WithoutSigpipe quiet;
      write(level, text);
    }
  } catch (...) {  // a log line must not end a training
  }
}

void set_log_sink(std::function<void(LogLevel, const std::string&)> function) {
  MutexLock lock(sink().mutex);
  sink().function = std::move(function);
}

}  // namespace beholder
