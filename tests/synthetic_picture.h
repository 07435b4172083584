// Pictures made by hand, without a network: for tests of what is done with pictures.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "beholder/colormaps.h"
#include "beholder/picture.h"

namespace synthetic {

/// Noise in blocks of `block` pixels, coloured with magma; other with each seed. No layout.
inline std::shared_ptr<beholder::Picture> blocks(int width, int height, int seed = 0, int block = 8) {
  auto picture = std::make_shared<beholder::Picture>();
  picture->width = width;
  picture->height = height;
  picture->sequence = static_cast<uint64_t>(seed) + 1;
  picture->step = 10 * seed;
  picture->time = std::chrono::system_clock::from_time_t(1700000000 + seed);
  picture->rgb.resize(static_cast<size_t>(width) * height * 3);
  const auto table = beholder::colour_table(beholder::Colormap::Magma, false);
  std::minstd_rand random(static_cast<unsigned>(seed) + 1);
  std::vector<beholder::Rgb> row(static_cast<size_t>(width / block + 1));
  for (int y = 0; y < height; ++y) {
    if (y % block == 0) {
      for (auto& color : row) color = table[random() / 7 % 256];
    }
    for (int x = 0; x < width; ++x) {
      const auto color = row[static_cast<size_t>(x / block)];
      uint8_t* pixel = &picture->rgb[(static_cast<size_t>(y) * width + x) * 3];
      pixel[0] = color.r;
      pixel[1] = color.g;
      pixel[2] = color.b;
    }
  }
  for (int i = 0; i < 256; ++i) {
    for (uint8_t v : {table[i].r, table[i].g, table[i].b}) picture->colour_scale.push_back(v);
  }
  return picture;
}

/// Sections of these names and shapes in `columns` columns, as the fit layout has them: a caption line above each, or
/// left of it for vectors, and a footer.
inline std::shared_ptr<beholder::Picture> network(
    const std::vector<std::pair<std::string, std::vector<int64_t>>>& tensors, int width, int height, int columns,
    int seed = 0) {
  using beholder::Layout;
  using beholder::Rect;
  using beholder::Section;
  auto picture = blocks(width, height, seed, 3);
  const auto noise = picture->rgb;
  for (size_t i = 0; i < picture->rgb.size(); i += 3) {
    picture->rgb[i] = beholder::kBackgroundColour.r;
    picture->rgb[i + 1] = beholder::kBackgroundColour.g;
    picture->rgb[i + 2] = beholder::kBackgroundColour.b;
  }
  auto layout = std::make_shared<Layout>();
  layout->width = width;
  layout->height = height;
  layout->footer = {0, height - 18, width, 18};
  layout->total_sections = tensors.size();
  const int gap = 8, count = static_cast<int>(tensors.size());
  const int column_width = std::max(3, (width - gap * (columns + 1)) / columns);
  const int per_column = (count + columns - 1) / columns;
  for (int first = 0, column = 0; first < count; first += per_column, ++column) {
    const int last = std::min(first + per_column, count);
    int vectors = 0;
    for (int i = first; i < last; ++i) vectors += tensors[i].second.size() < 2;
    const int matrices = std::max(1, last - first - vectors);
    const int room = std::max(12, (height - 18 - 2 * gap - vectors * 17) / matrices - 15 - gap);
    int y = gap;
    const int x = gap + column * (column_width + gap);
    for (int i = first; i < last; ++i) {
      Section section;
      section.tensor = static_cast<size_t>(i);
      section.caption_inline = tensors[i].second.size() < 2;
      if (section.caption_inline) {
        const int name = std::min(150, column_width * 2 / 5);
        section.caption = Rect{x, y, name - 6, 14};
        section.picture = Rect{x + name, y + 2, column_width - name, 10};
        section.area = Rect{x, y, column_width, 14};
        y += 17;
      } else {
        section.caption = Rect{x, y, column_width, 15};
        section.picture = Rect{x, y + 15, column_width / 3 * 3, room};
        section.area = Rect{x, y, column_width, 15 + room};
        section.complete = i % 3 != 0;
        section.sampled = i % 2 != 0;
        section.grid.row_position.resize(static_cast<size_t>(room / 3));
        section.grid.column_position.resize(static_cast<size_t>(column_width / 3));
        y += 15 + room + gap;
      }
      const Rect& r = section.picture;
      for (int row = std::max(0, r.y); row < std::min(height, r.y + r.height); ++row) {
        const size_t at = (static_cast<size_t>(row) * width + r.x) * 3;
        const int inside = std::max(0, std::min(r.width, width - r.x));
        std::copy_n(noise.begin() + at, inside * 3, picture->rgb.begin() + at);
      }
      beholder::SectionInfo info;
      info.name = tensors[i].first;
      info.shape = tensors[i].second;
      info.statistics.min = -0.4 / (1 + i % 5);
      info.statistics.max = 0.36 + 0.013 * i;
      info.scale_low = info.statistics.min;
      info.scale_high = info.statistics.max;
      layout->sections.push_back(section);
      picture->sections.push_back(info);
    }
  }
  picture->layout = layout;
  return picture;
}

/// Names and shapes of ResNet-18's 62 parameters.
inline std::vector<std::pair<std::string, std::vector<int64_t>>> resnet18() {
  std::vector<std::pair<std::string, std::vector<int64_t>>> all;
  auto conv = [&](const std::string& name, int64_t out, int64_t in, int64_t k) {
    all.push_back({name + ".weight", {out, in, k, k}});
  };
  auto norm = [&](const std::string& name, int64_t out) {
    all.push_back({name + ".weight", {out}});
    all.push_back({name + ".bias", {out}});
  };
  conv("conv1", 64, 3, 7);
  norm("bn1", 64);
  int64_t in = 64;
  for (int layer = 1; layer <= 4; ++layer) {
    const int64_t out = int64_t{32} << layer;
    for (int block = 0; block < 2; ++block) {
      const std::string name = "layer" + std::to_string(layer) + "." + std::to_string(block) + ".";
      conv(name + "conv1", out, block == 0 ? in : out, 3);
      norm(name + "bn1", out);
      conv(name + "conv2", out, out, 3);
      norm(name + "bn2", out);
      if (block == 0 && layer > 1) {
        conv(name + "downsample.0", out, in, 1);
        norm(name + "downsample.1", out);
      }
    }
    in = out;
  }
  all.push_back({"fc.weight", {1000, 512}});
  all.push_back({"fc.bias", {1000}});
  return all;
}

}  // namespace synthetic
