// Everything at once, for people in a hurry: a film, a page in the browser, and a window where there is a display.
//
//   auto beholder = beholder::watch(model, "runs/mnist");
//   for (...) { /* forward, backward, optimizer step */ beholder.update(); }
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "beholder/beholder.h"

namespace beholder {

/// A Beholder on this model with a Recorder, a LiveServer and, where the environment names a display, a Window. Throws
/// as the constructor of Beholder does; what goes wrong later is said in the log, and the training goes on.
Beholder watch(const std::shared_ptr<torch::nn::Module>& model, std::string logdir, Options options = {});
/// REQUIRES that the model outlives the Beholder, or detach().
Beholder watch(torch::nn::Module& model, std::string logdir, Options options = {});
/// A holder, as TORCH_MODULE makes them.
template <typename Holder>
auto watch(const Holder& model, std::string logdir, Options options = {}) -> decltype(model.ptr(), Beholder(logdir)) {
  return watch(std::shared_ptr<torch::nn::Module>(model.ptr()), std::move(logdir), std::move(options));
}

}  // namespace beholder
