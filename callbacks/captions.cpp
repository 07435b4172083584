#include "beholder/callbacks/captions.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "beholder/callbacks/caption_drawing.h"
#include "beholder/callbacks/text.h"
#include "beholder/numbers.h"

namespace beholder {
namespace {

constexpr TextColor kBright = TextColors::kBright, kQuiet = TextColors::kQuiet, kFaint = TextColors::kFaint,
                    kAmber = TextColors::kAmber;
constexpr int kSize = 11;   // of letters, in pixels
constexpr int kSpace = 8;   // between the parts of a line
constexpr int kMargin = 8;  // left and right of the footer

void draw_footer(const TextCanvas& canvas, const Picture& picture) {
  Rect footer = picture.layout->footer;
  if (footer.height <= 0) return;
  const int left = std::max(footer.x, kMargin), right = std::min(footer.x + footer.width, canvas.width - kMargin);
  if (right <= left) return;
  footer.x = left;
  footer.width = right - left;

  struct Part {
    std::string text;
    TextColor color;
    bool dispensable;
  };
  const auto total = static_cast<int64_t>(picture.layout->total_sections);
  std::vector<Part> parts = {
      {to_string(picture.settings.values), kBright, false},
      {mode_text(picture), kQuiet, false},
      {scaling_text(picture.settings.scaling), kQuiet, true},
      {"step " + grouped(picture.step), kBright, false},
      {grouped(total) + (total == 1 ? " section" : " sections"), kQuiet, false},
      {page_text(picture), kAmber, false},
      {picture.layout->reduced, kAmber, false},
      {picture.notice, kAmber, false},
  };
  if (picture.notice == picture.layout->reduced) parts.pop_back();
  parts.erase(std::remove_if(parts.begin(), parts.end(), [](const Part& p) { return p.text.empty(); }), parts.end());
  const std::string dot = "  ·  ";
  const int dot_width = text_width(dot, kSize);
  int width = -dot_width;
  for (const auto& part : parts) width += dot_width + text_width(part.text, kSize);
  const bool tight = width > footer.width;
  int x = footer.x;
  const int baseline = baseline_in(footer, kSize);
  for (const auto& part : parts) {
    if (tight && part.dispensable) continue;
    if (x > footer.x) x = draw_text(canvas, x, baseline, dot, kFaint, kSize, footer);
    x = draw_text(canvas, x, baseline, part.text, part.color, kSize, footer);
  }
  const int free_from = x + 2 * kSpace;
  if (free_from < right) draw_colour_scale(canvas, picture, {free_from, footer.y, right - free_from, footer.height}, 1);
}

std::shared_ptr<const CaptionedPicture> draw(const Picture& picture, ClassicText classic) {
  auto made = std::make_shared<CaptionedPicture>();
  made->width = picture.width;
  made->height = picture.height;
  made->rgb = picture.rgb;
  const TextCanvas canvas{made->rgb.data(), made->width, made->height};
  draw_section_texts(canvas, picture, {}, classic);
  if (picture.layout) draw_footer(canvas, picture);
  return made;
}

}  // namespace

std::string short_number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Inf" : "-Inf";
  if (value == 0) return "0";  // -0 too
  const double size = std::fabs(value);
  if (size >= 99.5 && size < 99999.5) return fixed_text(value, 0);
  if (size >= 0.00095 && size < 99.5) return general_text(value, 2);
  const std::string number = scientific_text(value, 1);  // "1.2e-05"
  const auto e = number.find('e');
  std::string mantissa = number.substr(0, e);
  if (mantissa.size() > 2 && mantissa.compare(mantissa.size() - 2, 2, ".0") == 0) mantissa.resize(mantissa.size() - 2);
  return mantissa + "e" + std::to_string(std::atoi(number.c_str() + e + 1));
}

std::string shortened_name(const std::string& name, bool keep_index,
                           const std::function<bool(const std::string&)>& fits) {
  const auto dot_before = [&](size_t at) {
    return at == std::string::npos || at == 0 ? std::string::npos : name.rfind('.', at - 1);
  };
  const size_t last = dot_before(name.size());
  size_t stays = dot_before(last);  // what begins after this dot
  const bool index =
      stays != std::string::npos && stays + 1 < last && name.find_first_not_of("0123456789", stays + 1) == last;
  if (index && keep_index) stays = dot_before(stays);
  if (stays == std::string::npos || fits(name)) return name;
  std::vector<size_t> dots;
  for (size_t dot = name.find('.'); dot <= stays; dot = name.find('.', dot + 1)) dots.push_back(dot);
  const auto without = [&](size_t dot) { return "…" + name.substr(dot + 1); };
  // What is shorter fits where something longer does: a name may have a hundred thousand dots.
  const auto first =
      std::partition_point(dots.begin(), dots.end() - 1, [&](size_t dot) { return !fits(without(dot)); });
  return without(*first);
}

std::shared_ptr<const CaptionedPicture> captioned(const Picture& picture, ClassicText classic) {
  static const char plain = 0, labelled = 0;  // their addresses are the keys
  return picture.derived<CaptionedPicture>(classic == ClassicText::Labels ? &labelled : &plain,
                                           [&] { return draw(picture, classic); });
}

}  // namespace beholder
