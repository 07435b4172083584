#include "beholder/callbacks/watch.h"

#include "beholder/callbacks/live_server.h"
#include "beholder/callbacks/recorder.h"
#include "beholder/callbacks/window.h"

namespace beholder {
namespace {

Beholder watched(std::string logdir, Options options) {
  Beholder beholder(std::move(logdir), std::move(options));
  beholder.add(std::make_shared<Recorder>());
  beholder.add(std::make_shared<LiveServer>());
  if (has_display()) beholder.add(std::make_shared<Window>());
  return beholder;
}

}  // namespace

Beholder watch(const std::shared_ptr<torch::nn::Module>& model, std::string logdir, Options options) {
  Beholder beholder = watched(std::move(logdir), std::move(options));
  beholder.attach(model);
  return beholder;
}

Beholder watch(torch::nn::Module& model, std::string logdir, Options options) {
  Beholder beholder = watched(std::move(logdir), std::move(options));
  beholder.attach(model);
  return beholder;
}

}  // namespace beholder
