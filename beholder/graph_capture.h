// Streams that record instead of working: CUDA graphs, and what other devices have of the kind. What is asked of such a
// stream becomes part of the user's graph, and some questions end its recording with an error. Internal.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Stream.h>

#include <vector>

namespace beholder {

/// Whether a stream records. Called by the training thread; must neither wait nor throw.
using RecordsGraph = bool (*)(const c10::Stream& stream);

/// How a kind of device is asked; CUDA's way is known. Before the first Beholder.
void set_records_graph(c10::DeviceType type, RecordsGraph records);

/// Whether `stream` records a graph; false where its device knows no graphs.
bool records_graph(const c10::Stream& stream);
/// The same of this thread's current stream of `device`; false for the CPU.
bool records_graph(c10::Device device);
/// Of any of them.
bool any_records_graph(const std::vector<c10::Device>& devices);

/// While it lives, what this thread asks of the devices does not end a recording on another thread. (By default a
/// capture of CUDA's forbids all threads to ask for memory or events, and fails when one does.)
class BesideGraphs {
 public:
  explicit BesideGraphs(c10::Device device);
  explicit BesideGraphs(const std::vector<c10::Device>& devices);
  ~BesideGraphs();
  BesideGraphs(const BesideGraphs&) = delete;
  BesideGraphs& operator=(const BesideGraphs&) = delete;

 private:
  void begin();
  int before_ = -1;  // this thread's mode before; -1: was not changed
};

}  // namespace beholder
