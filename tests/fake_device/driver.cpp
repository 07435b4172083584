#include "driver.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace fake_device {
namespace {

// More queries than this with nothing between them are a thread that spins.
constexpr int kSpin = 10000;

constexpr int64_t Counts::*kSynchronizations[] = {&Counts::stream_synchronizations,
                                                  &Counts::event_synchronizations,
                                                  &Counts::device_synchronizations,
                                                  &Counts::operator_synchronizations,
                                                  &Counts::items,
                                                  &Counts::blocking_copies_to_host,
                                                  &Counts::blocking_copies_to_device};

constexpr int64_t Counts::*kOthers[] = {&Counts::async_copies_to_host, &Counts::async_copies_to_device,
                                        &Counts::device_allocations,   &Counts::device_bytes,
                                        &Counts::pinned_allocations,   &Counts::operators,
                                        &Counts::events_recorded,      &Counts::events_blocked_on,
                                        &Counts::successful_queries,   &Counts::failed_queries};

static_assert(sizeof(Counts) == (std::size(kSynchronizations) + std::size(kOthers)) * sizeof(int64_t),
              "every count is in one of the two tables");

}  // namespace

int64_t Counts::synchronizations() const {
  int64_t sum = 0;
  for (auto count : kSynchronizations) sum += this->*count;
  return sum;
}

Counts& Counts::operator+=(const Counts& other) {
  for (auto count : kSynchronizations) this->*count += other.*count;
  for (auto count : kOthers) this->*count += other.*count;
  return *this;
}

Counts& Counts::operator-=(const Counts& other) {
  for (auto count : kSynchronizations) this->*count -= other.*count;
  for (auto count : kOthers) this->*count -= other.*count;
  return *this;
}

c10::Stream stream_of(Timeline timeline) {
  const auto index = static_cast<c10::DeviceIndex>(timeline / kStreamsPerDevice);
  return c10::Stream(c10::Stream::UNSAFE, device(index), timeline % kStreamsPerDevice);
}

HostThread& this_thread() {
  // The driver owns it, because tensors are freed even after a thread's own thread_local objects are gone.
  thread_local HostThread* thread = nullptr;
  if (!thread) thread = &Driver::instance().add_thread();
  return *thread;
}

Timeline current_timeline(c10::Device device) {
  const HostThread& host = this_thread();
  const c10::DeviceIndex index = device.has_index() ? device.index() : host.device;
  return index * kStreamsPerDevice + static_cast<Timeline>(host.stream.at(index));
}

Driver& Driver::instance() {
  static auto* driver = new Driver;  // never destroyed: it outlives static tensors
  return *driver;
}

HostThread& Driver::add_thread() {
  std::lock_guard<std::mutex> lock(mutex_);
  threads_.push_back(std::make_unique<HostThread>());
  return *threads_.back();
}

// ---- streams and events

Enqueued Driver::enqueue(Timeline stream) {
  HostThread& host = this_thread();
  host.queries_in_a_row = 0;
  std::lock_guard<std::mutex> lock(mutex_);
  ++host.counts.operators;
  Clock& tail = tails_[stream];
  tail.merge(host.seen);
  const Tick tick = tail.advance(stream);
  return {stream, tick, tail};
}

Clock Driver::record(Timeline stream) {
  HostThread& host = this_thread();
  std::lock_guard<std::mutex> lock(mutex_);
  ++host.counts.events_recorded;
  Clock& tail = tails_[stream];
  tail.merge(host.seen);
  tail.advance(stream);  // a tick of its own, so that a frozen stream has not come this far
  return tail;
}

void Driver::block(Timeline stream, const Clock& event) {
  HostThread& host = this_thread();
  std::lock_guard<std::mutex> lock(mutex_);
  ++host.counts.events_blocked_on;
  tails_[stream].merge(event);
}

void Driver::order_after(Timeline waiting, Timeline awaited) {
  std::lock_guard<std::mutex> lock(mutex_);
  tails_[waiting].merge(tails_[awaited]);
}

Clock Driver::tail(Timeline stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  return tails_[stream];
}

Clock Driver::tail_of_device(c10::DeviceIndex index) {
  std::lock_guard<std::mutex> lock(mutex_);
  Clock all;
  for (int stream = 0; stream < kStreamsPerDevice; ++stream) all.merge(tails_[index * kStreamsPerDevice + stream]);
  return all;
}

Timeline Driver::next_stream(c10::DeviceIndex index) {
  std::lock_guard<std::mutex> lock(mutex_);
  const int dealt = streams_dealt_.at(index)++;
  return index * kStreamsPerDevice + 1 + dealt % (kStreamsPerDevice - 1);
}

// ---- completion

bool Driver::complete(const Clock& moment) const { return !frozen_ || complete_.covers(moment); }

// The landings it returns have been run; they own tensors, so the caller drops them without holding the lock.
std::vector<Driver::Landing> Driver::see(HostThread& host, const Clock& moment) {
  host.seen.merge(moment);
  const auto landed = std::stable_partition(landings_.begin(), landings_.end(), [&](const Landing& landing) {
    return !host.seen.covers(landing.stream, landing.tick);
  });
  std::vector<Landing> done(std::make_move_iterator(landed), std::make_move_iterator(landings_.end()));
  landings_.erase(landed, landings_.end());
  for (const Landing& landing : done) landing.land();
  return done;
}

bool Driver::query(const Clock& moment) {
  HostThread& host = this_thread();
  std::vector<Landing> landed;  // outlives the lock
  std::lock_guard<std::mutex> lock(mutex_);
  if (complete(moment)) {
    ++host.counts.successful_queries;
    host.queries_in_a_row = 0;
    landed = see(host, moment);
    return true;
  }
  ++host.counts.failed_queries;
  TORCH_CHECK(++host.queries_in_a_row < kSpin, "fake device: ", kSpin, " queries in a row failed: this thread spins");
  return false;
}

void Driver::wait(const Clock& moment, int64_t Counts::*kind, const std::string& what) {
  HostThread& host = this_thread();
  std::vector<Landing> landed;  // outlives the lock
  std::unique_lock<std::mutex> lock(mutex_);
  ++(host.counts.*kind);
  TORCH_CHECK(host.no_sync_scopes == 0, "fake device: the host waits for the device in a NoSync scope: ", what);
  TORCH_CHECK(thawed_.wait_for(lock, patience_, [&] { return complete(moment); }), "fake device: the host waited ",
              patience_.count(), " ms for a frozen device: ", what);
  landed = see(host, moment);
}

void Driver::land_later(const Enqueued& copy, std::function<void()> land) {
  std::lock_guard<std::mutex> lock(mutex_);
  landings_.push_back({copy.stream, copy.tick, std::move(land)});
}

Clock Driver::known_at_free(Timeline owner) {
  HostThread& host = this_thread();
  std::lock_guard<std::mutex> lock(mutex_);
  Clock known = tails_[owner];
  known.merge(host.seen);
  return known;
}

void Driver::freeze(std::chrono::milliseconds patience) {
  std::lock_guard<std::mutex> lock(mutex_);
  frozen_ = true;
  patience_ = patience;
  complete_ = Clock();
  for (const Clock& tail : tails_) complete_.merge(tail);
}

void Driver::thaw() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    frozen_ = false;
  }
  thawed_.notify_all();
}

// ---- what was seen

void Driver::count(int64_t Counts::*what, int64_t number) {
  HostThread& host = this_thread();
  std::lock_guard<std::mutex> lock(mutex_);
  host.counts.*what += number;
}

void Driver::report(const std::vector<std::string>& races) {
  if (races.empty()) return;
  std::lock_guard<std::mutex> lock(mutex_);
  races_.insert(races_.end(), races.begin(), races.end());
}

Counts Driver::counts() {
  HostThread& host = this_thread();
  std::lock_guard<std::mutex> lock(mutex_);
  return host.counts;
}

Counts Driver::total_counts() {
  std::lock_guard<std::mutex> lock(mutex_);
  Counts total;
  for (const auto& thread : threads_) total += thread->counts;
  return total;
}

void Driver::reset() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& thread : threads_) thread->counts = Counts();
  races_.clear();
}

std::vector<std::string> Driver::races() {
  std::lock_guard<std::mutex> lock(mutex_);
  return races_;
}

void Driver::host_release(const void* key) {
  HostThread& host = this_thread();
  std::lock_guard<std::mutex> lock(mutex_);
  released_[key].merge(host.seen);
}

void Driver::host_acquire(const void* key) {
  HostThread& host = this_thread();
  std::lock_guard<std::mutex> lock(mutex_);
  host.seen.merge(released_[key]);
}

// ---- the public face

Counts counts() { return Driver::instance().counts(); }
Counts total_counts() { return Driver::instance().total_counts(); }
void reset() { Driver::instance().reset(); }
std::vector<std::string> races() { return Driver::instance().races(); }
void freeze(std::chrono::milliseconds patience) { Driver::instance().freeze(patience); }
void thaw() { Driver::instance().thaw(); }
void host_release(const void* key) { Driver::instance().host_release(key); }
void host_acquire(const void* key) { Driver::instance().host_acquire(key); }

NoSync::NoSync() { ++this_thread().no_sync_scopes; }
NoSync::~NoSync() { --this_thread().no_sync_scopes; }

}  // namespace fake_device
