// Does the fake device see the mistakes that Beholder could make? A visualiser of one screenful, with one mistake at a
// time: each must be caught in the way that is expected, and nothing may be said against the one that has none.
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <torch/torch.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "catch.h"
#include "fake_device/fake_device.h"

namespace {

using namespace std::chrono_literals;
using torch::Tensor;

enum class Mistake {
  None,
  // in update(), on the training thread
  Item,
  StreamSynchronize,
  BlockingCopy,
  IndicesFromHost,
  BooleanMask,
  EventNotRecorded,
  SlotReused,
  WaitsForRenderersLock,
  SpinsOnQuery,
  // in render(), on the render thread
  DoesNotWaitForEvent,
  ReadsParameters,
  FreesUnderOtherStream,
  ReadsPictureEarly,
  PageablePicture,
};

constexpr int kSlots = 2;
constexpr int64_t kValuesShown = 4;

// Staging memory of one picture. It goes round: update() fills it, render() drains it.
struct Slot {
  Tensor values;                           // parameters × kValuesShown
  c10::Event filled{fake_device::kType};   // guarded by mutex
  c10::Event drained{fake_device::kType};  // guarded by mutex
  bool queued = false;                     // guarded by mutex
  std::mutex mutex;
};

// Shows the first values of every parameter. update() belongs to the training thread, which it never lets wait; the
// picture is made on a thread and a stream of its own.
class Visualiser {
 public:
  Visualiser(const torch::nn::Module& module, Mistake mistake)
      : mistake_(mistake), parameters_(module.parameters()), stream_(fake_device::new_stream()) {
    const auto options = parameters_[0].options().requires_grad(false);
    const auto rows = static_cast<int64_t>(parameters_.size());
    for (Slot& slot : slots_) slot.values = torch::zeros({rows, kValuesShown}, options);
    indices_ = torch::arange(kValuesShown, options.dtype(torch::kLong));
    picture_ = makes(Mistake::PageablePicture) ? torch::empty({rows, kValuesShown}, torch::kUInt8)
                                               : fake_device::pinned_empty({rows, kValuesShown}, torch::kUInt8);
    thread_ = std::thread([this] { run(); });
  }

  ~Visualiser() { stop(); }

  void update() {
    const torch::NoGradGuard no_grad;
    const c10::Stream stream = fake_device::current_stream();
    Slot& slot = slots_[next_];
    std::unique_lock<std::mutex> renderers(rendering_, std::defer_lock);
    if (makes(Mistake::WaitsForRenderersLock)) renderers.lock();

    std::lock_guard<std::mutex> lock(slot.mutex);
    if (makes(Mistake::SpinsOnQuery)) {
      while (!slot.drained.query()) continue;
    }
    if (!makes(Mistake::SlotReused)) {
      const bool is_free = !slot.queued && slot.drained.query();
      if (!is_free) return;  // this picture is dropped
    }
    if (makes(Mistake::StreamSynchronize)) stream.synchronize();

    for (size_t i = 0; i < parameters_.size(); ++i) gather(parameters_[i].reshape({-1}), slot.values.select(0, i));

    if (makes(Mistake::Item)) slot.values.sum().item<float>();
    if (makes(Mistake::BlockingCopy)) slot.values.cpu();
    if (!makes(Mistake::EventNotRecorded)) slot.filled.record(stream);
    slot.queued = true;
    push(slot);
    next_ = (next_ + 1) % kSlots;
  }

  // Blocks until every picture so far is done, or has come as far as a frozen device lets it. No clock learns of it.
  void settle() {
    std::unique_lock<std::mutex> lock(queue_mutex_);
    settled_.wait_for(lock, 10s, [this] { return (queue_.empty() && !busy_) || waiting_; });
  }

  // What was seen of the render thread; complete after it.
  void stop() {
    {
      std::lock_guard<std::mutex> lock(queue_mutex_);
      stopping_ = true;
    }
    queue_changed_.notify_all();
    if (thread_.joinable()) thread_.join();
    for (Slot& slot : slots_) slot.drained.query();  // the training thread learns that the slots can be freed
  }

  int pictures() const { return pictures_; }
  int wrong_pictures() const { return wrong_pictures_; }
  const fake_device::Counts& render_counts() const { return render_counts_; }

 private:
  bool makes(Mistake mistake) const { return mistake_ == mistake; }

  // Training thread.
  void gather(const Tensor& values, Tensor row) {
    if (makes(Mistake::BooleanMask)) {
      const Tensor first = values.narrow(0, 0, kValuesShown);
      row.copy_(first.masked_select(first.isnan().logical_not()));
    } else if (makes(Mistake::IndicesFromHost)) {
      at::index_select_out(row, values, 0, torch::tensor({0, 1, 2, 3}, indices_.options()));
    } else {
      at::index_select_out(row, values, 0, indices_);
    }
  }

  void push(Slot& slot) {
    {
      std::lock_guard<std::mutex> lock(queue_mutex_);
      queue_.push_back(&slot);
    }
    queue_changed_.notify_all();
  }

  // Render thread.
  void run() {
    while (Slot* slot = pop()) {
      try {
        std::unique_lock<std::mutex> held(rendering_, std::defer_lock);
        if (makes(Mistake::WaitsForRenderersLock)) held.lock();
        render(*slot);
      } catch (const c10::Error&) {
        // The device is frozen, and patience ended. What matters is whether update() noticed.
      }
      std::lock_guard<std::mutex> lock(slot->mutex);
      slot->queued = false;
    }
    render_counts_ = fake_device::counts();
  }

  Slot* pop() {
    std::unique_lock<std::mutex> lock(queue_mutex_);
    busy_ = false;
    settled_.notify_all();
    queue_changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return nullptr;
    Slot* slot = queue_.front();
    queue_.pop_front();
    busy_ = true;
    return slot;
  }

  void render(Slot& slot) {
    const torch::NoGradGuard no_grad;
    const c10::StreamGuard guard(stream_);
    if (!makes(Mistake::DoesNotWaitForEvent)) {
      std::lock_guard<std::mutex> lock(slot.mutex);
      slot.filled.block(stream_);
    }
    Tensor shown = scaled(makes(Mistake::ReadsParameters) ? values_of_first_parameter() : slot.values);
    if (makes(Mistake::FreesUnderOtherStream)) shown = through_temporary_of_default_stream(shown);
    picture_.copy_(shown, /*non_blocking=*/true);
    {
      std::lock_guard<std::mutex> lock(slot.mutex);
      slot.drained.record(stream_);
    }
    if (!makes(Mistake::ReadsPictureEarly)) wait_for_picture();
    check_picture();
  }

  // Each row to 0..255.
  static Tensor scaled(const Tensor& values) {
    const Tensor low = values.amin({1}, true), high = values.amax({1}, true);
    return values.sub(low).div(high.sub(low).clamp(1e-6)).mul(255).clamp(0, 255).to(torch::kUInt8);
  }

  Tensor values_of_first_parameter() const {
    return parameters_[0].reshape({-1}).narrow(0, 0, kValuesShown).expand_as(slots_[0].values);
  }

  // The temporary belongs to the default stream, which may hand its memory on while our stream still writes there.
  Tensor through_temporary_of_default_stream(const Tensor& values) const {
    const c10::Stream theirs = fake_device::default_stream();
    Tensor temporary;
    {
      const c10::StreamGuard guard(theirs);
      temporary = torch::empty_like(values);
    }
    c10::Event allocated(fake_device::kType);
    allocated.record(theirs);
    allocated.block(stream_);
    temporary.copy_(values);
    return temporary.clone();
  }

  void wait_for_picture() {
    set_waiting(true);
    try {
      stream_.synchronize();
    } catch (...) {
      set_waiting(false);
      throw;
    }
    set_waiting(false);
  }

  void set_waiting(bool waiting) {
    std::lock_guard<std::mutex> lock(queue_mutex_);
    waiting_ = waiting;
    if (waiting) settled_.notify_all();
  }

  // In a right one each row has the values 0 and 255, and nothing is garbage.
  void check_picture() {
    const Tensor read = picture_.to(torch::kInt);
    const bool right = (read.amin({1}) == 0).all().item<bool>() && (read.amax({1}) == 255).all().item<bool>();
    ++pictures_;
    if (!right) ++wrong_pictures_;
  }

  const Mistake mistake_;
  const std::vector<Tensor> parameters_;
  const c10::Stream stream_;  // the render thread's
  Tensor indices_;            // kValuesShown, on the device
  Tensor picture_;            // parameters × kValuesShown, uint8, on the host; the render thread's
  Slot slots_[kSlots];
  int next_ = 0;  // training thread alone

  std::mutex rendering_;  // held over a whole picture: only by the one that makes the mistake
  std::mutex queue_mutex_;
  std::condition_variable queue_changed_, settled_;
  std::deque<Slot*> queue_;  // these four: guarded by queue_mutex_
  bool stopping_ = false;
  bool busy_ = false;     // a picture is being made
  bool waiting_ = false;  // ... and the render thread waits for the device

  int pictures_ = 0;  // these three: the render thread's, read after it has ended
  int wrong_pictures_ = 0;
  fake_device::Counts render_counts_;
  std::thread thread_;
};

struct NetImpl : torch::nn::Module {
  torch::nn::Conv2d conv{torch::nn::Conv2dOptions(1, 4, 3).bias(false)};
  torch::nn::BatchNorm2d norm{torch::nn::BatchNorm2dOptions(4).affine(false)};
  torch::nn::Linear linear{4 * 6 * 6, 10};

  NetImpl() {
    register_module("conv", conv);
    register_module("norm", norm);
    register_module("linear", linear);
  }
  Tensor forward(const Tensor& x) { return linear(torch::relu(norm(conv(x))).flatten(1)); }
};
TORCH_MODULE(Net);

// Who raised the alarm.
enum class Alarm { None, Synchronization, Race, WrongPicture, UpdateHeldUp, Spin, BlockingPicture };

std::ostream& operator<<(std::ostream& out, Alarm alarm) {
  const char* names[] = {"none", "synchronisation", "race", "wrong picture", "update held up",
                         "spin", "blocking picture"};
  return out << names[static_cast<int>(alarm)];
}

// What was observed of one training.
struct Observed {
  fake_device::Counts in_update;
  std::string thrown_by_update;
  std::chrono::steady_clock::duration slowest_update{};
  std::vector<std::string> races;
  int wrong_pictures = 0;
  int pictures = 0;
  fake_device::Counts on_render_thread;

  Alarm alarm() const {
    if (thrown_by_update.find("spins") != std::string::npos) return Alarm::Spin;
    if (!thrown_by_update.empty() || in_update.synchronizations() > 0) return Alarm::Synchronization;
    if (slowest_update > kHeldUp) return Alarm::UpdateHeldUp;
    if (on_render_thread.blocking_copies_to_host > 0) return Alarm::BlockingPicture;
    if (!races.empty()) return Alarm::Race;
    if (wrong_pictures > 0) return Alarm::WrongPicture;
    return Alarm::None;
  }

  // How long a wait for the frozen device lasts, and an update() that takes so long that it must have been held up.
  static constexpr auto kPatience = 1500ms;
  static constexpr auto kHeldUp = 750ms;
};

// A few steps of training; with `frozen` nothing that was enqueued after the third completes until the last is done.
Observed train(Mistake mistake, bool frozen) {
  constexpr int kSteps = 6, kFrozenFrom = 3;
  torch::manual_seed(1);
  Net net;
  fake_device::move_module(*net, fake_device::device());
  const Tensor x = torch::randn({4, 1, 8, 8}).to(fake_device::device());
  const Tensor y = torch::randint(10, {4}).to(fake_device::device());
  torch::optim::SGD optimizer(net->parameters(), 0.01);

  Observed observed;
  fake_device::reset();
  Visualiser visualiser(*net, mistake);
  for (int step = 0; step < kSteps; ++step) {
    optimizer.zero_grad();
    torch::cross_entropy_loss(net(x), y).backward();
    optimizer.step();

    if (frozen && step == kFrozenFrom) fake_device::freeze(Observed::kPatience);
    const fake_device::Counts before = fake_device::counts();
    const auto start = std::chrono::steady_clock::now();
    try {
      if (frozen) {
        const fake_device::NoSync no_sync;
        visualiser.update();
      } else {
        visualiser.update();
      }
    } catch (const c10::Error& error) {
      observed.thrown_by_update = error.what_without_backtrace();
    }
    observed.slowest_update = std::max(observed.slowest_update, std::chrono::steady_clock::now() - start);
    observed.in_update += fake_device::counts() - before;
    visualiser.settle();
  }
  fake_device::thaw();
  visualiser.stop();
  observed.races = fake_device::races();
  observed.wrong_pictures = visualiser.wrong_pictures();
  observed.pictures = visualiser.pictures();
  observed.on_render_thread = visualiser.render_counts();
  return observed;
}

struct Expectation {
  Mistake mistake;
  const char* name;
  Alarm running;
  Alarm frozen;
};

// A lock and a spin are seen while the device is frozen only: else it is never late, and nothing has to wait for it.
const Expectation kExpectations[] = {
    {Mistake::None, "no mistake", Alarm::None, Alarm::None},
    {Mistake::Item, "item() in update", Alarm::Synchronization, Alarm::Synchronization},
    {Mistake::StreamSynchronize, "synchronize() in update", Alarm::Synchronization, Alarm::Synchronization},
    {Mistake::BlockingCopy, "blocking copy in update", Alarm::Synchronization, Alarm::Synchronization},
    {Mistake::IndicesFromHost, "index tensor from the host", Alarm::Synchronization, Alarm::Synchronization},
    {Mistake::BooleanMask, "boolean mask in update", Alarm::Synchronization, Alarm::Synchronization},
    {Mistake::EventNotRecorded, "event not recorded", Alarm::Race, Alarm::Race},
    {Mistake::SlotReused, "slot reused before it was drained", Alarm::Race, Alarm::Race},
    {Mistake::WaitsForRenderersLock, "update waits for a lock of the renderer", Alarm::None, Alarm::UpdateHeldUp},
    {Mistake::SpinsOnQuery, "update spins on query()", Alarm::None, Alarm::Spin},
    {Mistake::DoesNotWaitForEvent, "render stream does not wait", Alarm::Race, Alarm::Race},
    {Mistake::ReadsParameters, "renderer reads the parameters", Alarm::Race, Alarm::Race},
    {Mistake::FreesUnderOtherStream, "temporary freed under another stream", Alarm::Race, Alarm::Race},
    {Mistake::ReadsPictureEarly, "picture read before it is there", Alarm::WrongPicture, Alarm::WrongPicture},
    {Mistake::PageablePicture, "picture in pageable memory", Alarm::BlockingPicture, Alarm::BlockingPicture},
};

}  // namespace

TEST_CASE("each mistake that a visualiser can make is caught") {
  for (const Expectation& expectation : kExpectations) {
    DYNAMIC_SECTION(expectation.name) {
      CHECK(train(expectation.mistake, /*frozen=*/false).alarm() == expectation.running);
    }
  }
}

TEST_CASE("each mistake is caught while the device is frozen") {
  for (const Expectation& expectation : kExpectations) {
    DYNAMIC_SECTION(expectation.name) {
      CHECK(train(expectation.mistake, /*frozen=*/true).alarm() == expectation.frozen);
    }
  }
}

TEST_CASE("a visualiser without mistakes copies each picture once, and allocates nothing in update()") {
  const Observed observed = train(Mistake::None, /*frozen=*/false);
  CHECK(observed.pictures == 6);
  CHECK(observed.on_render_thread.async_copies_to_host == observed.pictures);
  CHECK(observed.on_render_thread.copies_to_host() == observed.pictures);
  CHECK(observed.in_update.copies_to_host() == 0);
  CHECK(observed.in_update.copies_to_device() == 0);
  CHECK(observed.in_update.device_allocations == 0);
  CHECK(observed.in_update.pinned_allocations == 0);
}
