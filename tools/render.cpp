#include "tools/render.h"

#include <algorithm>
#include <exception>
#include <iostream>
#include <memory>

#include "beholder/still_renderer.h"
#include "beholder/tensor_spec.h"
#include "callbacks/captions.h"
#include "callbacks/png_writer.h"
#include "tools/safetensors.h"

namespace beholder {
namespace {

constexpr size_t kMostTold = 10;  // tensors that are named as not shown

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

/// What a file does not say: by name and rank, as people name things in LibTorch.
Kind default_kind(const TensorEntry& entry) {
  switch (entry.shape.size()) {
    case 0:
    case 1: return Kind::Vector;
    case 2: return ends_with(entry.name, "weight") ? Kind::LinearWeight : Kind::OtherParameter;
    case 4: return Kind::ConvWeight;
    default: return Kind::OtherParameter;
  }
}

Kind kind_of(const TensorEntry& entry, const RenderRequest& request) {
  Kind kind = default_kind(entry);
  for (const auto& [globs, named] : request.kinds) {
    if (matches_filter(globs, entry.name)) kind = named;
  }
  return kind;
}

/// "conv1" of "conv1.weight": weight and bias of a module stand together.
std::string module_of(const std::string& name) {
  const auto dot = name.rfind('.');
  return dot == std::string::npos ? "" : name.substr(0, dot);
}

/// (name, reason).
using NotShown = std::vector<std::pair<std::string, std::string>>;

/// What there is to draw of one file, and what of the tensors asked for cannot be read.
struct Step {
  std::vector<NamedTensor> tensors;
  NotShown not_read;
};

void read_tensor(const SafetensorsFile& file, const TensorEntry& entry, const RenderRequest& request, Step& step) {
  std::string refusal = SafetensorsFile::refusal(entry);
  if (refusal.empty()) {
    try {
      step.tensors.push_back({entry.name, file.tensor(entry), kind_of(entry, request), module_of(entry.name)});
      return;
    } catch (const std::exception& error) {  // no memory for its copy, ...
      refusal = unreadable(error);
    }
  }
  step.not_read.emplace_back(entry.name, std::move(refusal));
}

/// "'a' (dtype 'U64' cannot be shown; expected one of ...) and 2 more".
std::string text_of(const NotShown& not_shown) {
  std::string text = "'" + printable(not_shown[0].first) + "' (" + not_shown[0].second + ")";
  if (not_shown.size() > 1) text += " and " + std::to_string(not_shown.size() - 1) + " more";
  return text;
}

/// The tensors of one step. Those that nobody asked for are not read.
Step read_step(const std::string& path, const RenderRequest& request) {
  const Settings& settings = request.options.settings;
  const auto file = SafetensorsFile::open(path);
  Step step;
  bool solo_found = settings.solo.empty();
  for (const auto& entry : file.entries()) {
    if (!matches_filter(settings.filter, entry.name)) continue;
    solo_found = solo_found || entry.name == settings.solo;
    if (!settings.solo.empty() && entry.name != settings.solo) continue;
    read_tensor(file, entry, request, step);
  }
  const std::string where = printable(path, 400) + ": ";
  if (file.entries().empty()) throw TensorFileError(where + "holds no tensors");
  if (!solo_found) {
    throw TensorFileError(where + "no tensor " + (settings.filter.empty() ? "" : "that passes --tensors ") +
                          "is named '" + printable(settings.solo) + "', as --solo asks; the first of " +
                          std::to_string(file.entries().size()) + " is '" + printable(file.entries()[0].name) + "'");
  }
  if (step.tensors.empty() && !step.not_read.empty()) {
    throw TensorFileError(where + "nothing that can be shown among " + std::to_string(step.not_read.size()) +
                          " tensors: " + text_of(step.not_read));
  }
  if (step.tensors.empty()) {
    throw TensorFileError(where + "none of its " + std::to_string(file.entries().size()) +
                          " tensors passes --tensors '" + printable(settings.filter) + "'; the first is '" +
                          printable(file.entries()[0].name) + "'");
  }
  return step;
}

bool can_be_shown(const NamedTensor& tensor) {
  return describe({&tensor.name, &tensor.module, tensor.kind, false, tensor.tensor}).refusal.empty();
}

/// What the status line calls them. One frame makes it a picture of frames; what was called a frame and cannot be one
/// hides nothing.
Values values_of(const std::vector<NamedTensor>& tensors) {
  const auto is = [](Kind kind) { return [kind](const NamedTensor& t) { return t.kind == kind; }; };
  const auto is_frame = [](const NamedTensor& t) { return t.kind == Kind::Frame && can_be_shown(t); };
  if (std::any_of(tensors.begin(), tensors.end(), is_frame)) return Values::Frame;
  if (std::all_of(tensors.begin(), tensors.end(), is(Kind::Activation))) return Values::Activations;
  if (std::all_of(tensors.begin(), tensors.end(), is(Kind::Array))) return Values::Arrays;
  return Values::Parameters;
}

void tell_what_is_missing(const std::string& file, const std::vector<NamedTensor>& tensors, Values values,
                          const NotShown& not_shown) {
  size_t told = 0;
  for (const auto& [name, reason] : not_shown) {
    if (told++ == kMostTold) {
      std::cerr << "beholder render: " << file << ": " << not_shown.size() - kMostTold << " more are not shown\n";
      break;
    }
    std::cerr << "beholder render: " << file << ": '" << printable(name) << "' is not shown: " << reason << '\n';
  }
  if (values != Values::Frame) return;
  const auto others =
      std::count_if(tensors.begin(), tensors.end(), [](const NamedTensor& t) { return t.kind != Kind::Frame; });
  if (others > 0) {
    std::cerr << "beholder render: " << file << ": tensors not shown: " << others << ", since a frame stands alone\n";
  }
}

}  // namespace

const std::vector<std::pair<std::string, Kind>>& kind_names() {
  static const std::vector<std::pair<std::string, Kind>> names = {
      {"linear", Kind::LinearWeight},   {"embedding", Kind::EmbeddingWeight},
      {"conv", Kind::ConvWeight},       {"conv_transpose", Kind::ConvTransposeWeight},
      {"activation", Kind::Activation}, {"vector", Kind::Vector},
      {"array", Kind::Array},           {"frame", Kind::Frame},
      {"other", Kind::OtherParameter},
  };
  return names;
}

void render(const RenderRequest& request) {
  Options options = request.options;
  StillRenderer renderer(options);
  std::shared_ptr<const Picture> picture;
  int64_t step = 0;
  for (const auto& path : request.files) {
    const auto [tensors, not_read] = read_step(path, request);
    options.settings.values = values_of(tensors);
    renderer.set_settings(options.settings);
    picture = renderer.render(tensors, step++);
    if (!picture->message.empty()) {
      throw TensorFileError(printable(path, 400) + ": " + printable(picture->message, 800) +
                            (not_read.empty() ? "" : ", nor " + text_of(not_read)));
    }
    NotShown not_shown = not_read;
    not_shown.insert(not_shown.end(), renderer.not_shown().begin(), renderer.not_shown().end());
    tell_what_is_missing(printable(path, 400), tensors, options.settings.values, not_shown);
  }
  if (request.captions) {
    const auto text = captioned(*picture, ClassicText::Labels);
    write_png(request.output, text->rgb.data(), text->width, text->height);
  } else {
    write_png(request.output, picture->rgb.data(), picture->width, picture->height);
  }
}

}  // namespace beholder
