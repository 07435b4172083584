// The copies of the training thread on the CPU, element by element, between pages that may not be touched.

#include "beholder/capture.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "beholder/device_work.h"
#include "catch.h"

namespace beholder {
namespace {

/// Memory whose last byte is the last of its page; the page behind it may not be touched.
class GuardedMemory {
 public:
  explicit GuardedMemory(size_t bytes) : bytes_(bytes) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    room_ = (bytes + page - 1) / page * page;
    mapped_ = static_cast<char*>(
        mmap(nullptr, room_ + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, /*fd=*/-1, 0));
    REQUIRE(mapped_ != MAP_FAILED);
    REQUIRE(mprotect(mapped_ + room_, page, PROT_NONE) == 0);
    size_ = room_ + page;
  }
  ~GuardedMemory() { munmap(mapped_, size_); }
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;

  char* data() const { return mapped_ + room_ - bytes_; }
  size_t size() const { return bytes_; }
  at::Tensor tensor(c10::ScalarType dtype) const {
    return at::from_blob(data(), {static_cast<int64_t>(bytes_ / c10::elementSize(dtype))}, dtype);
  }

 private:
  size_t bytes_, room_ = 0, size_ = 0;
  char* mapped_ = nullptr;
};

using Runs = std::vector<std::pair<int64_t, int64_t>>;  // (first, length)

/// From 0, `step` from one to the next; 0: one to three, by chance.
std::vector<int64_t> offsets(std::mt19937& random, size_t count, int64_t step) {
  std::vector<int64_t> out{0};
  while (out.size() < count) out.push_back(out.back() + (step > 0 ? step : 1 + static_cast<int64_t>(random() % 3)));
  return out;
}

/// From 0, with one to sixty elements between two runs.
Runs random_runs(std::mt19937& random) {
  Runs runs(1 + random() % 8);
  int64_t first = 0;
  for (auto& run : runs) {
    run = {first, 1 + static_cast<int64_t>(random() % 14)};
    first += run.second + 1 + static_cast<int64_t>(random() % 60);
  }
  return runs;
}

/// Gathers one section and says what is wrong with it; "" where it is as it must be.
std::string wrong_gather(const StagedSection& section, const std::vector<int64_t>& elements, c10::ScalarType dtype) {
  const size_t size = c10::elementSize(dtype);
  const int64_t last = *std::max_element(elements.begin(), elements.end());
  const GuardedMemory source(static_cast<size_t>(last + 1) * size), target(elements.size() * size);
  std::mt19937 random(static_cast<uint32_t>(elements.size()));
  for (size_t i = 0; i < source.size(); ++i) source.data()[i] = static_cast<char>(random());

  Plan plan;
  plan.tensors.emplace_back();
  plan.views.emplace_back();
  plan.views[0].sections = {section};
  plan.slots.push_back(std::make_unique<Slot>());
  Slot& slot = *plan.slots[0];
  slot.targets = {{target.tensor(dtype)}};
  slot.present.resize(1);
  const at::Tensor tensor = source.tensor(dtype);
  for (const bool direct : {true, false}) {  // as it was decided with the plan, and the long way
    plan.tensors[0] = TensorSpec();
    plan.tensors[0].dtype = dtype;
    plan.tensors[0].sizes = {direct ? tensor.numel() : tensor.numel() + 1};
    plan.tensors[0].strides = {1};
    GatherIndex index(plan);
    if (direct != index.direct[0].is_as_planned(tensor) && direct == !section.box_sizes.empty()) return "not direct";
    index.direct[0].possible = index.direct[0].possible && direct;
    std::memset(target.data(), 0, target.size());
    gather(plan, index, slot, 0, tensor);
    for (size_t i = 0; i < elements.size(); ++i) {
      if (std::memcmp(target.data() + i * size, source.data() + static_cast<size_t>(elements[i]) * size, size) != 0) {
        return "value " + std::to_string(i) + " of " + std::to_string(elements.size()) + " is another element's";
      }
    }
    if (!slot.present[0].came) return "it did not come";
  }
  return "";
}

std::string wrong_listed(const std::vector<int64_t>& outer, const std::vector<int64_t>& inner, int64_t step,
                         const Runs& runs, c10::ScalarType dtype) {
  StagedSection section;
  section.outer = outer;
  section.inner = inner;
  section.inner_step = step;
  section.inner_runs = runs;
  std::vector<int64_t> elements;
  for (const auto a : outer) {
    for (const auto b : inner) elements.push_back(a + b);
  }
  section.count = static_cast<int64_t>(elements.size());
  return wrong_gather(section, elements, dtype);
}

constexpr c10::ScalarType kDtypes[] = {c10::kByte, c10::kHalf, c10::kFloat, c10::kInt, c10::kLong, c10::kComplexDouble};

TEST_CASE("rows of every n-th value are gathered exactly, and nothing behind them is read or written", "[capture]") {
  std::mt19937 random(1);
  for (const auto dtype : kDtypes) {
    for (int64_t step = 1; step <= 6; ++step) {
      for (size_t count = 1; count <= 37; ++count) {
        for (const size_t rows : {1, 2, 30}) {
          const auto inner = offsets(random, count, step);
          auto outer = offsets(random, rows, 0);
          for (auto& offset : outer) offset *= inner.back() + 1;
          CAPTURE(dtype, step, count, rows);
          REQUIRE(wrong_listed(outer, inner, count > 1 ? step : 0, {}, dtype) == "");
        }
      }
    }
  }
}

TEST_CASE("rows of runs and rows without a rule are gathered exactly", "[capture]") {
  std::mt19937 random(2);
  for (const auto dtype : kDtypes) {
    for (int round = 0; round < 300; ++round) {
      const Runs runs = random() % 2 == 0 ? random_runs(random) : Runs{};
      std::vector<int64_t> inner;
      for (const auto& [first, length] : runs) {
        for (int64_t i = 0; i < length; ++i) inner.push_back(first + i);
      }
      if (runs.empty()) inner = offsets(random, 1 + random() % 60, 0);
      auto outer = offsets(random, 1 + random() % 20, 0);
      for (auto& offset : outer) offset *= inner.back() + 1;
      std::shuffle(outer.begin(), outer.end(), random);  // the memory's last row may be any
      CAPTURE(dtype, round, inner, outer);
      REQUIRE(wrong_listed(outer, inner, 0, runs, dtype) == "");
    }
  }
}

TEST_CASE("a thread of ours keeps to one CPU thread, whatever the user has asked LibTorch for", "[capture]") {
  const int before = at::get_num_threads();
  at::set_num_threads(2);
  int of_ours = 0;
  std::thread([&] {
    use_one_cpu_thread();
    at::zeros({1 << 20}, at::kByte).fill_(1);  // so many that two threads would share them
    of_ours = at::get_num_threads();
  }).join();
  CHECK(of_ours == 1);
  CHECK(at::get_num_threads() == 2);
  at::set_num_threads(before);
}

TEST_CASE("boxes are gathered exactly", "[capture]") {
  std::mt19937 random(3);
  for (const auto dtype : kDtypes) {
    for (int round = 0; round < 300; ++round) {
      StagedSection section;
      const size_t rank = 1 + random() % 4;
      int64_t stride = 1;
      section.box_sizes.resize(rank);
      section.box_strides.resize(rank);
      for (size_t d = rank; d-- > 0;) {
        section.box_sizes[d] = 1 + static_cast<int64_t>(random() % 9);
        section.box_strides[d] = stride * (1 + static_cast<int64_t>(random() % 3));
        stride = section.box_strides[d] * (section.box_sizes[d] + static_cast<int64_t>(random() % 2));
      }
      section.box_offset = static_cast<int64_t>(random() % 50);
      std::vector<int64_t> elements{section.box_offset};
      for (size_t d = 0; d < rank; ++d) {
        std::vector<int64_t> next;
        for (const auto element : elements) {
          for (int64_t i = 0; i < section.box_sizes[d]; ++i) next.push_back(element + i * section.box_strides[d]);
        }
        elements = std::move(next);
      }
      section.count = static_cast<int64_t>(elements.size());
      CAPTURE(dtype, round, section.box_sizes, section.box_strides);
      REQUIRE(wrong_gather(section, elements, dtype) == "");
    }
  }
}

TEST_CASE("what is taken for exactly as planned is so, and nothing else", "[capture]") {
  const std::string name = "w";
  const auto candidate_of = [&](const at::Tensor& tensor) {
    Candidate candidate;
    candidate.name = &name;
    candidate.tensor = tensor;
    return candidate;
  };
  const auto planned = at::zeros({4, 6});
  const std::vector<at::Tensor> others = {
      planned,
      at::zeros({4, 6}),
      at::zeros({6, 4}),
      at::zeros({6, 4}).t(),
      at::zeros({4, 7}),
      at::zeros({4, 7}).narrow(1, 0, 6),
      at::zeros({24}),
      at::zeros({1, 4, 6}),
      at::zeros({4, 6}, at::kDouble),
      at::zeros({4, 6}, at::kInt),
      at::zeros({4, 6}).to_sparse(),
      at::zeros({4, 6}, at::TensorOptions().device(at::kMeta)),
      at::_conj(at::zeros({4, 6}, at::kComplexFloat)),
      at::quantize_per_tensor(planned, 0.1, 10, at::kQUInt8),
      at::Tensor(),
      at::zeros({2, 1, 2, 1, 2, 1, 3}),
      at::zeros({}),
  };
  for (const auto& one : others) {
    Plan plan;
    plan.tensors.push_back(describe(candidate_of(one)));
    plan.slots.push_back(std::make_unique<Slot>());
    const GatherIndex index(plan);
    for (const auto& other : others) {
      const bool direct = index.direct[0].is_as_planned(other);
      const Fit found = plan.tensors[0].fit(candidate_of(other));
      CAPTURE(one.defined() ? one.toString() : "undefined", other.defined() ? other.toString() : "undefined");
      CHECK(fit(plan, index, 0, candidate_of(other)) == found);
      if (direct) CHECK(found == Fit::Whole);
    }
    if (one.defined() && is_plain(one) && one.device().is_cpu() && one.dim() <= 5) {
      CHECK(index.direct[0].is_as_planned(one));
    }
  }
}

}  // namespace
}  // namespace beholder
