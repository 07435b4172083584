// Operators give on the fake device what they give on the CPU, and wait for it exactly where a real device would.
#include <ATen/CPUGeneratorImpl.h>
#include <sys/wait.h>
#include <torch/torch.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <thread>

#include "catch.h"
#include "fake_device/fake_device.h"

namespace {

using torch::Tensor;

struct Inputs {
  Tensor x;        // 6 × 8 float32
  Tensor holes;    // 6 × 8 float32 with NaN and infinities
  Tensor wave;     // 6 × 8 complex64
  Tensor integer;  // 6 × 8 int64, 0 to 99
  Tensor mask;     // 6 × 8 bool
  Tensor index;    // 3 int64, rows of the others
};

Inputs inputs(c10::Device device) {
  torch::manual_seed(3);
  Inputs in;
  in.x = torch::randn({6, 8});
  in.holes = in.x.clone();
  in.holes[0][1] = NAN;
  in.holes[2][3] = INFINITY;
  in.holes[5][7] = -INFINITY;
  in.wave = torch::complex(in.x, in.x * 2);
  in.integer = torch::randint(100, {6, 8}, torch::kLong);
  in.mask = in.x > 0;
  in.index = torch::tensor({0, 2, 5});
  for (Tensor* t : {&in.x, &in.holes, &in.wave, &in.integer, &in.mask, &in.index}) *t = t->to(device);
  return in;
}

bool same(const Tensor& a, const Tensor& b) {
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) return false;
  const auto comparable = a.is_complex() ? torch::kComplexDouble : torch::kDouble;
  return torch::allclose(a.cpu().to(comparable), b.cpu().to(comparable), 0, 0, /*equal_nan=*/true);
}

struct Case {
  const char* name;
  Tensor (*run)(const Inputs&);
  int64_t synchronizations;
};

// What `write` makes of a new tensor.
Tensor filled(const Inputs& in, c10::IntArrayRef sizes, const std::function<void(Tensor&)>& write) {
  Tensor tensor = torch::empty(sizes, in.x.options());
  write(tensor);
  return tensor;
}

// An operator that writes into a row of a larger buffer, as the gather of values does.
Tensor into_row(const Inputs& in, int64_t numel, const std::function<void(Tensor&)>& write) {
  const Tensor buffer = torch::zeros({3, numel}, in.x.options());
  Tensor row = buffer.select(0, 1);
  write(row);
  return buffer;
}

// clang-format off
#define CASE(synchronizations, ...) \
  { #__VA_ARGS__, [](const Inputs& in) -> Tensor { return __VA_ARGS__; }, synchronizations }
// clang-format on

const Case kCases[] = {
    // Views and geometry
    CASE(0, in.x.narrow(1, 2, 3)),
    CASE(0, in.x.select(0, 1)),
    CASE(0, in.x.t()),
    CASE(0, in.x.t().reshape({-1})),
    CASE(0, in.x.view({8, 6})),
    CASE(0, in.x.unfold(1, 4, 2)),
    CASE(0, in.x.as_strided({2, 3}, {8, 2}, 5)),
    CASE(0, in.x.expand({2, 6, 8}).contiguous()),
    CASE(0, in.x.permute({1, 0}).flip(0)),
    CASE(0, torch::cat({in.x, in.holes}, 1)),
    CASE(0, torch::stack({in.x, in.holes})),
    CASE(0, torch::upsample_nearest2d(in.x.view({1, 1, 6, 8}), std::vector<int64_t>{12, 16})),
    // Gathering
    CASE(0, in.x.index_select(0, in.index)),
    CASE(0, in.x.reshape({-1}).index_select(0, in.index)),
    CASE(0, in.x.gather(1, in.integer.remainder(8))),
    CASE(0, in.x.take(in.integer.remainder(48))),
    CASE(0, in.x.index({in.index})),
    CASE(0, into_row(in, 3, [&](Tensor& row) { at::index_select_out(row, in.x.reshape({-1}), 0, in.index); })),
    CASE(0, into_row(in, 48,
                     [&](Tensor& row) {
                       row.view({6, 8}).copy_(in.integer);
                     })),
    CASE(0, into_row(in, 8, [&](Tensor& row) { at::mul_out(row, in.x[0], in.x[1]); })),
    CASE(0, in.x.index_select(0, in.index).repeat_interleave(in.index, 0, 7)),
    // Reductions
    CASE(0, in.x.amin()),
    CASE(0, in.x.amax({1}, true)),
    CASE(0, in.x.amin({0, 1})),
    CASE(0, std::get<0>(in.x.aminmax())),
    CASE(0, std::get<1>(at::aminmax(in.x, 1, true))),
    CASE(0, in.x.sum(torch::kDouble)),
    CASE(0, in.x.sum({1}, false, torch::kDouble)),
    CASE(0, in.mask.sum()),
    CASE(0, in.holes.isnan().any()),
    CASE(0, in.x.mean({0})),
    CASE(0, in.x.std(0)),
    CASE(0, in.x.var({1}, false)),
    CASE(0, in.x.norm()),
    CASE(0, in.x.cumsum(0)),
    CASE(0, in.x.quantile(0.5)),
    CASE(0, std::get<0>(in.x.sort())),
    CASE(0, std::get<0>(in.x.topk(2))),
    CASE(0, in.x.argmax(1)),
    CASE(0, in.x.t().matmul(in.x)),
    // Arithmetic, and into given memory
    CASE(0, in.x.sub(1).mul(in.x).div(3).add(in.x, 2)),
    CASE(0, in.x.clone().add_(in.x).sub_(1).mul_(in.x).div_(2).clamp_(-1, 1)),
    CASE(0, in.x.clamp(0, 1).mul(255).to(torch::kUInt8)),
    CASE(0, filled(in, {6, 8}, [&](Tensor& out) { at::add_out(out, in.x, in.holes); })),
    CASE(0, filled(in, {6, 8}, [&](Tensor& out) { at::sub_out(out, in.x, in.holes); })),
    CASE(0, filled(in, {6, 8}, [&](Tensor& out) { at::mul_out(out, in.x, in.x); })),
    CASE(0, filled(in, {6, 8}, [&](Tensor& out) { at::div_out(out, in.x, in.holes); })),
    CASE(0, filled(in, {6, 8}, [&](Tensor& out) { at::nan_to_num_out(out, in.holes, 0, 1, -1); })),
    CASE(0, filled(in, {0},
                   [&](Tensor& out) {
                     at::cat_out(out, {in.x, in.x}, 0);
                   })),
    CASE(0, in.x.abs().sqrt().log1p().exp().reciprocal().neg().round().sign()),
    CASE(0, in.holes.nan_to_num(0, 1, -1)),
    CASE(0, in.holes.isfinite().logical_not()),
    CASE(0, in.wave.abs()),
    CASE(0, torch::imag(in.wave.conj()).clone()),
    CASE(0, in.wave.conj().resolve_conj()),
    CASE(0, torch::lerp(in.x, in.holes, 0.25)),
    CASE(0, torch::addcmul(in.x, in.x, in.x, 2)),
    // Choosing
    CASE(0, torch::where(in.mask, in.x, in.holes)),
    CASE(0, torch::where(in.mask, in.x, 0.0)),
    CASE(0, in.holes.masked_fill(in.holes.isnan(), 7)),
    CASE(0, in.x.clone().masked_fill_(in.mask, -1)),
    CASE(0, in.x.clone().index_put_({in.mask}, torch::tensor(3.0f))),
    CASE(0, in.integer.bitwise_and(15).bitwise_or(64).bitwise_xor(3)),
    CASE(0, in.integer.__lshift__(2)),
    CASE(0, in.integer.floor_divide(7)),
    CASE(0, torch::bucketize(in.x, in.x.reshape({-1}).index_select(0, in.index).abs().cumsum(0))),
    // Scattering
    CASE(0, in.x.clone().index_add_(0, in.index, in.x.narrow(0, 0, 3))),
    CASE(0, in.x.clone().index_copy_(0, in.index, in.x.narrow(0, 3, 3))),
    CASE(0, in.x.clone().index_fill_(0, in.index, 2)),
    CASE(0, in.x.clone().scatter_(1, in.index.view({1, 3}), in.x)),
    CASE(0, in.x.clone().scatter_add_(1, in.index.view({1, 3}), in.x)),
    CASE(0, in.x.clone().index_put_({in.index}, in.x.narrow(0, 3, 3))),
    CASE(0, filled(in, {6, 8}, [&](Tensor& out) { out.copy_(in.x).narrow(0, 0, 2).copy_(out.narrow(0, 2, 2)); })),
    // Types
    CASE(0, in.x.to(torch::kHalf).to(torch::kFloat)),
    CASE(0, in.x.to(torch::kBFloat16).to(torch::kFloat)),
    CASE(0, filled(in, {6, 8}, [&](Tensor& out) { out.copy_(in.x.to(torch::kHalf)); })),
    CASE(0, filled(in, {6, 8}, [&](Tensor& out) { out.copy_(in.x.to(torch::kBFloat16)); })),
    CASE(0, filled(in, {6, 8}, [&](Tensor& out) { out.copy_(in.x.to(torch::kDouble)); })),
    CASE(0, filled(in, {6, 8}, [&](Tensor& out) { out.copy_(in.integer); })),
    CASE(0, filled(in, {6, 8}, [&](Tensor& out) { out.copy_(in.mask); })),
    CASE(0, filled(in, {6, 8}, [&](Tensor& out) { out.copy_(in.integer.to(torch::kUInt8)); })),
    // Creation
    CASE(0, torch::arange(5, in.index.options())),
    CASE(0, torch::arange(0, 3, 0.5, in.x.options())),
    CASE(0, torch::linspace(0, 1, 7, in.x.options())),
    CASE(0, torch::full({2, 3}, 3.5, in.x.options())),
    CASE(0, torch::zeros({4}, in.index.options())),
    CASE(0, torch::ones_like(in.mask)),
    CASE(0, torch::eye(3, in.x.options())),
    CASE(0, torch::scalar_tensor(3, in.x.options())),
    CASE(0,
         filled(in, {3, 3}, [&](Tensor& out) { out.normal_(1, 2, torch::make_generator<at::CPUGeneratorImpl>(5)); })),
    CASE(0, filled(in, {0},
                   [&](Tensor& out) {
                     out.resize_({7, 3}).fill_(2);
                   })),
    CASE(0, filled(in, {0}, [&](Tensor& out) { out.set_(in.x); })),
    CASE(0, filled(in, {0}, [&](Tensor& out) { out.set_data(in.x); })),
    CASE(0, filled(in, {6, 8},
                   [&](Tensor& out) {
                     at::_foreach_add_({out.zero_(), out}, 1.0);
                   })),

    // What waits for the device
    CASE(1, torch::full({}, in.x.amax().item<float>())),
    CASE(1, in.x.index({in.mask})),
    CASE(1, in.x.masked_select(in.mask)),
    CASE(1, in.x.nonzero()),
    CASE(1, in.x.index_select(0, in.index).repeat_interleave(in.index, 0)),
    CASE(1, in.x.histc(4)),
    CASE(1, std::get<0>(at::_unique2(in.integer))),
    CASE(1, in.x.cpu()),
    CASE(1, torch::full({}, in.x.equal(in.holes))),
    CASE(1, in.x.index({torch::tensor({1, 2})})),
    CASE(1, torch::tensor({1, 2}, in.index.options())),
};

}  // namespace

TEST_CASE("operators agree with the CPU, and wait where a real device would") {
  for (const Case& c : kCases) {
    DYNAMIC_SECTION(c.name) {
      const Inputs on_device = inputs(fake_device::device());
      fake_device::reset();
      const Tensor result = c.run(on_device);
      CHECK(fake_device::counts().synchronizations() == c.synchronizations);
      CHECK(same(result, c.run(inputs(torch::kCPU))));
      CHECK(fake_device::races().empty());
    }
  }
}

TEST_CASE("the second device computes as the first does") {
  for (const Case& c : kCases) {
    DYNAMIC_SECTION(c.name) {
      const Inputs on_device = inputs(fake_device::device(1));
      const int64_t first_before = fake_device::live_bytes(0);
      const Tensor result = c.run(on_device);
      CHECK((result.is_cpu() || result.device() == fake_device::device(1)));
      CHECK(same(result, c.run(inputs(torch::kCPU))));
      CHECK(fake_device::live_bytes(0) == first_before);
      CHECK(fake_device::races().empty());
    }
  }
}

TEST_CASE("operators refuse tensors of several devices") {
  const Tensor zero = torch::ones({3}, fake_device::device(0));
  const Tensor one = torch::ones({3}, fake_device::device(1));
  const auto says_so = Catch::Contains("Expected all tensors to be on the same device");
  CHECK_THROWS_WITH(zero + one, says_so);
  CHECK_THROWS_WITH(zero + torch::ones({3}), says_so);
  CHECK_THROWS_WITH(zero.index_select(0, torch::tensor({1})), says_so);
  CHECK_THROWS_WITH(torch::cat({zero, one}), says_so);
  CHECK_NOTHROW(zero + torch::tensor(1.0f));  // a CPU scalar is an argument of the kernel
}

TEST_CASE("copies between host and device are counted by kind") {
  const c10::Device device = fake_device::device();
  const Tensor x = torch::ones({4, 4}, device);
  Tensor pinned = fake_device::pinned_empty({4, 4}, torch::kFloat);
  Tensor pageable = torch::empty({4, 4});
  fake_device::reset();

  SECTION("to pinned memory, non-blocking") {
    pinned.copy_(x, /*non_blocking=*/true);
    CHECK(fake_device::counts().async_copies_to_host == 1);
    CHECK(fake_device::counts().synchronizations() == 0);
    CHECK_FALSE(torch::equal(pinned, torch::ones({4, 4})));  // not there yet
    fake_device::default_stream().synchronize();
    CHECK(torch::equal(pinned, torch::ones({4, 4})));
  }
  SECTION("to pinned memory, blocking") {
    pinned.copy_(x);
    CHECK(fake_device::counts().blocking_copies_to_host == 1);
    CHECK(torch::equal(pinned, torch::ones({4, 4})));
  }
  SECTION("to pageable memory, even when it is called non-blocking") {
    pageable.copy_(x, /*non_blocking=*/true);
    CHECK(fake_device::counts().blocking_copies_to_host == 1);
    CHECK(torch::equal(pageable, torch::ones({4, 4})));
  }
  SECTION("to columns of pinned memory: through pageable memory") {
    pinned.narrow(1, 0, 2).copy_(x.narrow(1, 0, 2), /*non_blocking=*/true);
    CHECK(fake_device::counts().blocking_copies_to_host == 1);
    CHECK(torch::equal(pinned.narrow(1, 0, 2), torch::ones({4, 2})));
  }
  SECTION("with another type: non-blocking, converted on the device") {
    pinned.copy_(x.to(torch::kDouble), /*non_blocking=*/true);
    CHECK(fake_device::counts().async_copies_to_host == 1);
    CHECK(fake_device::counts().device_allocations == 2);  // the double and the temporary
    CHECK(fake_device::current_stream().query());
    CHECK(torch::equal(pinned, torch::ones({4, 4})));
  }
  SECTION("with another type: blocking, converted on the host") {
    Tensor wide = torch::empty({4, 4}, torch::kDouble);
    wide.copy_(x);
    CHECK(fake_device::counts().device_allocations == 0);
    CHECK(torch::equal(wide, torch::ones({4, 4}, torch::kDouble)));
  }
  SECTION("from pinned memory, non-blocking") {
    pinned.fill_(5);
    const Tensor there = pinned.to(device, /*non_blocking=*/true);
    CHECK(fake_device::counts().async_copies_to_device == 1);
    CHECK(fake_device::counts().synchronizations() == 0);
    CHECK(same(there, pinned));
  }
  SECTION("from pageable memory") {
    pageable.fill_(5);
    const Tensor there = pageable.to(device, torch::kHalf, /*non_blocking=*/true);
    CHECK(fake_device::counts().blocking_copies_to_device == 1);
    CHECK(same(there, pageable.to(torch::kHalf)));
  }
  SECTION("from device to device") {
    const Tensor other = x.to(fake_device::device(1));
    CHECK(fake_device::counts().synchronizations() == 0);
    CHECK(other.device() == fake_device::device(1));
    CHECK(same(other, x));
  }
  CHECK(fake_device::races().empty());
}

TEST_CASE("pinned memory is found by every name it has") {
  const c10::Device device = fake_device::device();
  fake_device::reset();
  const Tensor made[] = {torch::ones({4}).pin_memory(), torch::ones({4}).pin_memory(device),
                         torch::empty({4}, torch::TensorOptions().pinned_memory(true)),
                         at::empty({4}, at::TensorOptions().pinned_memory(true)),
                         fake_device::pinned_empty({4}, torch::kFloat)};
  CHECK(fake_device::counts().pinned_allocations == 5);
  for (const Tensor& tensor : made) {
    CHECK(tensor.is_pinned());
    CHECK(tensor.is_pinned(device));
    CHECK(tensor.narrow(0, 2, 2).is_pinned());
  }
  CHECK(torch::equal(made[0], torch::ones({4})));
  CHECK_FALSE(torch::ones({4}).is_pinned());
}

TEST_CASE("allocations are counted, per device and per thread") {
  const int64_t zero = fake_device::live_bytes(0), one = fake_device::live_bytes(1);
  fake_device::reset();
  {
    const Tensor a = torch::empty({10}, fake_device::device(0));
    std::thread([] { torch::empty({20}, fake_device::device(1)); }).join();
    CHECK(fake_device::live_bytes(0) == zero + 40);
    CHECK(fake_device::live_bytes(1) == one);
    CHECK(fake_device::counts().device_allocations == 1);
    CHECK(fake_device::counts().device_bytes == 40);
    CHECK(fake_device::total_counts().device_allocations == 2);
    CHECK(fake_device::total_counts().device_bytes == 120);
  }
  CHECK(fake_device::live_bytes() == zero + one);
}

TEST_CASE("the host cannot read device memory") {
  const Tensor x = torch::ones({4}, fake_device::device());
  const auto* pointer = static_cast<const volatile float*>(x.data_ptr());
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGSEGV, SIG_DFL);
    std::signal(SIGBUS, SIG_DFL);
    _exit(*pointer == 1 ? 1 : 0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
  // The second where the compiler addresses by rbp: such an address is a fault of the stack segment then.
  CHECK((WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGBUS));
}

TEST_CASE("a NoSync scope throws where its thread would wait, and there alone") {
  const Tensor x = torch::ones({4}, fake_device::device());
  {
    const fake_device::NoSync no_sync;
    CHECK_THROWS_WITH(x.sum().item<float>(), Catch::Contains("NoSync") && Catch::Contains("item()"));
    CHECK_THROWS_WITH(x.nonzero(), Catch::Contains("aten::nonzero"));
    CHECK_THROWS_AS(x.cpu(), c10::Error);
    CHECK_NOTHROW(x.add(1));
    float elsewhere = 0;
    std::thread([&] { elsewhere = x.sum().item<float>(); }).join();
    CHECK(elsewhere == 4);
  }
  CHECK_NOTHROW(x.cpu());
}
