#include "beholder/callbacks/caption_drawing.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <sstream>
#include <utility>

namespace beholder {
namespace {

constexpr TextColor kBright = TextColors::kBright, kVectorName = TextColors::kVectorName, kQuiet = TextColors::kQuiet,
                    kFaint = TextColors::kFaint, kAmber = TextColors::kAmber, kRed = TextColors::kRed;
// In pixels, at scale 1.
constexpr int kSize = 11;      // of letters
constexpr int kInlineGap = 6;  // between a vector's text and its strip
constexpr int kSpace = 8;      // between the parts of a line
constexpr int kMargin = 8;     // left and right of the footer
constexpr int kBarWidth = 96, kBarHeight = 8, kBarGap = 5;
constexpr int kLabelHeight = 15, kLabelPadding = 4;
// At any scale: smaller letters cannot be read.
constexpr int kSmallestSize = 8;

int scaled(int pixels, double scale) { return static_cast<int>(std::lround(pixels * scale)); }
int letters(double scale) { return std::max(kSmallestSize, scaled(kSize, scale)); }

std::string percent(double share) {
  const double value = share * 100;
  return short_number(value) + " %";
}

std::string range(const SectionInfo& info) {
  const auto& s = info.statistics;
  if (!std::isfinite(s.min) || !std::isfinite(s.max)) return "";
  return short_number(s.min) + " … " + short_number(s.max);
}

/// Of what came for this picture, which may be more or less than the section was made for.
std::string what_is_shown(const Section& section, const SectionInfo& info) {
  if (info.complete) return "";
  const auto& grid = section.grid;
  const std::string size = grid.rows() == 1 ? std::to_string(grid.columns()) : times({grid.rows(), grid.columns()});
  return (section.sampled ? "sample " : "shown ") + size;
}

/// What stands in a line beside its name.
struct Part {
  std::string text;
  TextColor color;
  bool right;       // at the right end
  int place = 0;    // from that end: the order in which they stand
  int reserve = 0;  // pixels at least
};

/// As many of `parts`, the most important first, as have room in `free` pixels: the first that has none, and all after
/// it, are left out. In the order in which they stand; `width`: of all of them, each with the space before it.
std::vector<Part> those_with_room(std::vector<Part> parts, int free, int size, int space, int* width = nullptr) {
  parts.erase(std::remove_if(parts.begin(), parts.end(), [](const Part& part) { return part.text.empty(); }),
              parts.end());
  size_t count = 0;
  int used = 0;
  for (; count < parts.size(); ++count) {
    const int letters = text_width(parts[count].text, size);
    if (used + space + std::max(letters, parts[count].reserve) > free) break;
    used += space + letters;
  }
  parts.resize(count, {});
  std::stable_sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.place < b.place; });
  if (width) *width = used;
  return parts;
}

/// `left`: where the name ends.
void draw_parts(const TextCanvas& canvas, const std::vector<Part>& parts, const Rect& room, int left, int size,
                int space) {
  int right = room.x + room.width;
  for (const Part& part : parts) {
    if (part.right) {
      right -= text_width(part.text, size);
      draw_text(canvas, right, baseline_in(room, size), part.text, part.color, size, room);
      right -= space;
    } else {
      left = draw_text(canvas, left + space, baseline_in(room, size), part.text, part.color, size, room);
    }
  }
}

struct FittedName {
  std::string text;
  int size = 0;
};

// Shorter first, then smaller, and the last two components in the smallest letters in any case.
FittedName fitted_name(const std::string& name, int room, int size) {
  for (const bool keep_index : {true, false}) {
    for (int smaller = size; smaller >= kSmallestSize; --smaller) {
      const auto fits = [&](const std::string& text) { return text_width(text, smaller) <= room; };
      const std::string text = shortened_name(name, keep_index, fits);
      if (fits(text)) return {text, smaller};
    }
  }
  return {shortened_name(name, false, [](const std::string&) { return false; }), kSmallestSize};
}

// Without its middle where it has no room: both ends of a name say more than its beginning alone.
std::string elided(const std::string& name, int room, int size) {
  if (text_width(name, size) <= room) return name;
  std::vector<size_t> letters;  // where they begin
  for (size_t at = 0; at < name.size(); ++at)
    if ((static_cast<unsigned char>(name[at]) & 0xc0) != 0x80) letters.push_back(at);
  const auto keep = [&](size_t count) {
    if (count == 0 || count >= letters.size()) return std::string("…");
    const size_t head = count / 2, tail = count - head;
    return name.substr(0, letters[head]) + "…" + name.substr(letters[letters.size() - tail]);
  };
  size_t low = 0, high = letters.size() > 0 ? letters.size() - 1 : 0;
  while (low < high) {
    const size_t middle = low + (high - low + 1) / 2;
    if (text_width(keep(middle), size) <= room)
      low = middle;
    else
      high = middle - 1;
  }
  return keep(low);
}

/// A name in `room` pixels of which `shown` (how much of the tensor is shown) takes some: this goes last of all, and
/// the name loses its beginning before.
struct NameInRoom : FittedName {
  bool alone = false;  // there is no room for anything beside it
};

NameInRoom name_beside(const std::string& name, int shown, int room, int size) {
  const std::string full = name.empty() ? "(no name)" : name;
  const FittedName fitted = fitted_name(full, room - shown, size);
  if (text_width(fitted.text, fitted.size) <= room - shown) return {fitted, false};
  const FittedName alone = fitted_name(full, room, size);
  return {{elided(alone.text, room, alone.size), alone.size}, true};
}

void draw_caption(const TextCanvas& canvas, const Section& section, const SectionInfo& info, const Placement& placement,
                  CaptionDetail details) {
  if (section.caption.height <= 0 || section.caption.width <= 0) return;
  const double scale = placement.scale;
  Rect room = placement.on_canvas(section.caption);
  if (scale < 1 && room.height < kSmallestSize - 1) return;  // it could not be read
  const int size = std::clamp(room.height - scaled(2, scale), kSmallestSize, letters(scale));
  const int space = scaled(kSpace, scale);
  if (section.caption_inline) {  // no text touches the strip
    const int before_strip = placement.on_canvas(section.picture).x - scaled(kInlineGap, scale) - room.x;
    room.width = std::min(room.width, std::max(1, before_strip));
  }
  const auto beside_name = [&](const std::string& text) { return text.empty() ? 0 : space + text_width(text, size); };
  const std::string shown = details != CaptionDetail::None ? what_is_shown(section, info) : "";
  const NameInRoom name = name_beside(info.name, beside_name(shown), room.width, size);
  // What is not finite reddens the name where it has no room.
  const std::string bad = not_finite(info.statistics);
  const bool bad_fits =
      !name.alone && text_width(name.text, name.size) + beside_name(shown) + beside_name(bad) <= room.width;
  const TextColor color = !bad.empty() && !bad_fits ? kRed : section.caption_inline ? kVectorName : kBright;
  const int left = draw_text(canvas, room.x, baseline_in(room, name.size), name.text, color, name.size, room);
  if (name.alone) return;
  // In the order of importance.
  std::vector<Part> parts{{shown, kQuiet, false, 1}, {bad, kRed, true}, {absence(info), kAmber, true}};
  if (details == CaptionDetail::Full) parts.push_back({times(info.shape), kQuiet, false, 0});
  // Before the range, which is that of what is shown.
  if (details != CaptionDetail::None) parts.push_back({info.shown_as, kQuiet, false, 2});
  if (details == CaptionDetail::Full) {
    // Room for the widest range, so that it does not come and go as its digits change.
    parts.push_back({range(info), kQuiet, true, 0, text_width("-0.00 … -0.00", letters(scale))});
    if (info.dead_share && *info.dead_share > 0) parts.push_back({"dead " + percent(*info.dead_share), kAmber, true});
    if (info.relative_change) parts.push_back({"changed by " + percent(*info.relative_change), kQuiet, true});
  }
  parts = those_with_room(std::move(parts), room.x + room.width - left, size, space);
  draw_parts(canvas, parts, room, left, size, space);
}

/// What a caption says but for the range, over the values: a label is as wide as its text. `full`: as where info is on.
void draw_label(const TextCanvas& canvas, const Section& section, const SectionInfo& info, const Placement& placement,
                bool full) {
  const Rect picture = placement.on_canvas(section.picture);
  const int size = letters(placement.text_scale), padding = scaled(kLabelPadding, placement.text_scale);
  const int space = scaled(kSpace, placement.text_scale), room = picture.width - 2 * padding;
  if (picture.height < kSmallestSize || room <= 0) return;
  const auto beside_name = [&](const std::string& text) { return text.empty() ? 0 : space + text_width(text, size); };
  const std::string shown = full ? what_is_shown(section, info) : "", bad = not_finite(info.statistics);
  const NameInRoom name = name_beside(info.name, beside_name(shown), room, size);
  const int name_width = text_width(name.text, name.size);
  // In the order of importance.
  std::vector<Part> parts{{shown, kVectorName, false, 1}, {bad, kRed, false, 4}, {absence(info), kAmber, false, 3}};
  if (full) {
    parts.push_back({times(info.shape), kBright, false, 0});
    parts.push_back({info.shown_as, kVectorName, false, 2});
  }
  int parts_width = 0;
  parts = those_with_room(std::move(parts), name.alone ? 0 : room - name_width, size, space, &parts_width);
  const bool bad_fits = bad.empty() || (!parts.empty() && parts.back().text == bad);
  const Rect label{picture.x, picture.y, std::min(picture.width, name_width + parts_width + 2 * padding),
                   std::min(scaled(kLabelHeight, placement.text_scale), picture.height)};
  for (int y = std::max(0, label.y); y < std::min(canvas.height, label.y + label.height); ++y) {
    for (int x = std::max(0, label.x); x < std::min(canvas.width, label.x + label.width); ++x) {
      uint8_t* pixel = canvas.rgb + (static_cast<ptrdiff_t>(y) * canvas.width + x) * 3;
      for (int k = 0; k < 3; ++k) pixel[k] = static_cast<uint8_t>(pixel[k] / 4);
    }
  }
  const int left = draw_text(canvas, label.x + padding, baseline_in(label, name.size), name.text,
                             bad_fits ? kBright : kRed, name.size, label);
  draw_parts(canvas, parts, label, left, size, space);
}

// The values of both ends of the colours, where all sections agree on them.
std::pair<std::string, std::string> scale_ends(const Picture& picture) {
  const auto& sections = picture.sections;
  if (sections.empty()) return {"low", "high"};
  for (const auto& info : sections) {
    const bool same = info.scale_low == sections[0].scale_low && info.scale_high == sections[0].scale_high;
    if (same && std::isfinite(info.scale_low) && std::isfinite(info.scale_high)) continue;
    const bool centred = picture.settings.scaling == Scaling::ZeroCentred || picture.settings.mode == Mode::Change;
    return centred ? std::make_pair("per section: -max", "max") : std::make_pair("per section: low", "high");
  }
  return {short_number(sections[0].scale_low), short_number(sections[0].scale_high)};
}

}  // namespace

Rect Placement::on_canvas(const Rect& r) const {
  const auto at = [this](int pixels, int origin) { return origin + static_cast<int>(std::lround(pixels * scale)); };
  const int left = at(r.x, x), top = at(r.y, y);
  return {left, top, at(r.x + r.width, x) - left, at(r.y + r.height, y) - top};
}

void draw_section_texts(const TextCanvas& canvas, const Picture& picture, const Placement& placement,
                        ClassicText classic) {
  if (!picture.message.empty()) {
    const Rect room = placement.on_canvas({0, 0, picture.width, picture.height});
    draw_centred(
        canvas, picture.message, room,
        room.width >= 640 * placement.text_scale ? scaled(16, placement.text_scale) : letters(placement.text_scale),
        kVectorName);
    return;
  }
  if (!picture.layout) return;
  const Layout& layout = *picture.layout;
  const size_t count = std::min(layout.sections.size(), picture.sections.size());
  const bool labels = layout.separators && classic == ClassicText::Labels;
  for (size_t i = 0; i < count; ++i) {
    if (labels) {
      draw_label(canvas, layout.sections[i], picture.sections[i], placement, picture.settings.info);
    } else if (layout.captions != CaptionDetail::None) {
      draw_caption(canvas, layout.sections[i], picture.sections[i], placement,
                   picture.settings.info ? layout.captions : CaptionDetail::None);
    }
  }
}

int draw_colour_scale(const TextCanvas& canvas, const Picture& picture, const Rect& room, double scale) {
  int right = room.x + room.width;
  if (picture.colour_scale.size() < 256 * 3) return right;
  const auto [low, high] = scale_ends(picture);
  const int size = letters(scale), gap = scaled(kBarGap, scale);
  const int bar_width = scaled(kBarWidth, scale), bar_height = scaled(kBarHeight, scale);
  const int low_width = text_width(low, size), high_width = text_width(high, size);
  const bool labelled = room.width >= low_width + high_width + 2 * gap + bar_width;
  if (!labelled && room.width < bar_width) return right;
  const int baseline = baseline_in(room, size);
  if (labelled) {
    right -= high_width;
    draw_text(canvas, right, baseline, high, kQuiet, size, room);
    right -= gap;
  }
  const int left = right - bar_width, top = baseline - bar_height;
  for (int y = std::max(0, top); y < std::min(canvas.height, top + bar_height); ++y) {
    for (int x = std::max(0, left); x < std::min(canvas.width, right); ++x) {
      const uint8_t* color = picture.colour_scale.data() + static_cast<ptrdiff_t>(x - left) * 255 / (bar_width - 1) * 3;
      std::copy_n(color, 3, canvas.rgb + (static_cast<ptrdiff_t>(y) * canvas.width + x) * 3);
    }
  }
  if (!labelled) return left;
  draw_text(canvas, left - gap - low_width, baseline, low, kQuiet, size, room);
  return left - gap - low_width;
}

void draw_centred(const TextCanvas& canvas, const std::string& text, const Rect& room, int size, TextColor color) {
  const int width = std::max(40, room.width * 3 / 4);
  std::vector<std::string> lines;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (lines.empty() || text_width(lines.back() + " " + word, size) > width) {
      lines.push_back(word);
    } else {
      lines.back() += " " + word;
    }
  }
  const int pitch = size * 3 / 2;
  int baseline = room.y + (room.height - pitch * static_cast<int>(lines.size() - 1) + cap_height(size)) / 2;
  for (const auto& line : lines) {
    draw_text(canvas, room.x + (room.width - text_width(line, size)) / 2, baseline, line, color, size);
    baseline += pitch;
  }
}

std::string mode_text(const Picture& picture) {
  switch (picture.settings.mode) {
    case Mode::Current: return "current";
    case Mode::Variance:
      return "variance of " + grouped(picture.history_size) + (picture.history_size == 1 ? " picture" : " pictures");
    case Mode::Change:
      if (picture.change_steps <= 0) return "change";
      return "change over " + grouped(picture.change_steps) + (picture.change_steps == 1 ? " step" : " steps");
  }
  return "";
}

std::string scaling_text(Scaling scaling) {
  switch (scaling) {
    case Scaling::Section: return "scaled by section";
    case Scaling::All: return "one scale";
    case Scaling::ZeroCentred: return "zero-centred";
  }
  return "";
}

std::string page_text(const Picture& picture) {
  const Layout& layout = *picture.layout;
  if (layout.pages <= 1) return "";
  const std::string page = "page " + std::to_string(layout.page + 1) + " of " + std::to_string(layout.pages);
  return layout.page > 0 ? page + " (film stays on page 1)" : page;
}

std::string times(const std::vector<int64_t>& shape) {
  std::string text;
  for (int64_t n : shape) text += (text.empty() ? "" : "×") + std::to_string(n);
  return text.empty() ? "scalar" : text;
}

std::string grouped(int64_t n) {
  std::string digits = std::to_string(std::llabs(n));
  for (int at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3) digits.insert(static_cast<size_t>(at), ",");
  return (n < 0 ? "-" : "") + digits;
}

std::string not_finite(const Statistics& s) {
  std::string text;
  if (s.nans > 0) text += grouped(s.nans) + " NaN";
  if (s.infs > 0) text += (text.empty() ? "" : " ") + grouped(s.infs) + " Inf";
  if (s.beyond > 0) text += (text.empty() ? "" : " ") + grouped(s.beyond) + " beyond float32";
  return text;
}

std::string absence(const SectionInfo& info) {
  return info.absent_since ? "absent since step " + grouped(*info.absent_since) : "";
}

int baseline_in(const Rect& r, int size) { return r.y + (r.height + cap_height(size)) / 2; }

}  // namespace beholder
