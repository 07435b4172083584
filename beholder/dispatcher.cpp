#include "beholder/dispatcher.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "beholder/log.h"
#include "beholder/threads.h"

namespace beholder {

const char* to_string(Overflow overflow) {
  switch (overflow) {
    case Overflow::DropOldest: return "drop oldest";
    case Overflow::DropNewest: return "drop newest";
    case Overflow::KeepLatest: return "keep latest";
  }
  return "?";
}

Worker::Worker(std::shared_ptr<Callback> callback, Run run, int64_t max_queue_bytes)
    : callback_(std::move(callback)), run_(std::move(run)), max_queue_bytes_(max_queue_bytes) {
  name_ = callback_->name();
  needs_ = callback_->needs();
  overflow_ = callback_->overflow();
  state_.name = name_;
  no_memory_line_ = name_ + ": no memory; the training goes on";
}

void Worker::start() {
  thread_ = std::thread([self = shared_from_this()] { self->run(); });
}

void Worker::push(std::shared_ptr<const Picture> picture) {
  // Pictures are let go after the lock: freeing 19 MB takes time.
  std::vector<std::shared_ptr<const Picture>> dropped;
  {
    MutexLock lock(mutex_);
    if (closing_ || ended_ || !usable_) return;
    const int64_t bytes = picture->bytes();
    const auto drop_oldest = [&]() BEHOLDER_REQUIRES(mutex_) {
      dropped.push_back(queue_.front());  // first what may find no memory
      queued_bytes_ -= queue_.front()->bytes();
      queue_.pop_front();
    };
    if (overflow_ == Overflow::KeepLatest) {
      while (!queue_.empty()) drop_oldest();
    } else if (overflow_ == Overflow::DropOldest) {
      while (!queue_.empty() && queued_bytes_ + bytes > max_queue_bytes_) drop_oldest();
    } else if (!queue_.empty() && queued_bytes_ + bytes > max_queue_bytes_) {
      dropped.push_back(std::move(picture));
    }
    if (picture) {
      queue_.push_back(std::move(picture));
      queued_bytes_ += bytes;
    }
    state_.dropped += static_cast<int64_t>(dropped.size());
    state_.queued_bytes = queued_bytes_;
  }
  changed_.notify_all();
}

bool Worker::guarded(const char* what, const std::function<void()>& call) {
  try {
    call();
    return true;
  } catch (const std::exception& e) {
    report(what, e.what());
  } catch (...) {
    report(what, "an exception that is no std::exception");
  }
  return false;
}

void Worker::report(const char* what, std::string_view error) noexcept {
  try {
    std::string line;
    {
      MutexLock lock(mutex_);
      ++state_.errors;
      state_.last_error = error.substr(0, error.find('\n'));
      // Bounded: an error's text may have a number in it that is another one each time.
      if (known_errors_.size() >= 100 || known_errors_.count(what + (": " + state_.last_error)) > 0) return;
      line = name_ + ": " + what + " failed: " + state_.last_error + "; the training goes on";
      known_errors_.insert(what + (": " + state_.last_error));
    }
    log_error(line);
  } catch (...) {  // no memory, not even for the text
    if (!no_memory_told_.exchange(true)) log_error(no_memory_line_);
  }
}

void Worker::run() {
  char thread_name[32];
  std::snprintf(thread_name, sizeof thread_name, "bh %s", name_.c_str());
  begin_own_thread(thread_name);
  const bool opened = guarded("opening", [&] { callback_->open(run_); });
  {
    MutexLock lock(mutex_);
    state_.open = opened;
    if (!opened) {
      usable_ = false;
      queue_.clear();
      queued_bytes_ = state_.queued_bytes = 0;
    }
  }
  while (opened) {
    std::shared_ptr<const Picture> picture;
    {
      MutexLock lock(mutex_);
      changed_.wait(lock, [&]() BEHOLDER_REQUIRES(mutex_) { return !queue_.empty() || closing_; });
      if (queue_.empty()) break;
      picture = std::move(queue_.front());
      queue_.pop_front();
      queued_bytes_ -= picture->bytes();
      state_.queued_bytes = queued_bytes_;
    }
    const bool shown = guarded("showing a picture", [&] { callback_->show(std::move(picture)); });
    picture.reset();
    cpu_seconds_.store(thread_cpu_seconds(), std::memory_order_relaxed);
    MutexLock lock(mutex_);
    state_.shown += shown ? 1 : 0;
  }
  if (opened) guarded("closing", [&] { callback_->close(); });
  MutexLock lock(mutex_);
  state_.open = false;
  ended_ = true;
  changed_.notify_all();
}

void Worker::request_close() {
  {
    MutexLock lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
}

bool Worker::wait_ended(std::chrono::milliseconds timeout) {
  MutexLock lock(mutex_);
  return changed_.wait_for(lock, timeout, [&]() BEHOLDER_REQUIRES(mutex_) { return ended_; });
}

bool Worker::wait_closed(std::chrono::milliseconds timeout) {
  const bool ended = wait_ended(timeout);
  if (!thread_.joinable()) return ended;
  if (ended) {
    thread_.join();
  } else {
    thread_.detach();
  }
  return ended;
}

CallbackState Worker::state() const {
  MutexLock lock(mutex_);
  return state_;
}

Dispatcher::~Dispatcher() { close(kPatience); }

void Dispatcher::add(std::shared_ptr<Callback> callback, Run run) {
  auto worker = std::make_shared<Worker>(std::move(callback), std::move(run), max_queue_bytes_);
  {
    MutexLock lock(mutex_);
    if (closed_) return;
    for (const auto& other : workers_) {
      if (other->callback() != worker->callback()) continue;
      log_warning(worker->name() + " was added twice; the second time is ignored");
      return;
    }
    workers_.push_back(worker);
  }
  try {
    worker->start();
  } catch (const std::system_error& e) {
    MutexLock lock(mutex_);
    workers_.erase(std::remove(workers_.begin(), workers_.end(), worker), workers_.end());
    throw std::runtime_error("no thread for " + worker->name() + ": " + e.what());
  }
}

void Dispatcher::dispatch(const std::shared_ptr<const Picture>& picture) {
  std::vector<std::shared_ptr<Worker>> workers;
  {
    MutexLock lock(mutex_);
    workers = workers_;
  }
  for (const auto& worker : workers) {
    const bool wanted = worker->needs().film ? picture->film && !picture->recoloured : picture->live;
    if (wanted) worker->push(picture);
  }
}

void Dispatcher::close(std::chrono::milliseconds timeout) {
  std::vector<std::shared_ptr<Worker>> workers;
  {
    MutexLock lock(mutex_);
    if (std::exchange(closed_, true)) return;
    workers = workers_;
  }
  std::reverse(workers.begin(), workers.end());
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  const auto left = [&] {
    const auto time = deadline - std::chrono::steady_clock::now();
    return std::max(std::chrono::duration_cast<std::chrono::milliseconds>(time), std::chrono::milliseconds(0));
  };
  for (size_t i = 0; i < workers.size(); ++i) {
    workers[i]->request_close();
    workers[i]->wait_ended(left() / static_cast<int64_t>(workers.size() - i));
  }
  for (const auto& worker : workers) {
    if (worker->wait_closed(left())) continue;
    const auto ms = timeout.count();
    log_warning(worker->name() + " did not finish within " +
                (ms % 1000 == 0 ? std::to_string(ms / 1000) + " s" : std::to_string(ms) + " ms") + " and is left behind");
  }
}

Needs Dispatcher::needs() const {
  Needs all;
  all.statistics = false;
  MutexLock lock(mutex_);
  for (const auto& worker : workers_) {
    if (!worker->usable()) continue;
    all.film = all.film || worker->needs().film;
    all.statistics = all.statistics || worker->needs().statistics;
  }
  return all;
}

bool Dispatcher::empty() const {
  MutexLock lock(mutex_);
  return workers_.empty();
}

std::vector<CallbackState> Dispatcher::states() const {
  MutexLock lock(mutex_);
  std::vector<CallbackState> out;
  for (const auto& worker : workers_) out.push_back(worker->state());
  return out;
}

double Dispatcher::cpu_seconds() const {
  MutexLock lock(mutex_);
  double sum = 0;
  for (const auto& worker : workers_) sum += worker->cpu_seconds();
  return sum;
}

}  // namespace beholder
