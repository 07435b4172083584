#include "beholder/dispatcher.h"

#include <algorithm>
#include <cstdio>
#include <new>
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

Worker::Worker(std::shared_ptr<Callback> callback, Run run, int64_t max_queue_bytes,
               std::shared_ptr<BackgroundBudget> budget)
    : callback_(std::move(callback)),
      run_(std::move(run)),
      max_queue_bytes_(max_queue_bytes),
      budget_(std::move(budget)),
      name_(callback_->name()),
      errors_(name_, "the training goes on") {
  needs_ = callback_->needs();
  overflow_ = callback_->overflow();
  state_.name = name_;
}

void Worker::start() {
  thread_ = std::thread([self = shared_from_this()] { self->run(); });
}

void Worker::push(std::shared_ptr<const Picture> picture) noexcept {
  // Pictures are let go after the lock: freeing 19 MB takes time.
  std::vector<std::shared_ptr<const Picture>> dropped;
  try {
    MutexLock lock(mutex_);
    if (closing_ || ended_ || !usable_) return;
    const int64_t bytes = picture->bytes();
    const auto drop_oldest = [&]() BEHOLDER_REQUIRES(mutex_) {
      dropped.push_back(queue_.front());  // first what may find no memory
      queued_bytes_ -= queue_.front()->bytes();
      queue_.pop_front();
      ++state_.dropped;
    };
    if (overflow_ == Overflow::KeepLatest) {
      while (!queue_.empty()) drop_oldest();
    } else if (overflow_ == Overflow::DropOldest) {
      while (!queue_.empty() && queued_bytes_ + bytes > max_queue_bytes_) drop_oldest();
    }
    if (queue_.empty() || queued_bytes_ + bytes <= max_queue_bytes_) {
      queue_.push_back(picture);
      queued_bytes_ += bytes;
    } else {
      ++state_.dropped;
    }
  } catch (const std::bad_alloc&) {  // for its place in the queue
    MutexLock lock(mutex_);
    ++state_.dropped;
  }
  changed_.notify_all();
}

void Worker::run() {
  char thread_name[32];
  std::snprintf(thread_name, sizeof thread_name, "bh %s", name_.c_str());
  begin_own_thread(thread_name);
  double cpu_before = thread_cpu_seconds();
  const auto billed = [&](const char* what, const auto& call) {
    const auto begun = BackgroundBudget::Clock::now();
    const bool done = errors_.guarded(what, call);
    const double cpu = thread_cpu_seconds();
    budget_->bill(cpu - std::exchange(cpu_before, cpu), begun);
    return done;
  };
  const bool opened = billed("opening", [&] { callback_->open(run_); });
  {
    MutexLock lock(mutex_);
    state_.open = opened;
    if (!opened) {
      usable_ = false;
      queue_.clear();
      queued_bytes_ = 0;
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
    }
    const bool shown = billed("showing a picture", [&] { callback_->show(std::move(picture)); });
    MutexLock lock(mutex_);
    state_.shown += shown ? 1 : 0;
  }
  if (opened) errors_.guarded("closing", [&] { callback_->close(); });
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
  CallbackState state;
  {
    MutexLock lock(mutex_);
    state = state_;
    state.queued_bytes = queued_bytes_;
  }
  state.errors = errors_.count();
  state.last_error = errors_.last();
  return state;
}

Dispatcher::~Dispatcher() { close(kPatience); }

void Dispatcher::add(std::shared_ptr<Callback> callback, Run run) {
  auto worker = std::make_shared<Worker>(std::move(callback), std::move(run), max_queue_bytes_, budget_);
  {
    MutexLock lock(mutex_);
    if (closed_) return;
    for (const auto& other : *workers_) {
      if (other->callback() != worker->callback()) continue;
      log_warning(worker->name() + " was added twice; the second time is ignored");
      return;
    }
    auto more = std::make_shared<Workers>(*workers_);
    more->push_back(worker);
    workers_ = std::move(more);
  }
  try {
    worker->start();
  } catch (const std::system_error& e) {
    MutexLock lock(mutex_);
    auto fewer = std::make_shared<Workers>(*workers_);
    fewer->erase(std::remove(fewer->begin(), fewer->end(), worker), fewer->end());
    workers_ = std::move(fewer);
    throw std::runtime_error("no thread for " + worker->name() + ": " + e.what());
  }
}

void Dispatcher::dispatch(const std::shared_ptr<const Picture>& picture) {
  std::shared_ptr<const Workers> workers;  // needs no memory, which there may be none of
  {
    MutexLock lock(mutex_);
    workers = workers_;
  }
  for (const auto& worker : *workers) {
    const bool wanted = worker->needs().film ? picture->film && !picture->recoloured : picture->live;
    if (wanted) worker->push(picture);
  }
}

void Dispatcher::close(std::chrono::milliseconds timeout) {
  Workers workers;
  {
    MutexLock lock(mutex_);
    if (std::exchange(closed_, true)) return;
    workers = *workers_;
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
                (ms % 1000 == 0 ? std::to_string(ms / 1000) + " s" : std::to_string(ms) + " ms") +
                " and is left behind");
  }
}

Needs Dispatcher::needs() const {
  Needs all;
  all.statistics = false;
  MutexLock lock(mutex_);
  for (const auto& worker : *workers_) {
    if (!worker->usable()) continue;
    all.film = all.film || worker->needs().film;
    all.statistics = all.statistics || worker->needs().statistics;
    all.host_bytes_per_pixel += worker->needs().host_bytes_per_pixel;
  }
  return all;
}

bool Dispatcher::empty() const {
  MutexLock lock(mutex_);
  return workers_->empty();
}

std::vector<CallbackState> Dispatcher::states() const {
  std::shared_ptr<const Workers> workers;  // the training thread takes the lock
  {
    MutexLock lock(mutex_);
    workers = workers_;
  }
  std::vector<CallbackState> out;
  for (const auto& worker : *workers) out.push_back(worker->state());
  return out;
}

}  // namespace beholder
