// The classic layout against pictures of the original (tests/data/golden). Each folder there is a case: a new case is a
// new folder. case.json has the settings, the tensors of each step and the original's own numbers.

#include <ATen/ATen.h>
#include <zlib.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <opencv2/imgcodecs.hpp>

#include "beholder/still_renderer.h"
#include "catch.h"
#include "tools/safetensors.h"

namespace fs = std::filesystem;
using namespace beholder;
using nlohmann::json;

namespace {

const fs::path kGolden = fs::path(BEHOLDER_TEST_DATA) / "golden";

json read_json(const fs::path& path) {
  std::ifstream file(path);
  REQUIRE(file);
  return json::parse(file);
}

std::string gunzip(const fs::path& path) {
  gzFile file = gzopen(path.c_str(), "rb");
  REQUIRE(file);
  std::string bytes;
  char buffer[1 << 16];
  for (int n = 0; (n = gzread(file, buffer, sizeof buffer)) != 0;) {
    REQUIRE(n > 0);
    bytes.append(buffer, static_cast<size_t>(n));
  }
  gzclose(file);
  return bytes;
}

/// Settings of a step by our names.
Settings settings_of(const json& config) {
  static const std::map<std::string, std::string> ours = {
      {"trainable_variables", "parameters"},
      {"frames", "frame"},
      {"layer", "section"},
      {"network", "all"},
      {"grayscale", "gray"},
  };
  Settings settings;
  settings.layout = LayoutKind::Classic;
  for (const auto& [name, value] : config.items()) {
    std::string text = value.is_string()    ? value.get<std::string>()
                       : value.is_boolean() ? (value ? "on" : "off")
                                            : value.dump();
    if (ours.count(text)) text = ours.at(text);
    const std::string wrong = set_by_name(settings, name, text);
    INFO(wrong);
    REQUIRE(wrong.empty());
  }
  return settings;
}

json config_of_step(const json& golden, const json& step) {
  json config = golden["config"];
  if (step.contains("config")) config.update(step["config"]);
  return config;
}

/// Why we do something else than the original on purpose (RENDERING.md, Part A); empty where the case binds.
std::string why_not_binding(const json& golden) {
  const auto flag = [&golden](const char* name) { return golden["flags"].value(name, false); };
  if (flag("layout_path_mismatch")) return "the original guessed the kind of a tensor from its shape, and wrongly";
  if (flag("network_scaling_bug_triggered")) return "the original's scaling of all sections wraps around";
  if (flag("platform_dependent_cast")) return "NaN and Inf have colours of their own";
  for (const auto& step : golden["steps"]) {
    if (config_of_step(golden, step)["scaling"] == "network" && step["numeric_notes"]["global_min"].get<double>() > 0) {
      return "the original's scaling of all sections divides by the maximum, not by the range";
    }
  }
  return {};
}

Kind kind_of(const std::string& kind) {
  static const std::map<std::string, Kind> kinds = {
      {"parameter_conv", Kind::ConvWeight},
      {"parameter_linear", Kind::LinearWeight},
      {"parameter_embedding", Kind::EmbeddingWeight},
      {"parameter_other", Kind::OtherParameter},
      {"activation", Kind::Activation},
      {"frame", Kind::Frame},
  };
  INFO(kind);
  REQUIRE(kinds.count(kind));
  return kinds.at(kind);
}

/// Gray levels by colour, from the golden tables: several neighbouring levels may share a colour.
class GrayLevels {
 public:
  explicit GrayLevels(const std::string& colormap) {
    if (colormap == "grayscale") {
      for (int g = 0; g < 256; ++g) add(g, g, g, g);
      return;
    }
    const json table = read_json(kGolden / "colormaps.json")[colormap];
    REQUIRE(table.size() == 256);
    for (int g = 0; g < 256; ++g) add(table[g][0], table[g][1], table[g][2], g);
  }

  /// The least difference in gray levels that explains two colours; 256 where one of them is no colour of the table.
  int difference(const uint8_t* a, const cv::Vec3b& b) const {
    const auto x = levels_.find({a[0], a[1], a[2]}), y = levels_.find({b[0], b[1], b[2]});
    if (x == levels_.end() || y == levels_.end()) return 256;
    int least = 256;
    for (int g : x->second) {
      for (int h : y->second) least = std::min(least, std::abs(g - h));
    }
    return least;
  }

 private:
  void add(int r, int g, int b, int level) { levels_[{r, g, b}].push_back(level); }
  std::map<std::array<int, 3>, std::vector<int>> levels_;
};

/// How a picture differs from the original's.
struct Difference {
  int64_t pixels = 0, differing = 0;
  int worst = 0;  // gray levels; 256: another colour
};

Difference compare(const Picture& picture, const cv::Mat& original_bgr, const GrayLevels& levels) {
  Difference result;
  for (int y = 0; y < picture.height; ++y) {
    for (int x = 0; x < picture.width; ++x) {
      const uint8_t* ours = &picture.rgb[3 * (static_cast<size_t>(y) * picture.width + x)];
      const auto& bgr = original_bgr.at<cv::Vec3b>(y, x);
      const cv::Vec3b theirs(bgr[2], bgr[1], bgr[0]);
      ++result.pixels;
      if (ours[0] == theirs[0] && ours[1] == theirs[1] && ours[2] == theirs[2]) continue;
      ++result.differing;
      result.worst = std::max(result.worst, levels.difference(ours, theirs));
    }
  }
  return result;
}

std::string as_original_writes(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3e", static_cast<double>(static_cast<float>(value)));
  return text;
}

/// min and max of each section: to the last digit in mode current, in mode variance within a unit of it.
void check_infos(const Picture& picture, const json& infos, bool exact) {
  REQUIRE(picture.sections.size() == infos.size());
  for (size_t i = 0; i < infos.size(); ++i) {
    CAPTURE(picture.sections[i].name);
    const Statistics& ours = picture.sections[i].statistics;
    if (infos[i]["name"].is_string()) CHECK(picture.sections[i].name == infos[i]["name"]);
    if (exact) {
      CHECK(as_original_writes(ours.min) == infos[i]["min"]);
      CHECK(as_original_writes(ours.max) == infos[i]["max"]);
    } else {
      // The range belongs to it: a minimum near 0 of a variance is a difference of rounding errors.
      const double range = std::stod(infos[i]["range"].get<std::string>());
      CHECK(std::abs(ours.min - std::stod(infos[i]["min"].get<std::string>())) <= 1e-3 * range);
      CHECK(std::abs(ours.max - std::stod(infos[i]["max"].get<std::string>())) <= 1e-3 * range);
    }
  }
}

/// All cases that bind. Prints the others with the reason, once.
const std::vector<std::pair<fs::path, json>>& binding_cases() {
  static const auto* const cases = [] {
    auto* binding = new std::vector<std::pair<fs::path, json>>;
    std::vector<fs::path> folders;
    for (const auto& one : fs::directory_iterator(kGolden / "cases")) folders.push_back(one.path());
    std::sort(folders.begin(), folders.end());
    for (const auto& folder : folders) {
      json golden = read_json(folder / "case.json");
      const std::string reason = why_not_binding(golden);
      if (reason.empty()) {
        binding->emplace_back(folder, std::move(golden));
      } else {
        std::cout << folder.filename().string() << " does not bind: " << reason << '\n';
      }
    }
    return binding;
  }();
  return *cases;
}

void check_case(const fs::path& folder, const json& golden) {
  Options options;
  options.settings = settings_of(golden["config"]);
  StillRenderer renderer(options);
  int64_t number = 0;
  for (const auto& step : golden["steps"]) {
    CAPTURE(number);
    const json config = config_of_step(golden, step);
    renderer.set_settings(settings_of(config));

    const std::string bytes = gunzip(folder / step["arrays"].get<std::string>());
    const auto file = SafetensorsFile::view(bytes.data(), bytes.size());
    const json& described = step.contains("tensors") ? step["tensors"] : golden["tensors"];
    REQUIRE(file.entries().size() == described.size());
    std::vector<NamedTensor> tensors;
    for (size_t i = 0; i < described.size(); ++i) {
      REQUIRE(file.entries()[i].name == described[i]["name"].get<std::string>());
      tensors.push_back({file.entries()[i].name, file.tensor(file.entries()[i]), kind_of(described[i]["kind"])});
    }

    const auto picture = renderer.render(tensors, number);
    CHECK(renderer.not_shown().empty());
    CHECK(picture->width == step["frame_size_wh"][0]);
    CHECK(picture->height == step["frame_size_wh"][1]);
    const bool exact = config["mode"] == "current";
    if (!step["frame"].is_null()) {
      const cv::Mat original = cv::imread((folder / step["frame"].get<std::string>()).string(), cv::IMREAD_COLOR);
      REQUIRE(original.cols == picture->width);
      REQUIRE(original.rows == picture->height);
      const bool gray = config["values"] == "frames" || config["colormap"] == "grayscale";
      const auto difference =
          compare(*picture, original, GrayLevels(gray ? "grayscale" : config["colormap"].get<std::string>()));
      if (exact) {
        CHECK(difference.differing == 0);
      } else {
        CAPTURE(difference.differing, difference.pixels);
        CHECK(difference.differing * 1000 <= difference.pixels);
        CHECK(difference.worst <= 1);
      }
    }
    if (step.contains("section_infos")) check_infos(*picture, step["section_infos"], exact);
    ++number;
  }
}

std::shared_ptr<const Picture> picture_of(const at::Tensor& tensor, Kind kind, const Settings& settings) {
  Options options;
  options.settings = settings;
  options.canvas_width = 320;
  options.canvas_height = 240;
  return StillRenderer(options).render({{"t", tensor, kind}});
}

}  // namespace

TEST_CASE("the classic layout equals the original") {
  CHECK(binding_cases().size() >= 20);  // as many as there should be, so that an empty folder is no success
  for (const auto& [folder, golden] : binding_cases()) {
    DYNAMIC_SECTION(folder.filename().string()) { check_case(folder, golden); }
  }
}

TEST_CASE("a picture depends on values alone, not on dtype, strides or storage") {
  at::manual_seed(3);
  struct Row {
    Kind kind;
    std::vector<int64_t> shape;
  };
  const auto row = GENERATE(Row{Kind::LinearWeight, {40, 24}}, Row{Kind::ConvWeight, {12, 5, 3, 3}},
                            Row{Kind::Activation, {4, 6, 9, 7}}, Row{Kind::Vector, {100}},
                            Row{Kind::OtherParameter, {4, 5, 6}}, Row{Kind::Array, {30, 50}});
  Settings settings;
  settings.layout = GENERATE(LayoutKind::Classic, LayoutKind::Fit);
  settings.show_all = GENERATE(false, true);
  CAPTURE(to_string(row.kind), to_string(settings.layout), settings.show_all);

  // Small whole numbers from 0: every type below holds them exactly.
  const at::Tensor values = at::randint(0, 100, row.shape, at::kFloat);
  const auto expected = picture_of(values, row.kind, settings);
  const auto same = [&](const char* what, const at::Tensor& tensor) {
    CAPTURE(what);
    const auto picture = picture_of(tensor, row.kind, settings);
    CHECK(picture->rgb == expected->rgb);
    CHECK(picture->sections.at(0).statistics.max == expected->sections.at(0).statistics.max);
  };
  for (const auto type : {at::kDouble, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kShort, at::kChar, at::kByte,
                          at::kComplexFloat, at::kComplexDouble}) {
    same(at::toString(type), values.to(type));
  }
  std::vector<int64_t> reversed(row.shape.size());
  for (size_t i = 0; i < reversed.size(); ++i) reversed[i] = static_cast<int64_t>(reversed.size() - 1 - i);
  same("transposed strides", values.permute(reversed).contiguous().permute(reversed));
  const at::Tensor wide = at::zeros([&] {
    auto shape = row.shape;
    shape.back() *= 3;
    return shape;
  }());
  wide.slice(-1, 1, c10::nullopt, 3).copy_(values);
  same("every third element of a larger tensor", wide.slice(-1, 1, c10::nullopt, 3));
  same("sparse", values.to_sparse());
  same("quantized", at::quantize_per_tensor(values, 1.0, 0, at::kQUInt8));
}

TEST_CASE("an expanded tensor looks like its copy") {
  Settings settings;
  settings.layout = GENERATE(LayoutKind::Classic, LayoutKind::Fit);
  const at::Tensor row = at::randn({1, 30});
  CHECK(picture_of(row.expand({20, 30}), Kind::LinearWeight, settings)->rgb ==
        picture_of(row.expand({20, 30}).contiguous(), Kind::LinearWeight, settings)->rgb);
  const at::Tensor maps = at::randn({1, 3, 8, 8});
  CHECK(picture_of(maps.expand({5, 3, 8, 8}), Kind::Activation, settings)->rgb ==
        picture_of(maps.expand({5, 3, 8, 8}).contiguous(), Kind::Activation, settings)->rgb);
}
