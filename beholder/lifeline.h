// How those who may outlive an object use it. Internal; any thread.
#pragma once

#include <utility>

#include "beholder/thread_safety.h"

namespace beholder {

/// Where a callback that was left behind finds out that its Beholder (the host) is gone. Those who use it do not wait
/// for each other; its end waits for them.
template <typename Host>
class Lifeline {
 public:
  /// What `use` returns of the Beholder; `gone` where there is none any more.
  template <typename Result, typename Use>
  Result with(Result gone, const Use& use) {
    struct Guest {
      Lifeline& at;
      Host* host;
      explicit Guest(Lifeline& lifeline) : at(lifeline) {
        MutexLock lock(at.mutex_);
        if ((host = at.impl_)) ++at.guests_;
      }
      ~Guest() {
        if (!host) return;
        MutexLock lock(at.mutex_);
        if (--at.guests_ == 0) at.left_.notify_all();
      }
    } const guest(*this);
    return guest.host ? use(*guest.host) : std::move(gone);
  }
  void begin(Host& impl) {
    MutexLock lock(mutex_);
    impl_ = &impl;
  }
  /// Returns when nobody uses the Beholder any more.
  void end() {
    MutexLock lock(mutex_);
    impl_ = nullptr;
    left_.wait(lock, [this]() BEHOLDER_REQUIRES(mutex_) { return guests_ == 0; });
  }

 private:
  Mutex mutex_;
  Condition left_;
  Host* impl_ BEHOLDER_GUARDED_BY(mutex_) = nullptr;
  int guests_ BEHOLDER_GUARDED_BY(mutex_) = 0;
};

}  // namespace beholder
