// What makes the order of two accesses, and what does not.
#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>

#include <chrono>
#include <thread>

#include "catch.h"
#include "fake_device/fake_device.h"

namespace {

using at::Tensor;
using fake_device::kType;

Tensor ones(c10::DeviceIndex index = 0) { return at::ones({8}, fake_device::device(index)); }

// Nothing may be left on the streams that a later test is ordered after by chance.
struct Fresh {
  Fresh() { fake_device::reset(); }
};

bool raced(const std::string& words) {
  for (const std::string& race : fake_device::races()) {
    if (race.find(words) != std::string::npos) return true;
  }
  return false;
}

// Orders `stream` after what the default stream holds now.
void follow_default(const c10::Stream& stream) {
  c10::Event event(kType);
  event.record(fake_device::default_stream(stream.device_index()));
  event.block(stream);
}

}  // namespace

TEST_CASE_METHOD(Fresh, "streams are not ordered unless an event orders them") {
  Tensor x = ones();
  const c10::Stream side = fake_device::new_stream();

  SECTION("a read without an event") {
    const c10::StreamGuard guard(side);
    x.sum();
    CHECK(raced("read after write"));
    CHECK(raced("aten::sum"));
  }
  SECTION("a read after an event") {
    follow_default(side);
    const c10::StreamGuard guard(side);
    x.sum();
    CHECK(fake_device::races().empty());
  }
  SECTION("an event that was recorded too early") {
    follow_default(side);
    x.fill_(2);
    const c10::StreamGuard guard(side);
    x.sum();
    CHECK(raced("read after write"));
  }
  SECTION("a write that does not wait for a reader") {
    follow_default(side);
    {
      const c10::StreamGuard guard(side);
      x.sum();
    }
    x.fill_(2);
    CHECK(raced("write after read"));
  }
  SECTION("two writers") {
    const c10::StreamGuard guard(side);
    x.fill_(2);
    CHECK(raced("write after write"));
  }
  SECTION("writes into lists of tensors") {
    const c10::StreamGuard guard(side);
    at::_foreach_add_({x}, 1.0);
    CHECK(raced("write after write: aten::"));
  }
  SECTION("other bytes of the same storage") {
    Tensor halves = at::empty({8}, x.options());
    halves.narrow(0, 0, 4).fill_(1);
    const c10::StreamGuard guard(side);
    halves.narrow(0, 4, 4).fill_(2);
    CHECK(fake_device::races().empty());
    halves.narrow(0, 3, 2).fill_(2);
    CHECK(raced("write after write"));
  }
}

TEST_CASE_METHOD(Fresh, "what a host thread has seen complete orders what it does next") {
  Tensor x = ones();
  const c10::Stream side = fake_device::new_stream();
  c10::Event event(kType);
  event.record(fake_device::default_stream());

  SECTION("a query that answers true") { REQUIRE(event.query()); }
  SECTION("a stream's query that answers true") { REQUIRE(fake_device::default_stream().query()); }
  SECTION("a stream that was synchronised") { fake_device::default_stream().synchronize(); }
  SECTION("item()") { x.sum().item<float>(); }

  const c10::StreamGuard guard(side);
  x.fill_(2);
  CHECK(fake_device::races().empty());
}

TEST_CASE_METHOD(Fresh, "a thread knows what another has seen only through a hand-over that is told") {
  const bool told = GENERATE(false, true);
  Tensor x = ones();
  const c10::Stream side = fake_device::new_stream();
  follow_default(side);
  std::thread([&] {
    const c10::StreamGuard guard(side);
    x.sum();
    side.synchronize();
    if (told) fake_device::host_release(&x);
  }).join();
  if (told) fake_device::host_acquire(&x);
  x.fill_(2);
  CHECK(fake_device::races().empty() == told);
}

TEST_CASE_METHOD(Fresh, "memory is not freed under a stream that may still use it") {
  const c10::Stream side = fake_device::new_stream();
  Tensor x = ones();
  follow_default(side);
  {
    const c10::StreamGuard guard(side);
    x.sum();
  }
  SECTION("freed at once") {
    x.reset();
    CHECK(raced("free"));
  }
  SECTION("announced by record_stream") {
    x.record_stream(side);
    x.reset();
    CHECK(fake_device::races().empty());
  }
  SECTION("after the owner's stream has waited") {
    c10::Event read(kType);
    read.record(side);
    read.block(fake_device::default_stream());
    x.reset();
    CHECK(fake_device::races().empty());
  }
  SECTION("after the host has waited") {
    side.synchronize();
    x.reset();
    CHECK(fake_device::races().empty());
  }
}

TEST_CASE_METHOD(Fresh, "copies between devices are ordered on both devices' current streams") {
  const Tensor zero = ones(0);
  Tensor one = at::zeros({8}, fake_device::device(1));

  SECTION("on the streams that copy") {
    one.copy_(zero);
    one.add_(1);
    zero.add(1);
    CHECK(fake_device::races().empty());
    CHECK(one.sum().item<float>() == 16);
  }
  SECTION("a source that was written on a stream that the copy does not follow") {
    const c10::StreamGuard guard(fake_device::new_stream(0));
    one.copy_(zero);
    CHECK(raced("device 0 stream"));
  }
  SECTION("a destination that is used on a stream that the copy does not follow") {
    one.copy_(zero);
    const c10::StreamGuard guard(fake_device::new_stream(1));
    one.sum();
    CHECK(raced("read after write"));
    CHECK(raced("device 1 stream"));
  }
  SECTION("an event of one device orders a stream of the other") {
    const c10::Stream side = fake_device::new_stream(1);
    one.copy_(zero);
    c10::Event copied(kType);
    copied.record(fake_device::default_stream(0));
    copied.block(side);
    const c10::StreamGuard guard(side);
    one.sum();
    CHECK(fake_device::races().empty());
  }
}

TEST_CASE_METHOD(Fresh, "each device has streams of its own, and each thread its current ones") {
  const c10::Stream side = fake_device::new_stream(1);
  CHECK(side.device() == fake_device::device(1));
  CHECK(side != fake_device::default_stream(1));
  {
    const c10::StreamGuard guard(side);
    CHECK(fake_device::current_stream(1) == side);
    CHECK(fake_device::current_stream(0) == fake_device::default_stream(0));
    std::thread([&] { CHECK(fake_device::current_stream(1) == fake_device::default_stream(1)); }).join();
  }
  CHECK(fake_device::current_stream(1) == fake_device::default_stream(1));

  c10::Event event(kType);
  event.record(side);
  CHECK_THROWS_AS(event.record(fake_device::default_stream(0)), c10::Error);
}

TEST_CASE_METHOD(Fresh, "a frozen device completes nothing, and takes everything") {
  using namespace std::chrono_literals;
  Tensor x = ones();
  Tensor picture = fake_device::pinned_empty({8}, at::kFloat);
  const c10::Stream stream = fake_device::default_stream();
  c10::Event before(kType), after(kType);
  before.record(stream);

  fake_device::freeze(50ms);
  x.add_(1);
  picture.copy_(x, /*non_blocking=*/true);
  after.record(stream);

  CHECK(before.query());
  CHECK_FALSE(after.query());
  CHECK_FALSE(stream.query());
  CHECK_THROWS_WITH(stream.synchronize(), Catch::Contains("frozen device") && Catch::Contains("Stream::synchronize"));
  CHECK_THROWS_AS(x.cpu(), c10::Error);
  CHECK_FALSE(at::equal(picture, at::full({8}, 2.0f)));

  SECTION("until it is thawed") {
    fake_device::thaw();
    CHECK(after.query());
    CHECK(at::equal(picture, at::full({8}, 2.0f)));
  }
  SECTION("a wait ends when another thread thaws it") {
    fake_device::freeze(10s);
    std::thread thaws([] {
      std::this_thread::sleep_for(20ms);
      fake_device::thaw();
    });
    CHECK_NOTHROW(stream.synchronize());
    thaws.join();
  }
  SECTION("a thread that spins on a query gets an error") {
    CHECK_THROWS_WITH(
        [&] {
          while (!after.query()) continue;
        }(),
        Catch::Contains("spins"));
  }
  SECTION("a thread that works between queries does not") {
    for (int i = 0; i < 20000; ++i) {
      after.query();
      if (i % 1000 == 0) x.add_(1);
    }
    CHECK(fake_device::counts().failed_queries > 20000);
  }
  fake_device::thaw();
}
