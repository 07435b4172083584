#include "tools/view_overlay.h"

#include <algorithm>
#include <cmath>
#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>
#include <utility>

#include "beholder/callbacks/caption_drawing.h"
#include "beholder/numbers.h"

namespace beholder::viewer {
namespace {

using Colors = TextColors;
constexpr TextColor kPanel{26, 26, 33}, kBorder{72, 72, 84}, kRule{44, 44, 52}, kStatusPanel{26, 26, 31},
    kKey{56, 56, 68}, kRecording{240, 60, 60}, kOutline{255, 255, 255};
constexpr double kPanelCover = 0.94, kHelpCover = 0.8;  // of what lies below it
constexpr double kDim = 0.28;                           // of the picture's brightness under the help

/// Pixels of text scale 1 at this window's scale.
struct Scaled {
  double scale;
  int operator()(double pixels) const { return static_cast<int>(std::lround(pixels * scale)); }
};

cv::Mat as_mat(const TextCanvas& canvas) { return cv::Mat(canvas.height, canvas.width, CV_8UC3, canvas.rgb); }
cv::Scalar as_scalar(TextColor c) { return cv::Scalar(c.r, c.g, c.b); }
cv::Rect within(const TextCanvas& canvas, const Rect& r) {
  return cv::Rect(r.x, r.y, r.width, r.height) & cv::Rect(0, 0, canvas.width, canvas.height);
}

void fill(const TextCanvas& canvas, const Rect& r, TextColor color, double cover = 1) {
  const cv::Rect area = within(canvas, r);
  if (area.empty()) return;
  cv::Mat pixels = as_mat(canvas)(area);
  if (cover >= 1) {
    pixels.setTo(as_scalar(color));
    return;
  }
  pixels.convertTo(pixels, -1, 1 - cover, 0);
  cv::add(pixels, as_scalar(color) * cover, pixels);
}

void outline(const TextCanvas& canvas, const Rect& r, TextColor color, int thickness) {
  fill(canvas, {r.x, r.y, r.width, thickness}, color);
  fill(canvas, {r.x, r.y + r.height - thickness, r.width, thickness}, color);
  fill(canvas, {r.x, r.y, thickness, r.height}, color);
  fill(canvas, {r.x + r.width - thickness, r.y, thickness, r.height}, color);
}

void panel(const TextCanvas& canvas, const Rect& r, Scaled px, double cover = kPanelCover) {
  fill(canvas, r, kPanel, cover);
  outline(canvas, r, kBorder, std::max(1, px(1)));
}

/// The longest beginning of `text` that fits, with "…" where it is shortened.
std::string fitting(const std::string& text, int size, int room) {
  if (text_width(text, size) <= room) return text;
  std::string shorter = text;
  while (!shorter.empty()) {
    do {
      shorter.pop_back();
    } while (!shorter.empty() && (static_cast<unsigned char>(shorter.back()) & 0xc0) == 0x80);
    // What is left may end in the lead byte of a letter whose rest is gone.
    if (!shorter.empty() && static_cast<unsigned char>(shorter.back()) >= 0xc0) shorter.pop_back();
    if (text_width(shorter + "…", size) <= room) return shorter + "…";
  }
  return "";
}

std::string fps_text(double fps) {
  if (!std::isfinite(fps)) return "?";
  return fixed_text(fps, fps < 9.95 && fps != std::floor(fps) ? 1 : 0);
}

struct Part {
  std::string text;
  TextColor color;
  int importance;  // parts of less importance go first where there is no room
};

std::vector<Part> status_parts(const RunView& view) {
  const LiveState& state = *view.state;
  const Settings& wished = state.settings;
  const Picture* picture = state.picture.get();
  const bool shows_mode = picture && picture->settings.mode == wished.mode;
  const int64_t step = view.pixels ? view.pixels->step : state.step;
  std::vector<Part> parts = {
      {to_string(wished.values), Colors::kBright, 9},
      {shows_mode ? mode_text(*picture) : to_string(wished.mode), Colors::kQuiet, 8},
      {scaling_text(wished.scaling), Colors::kQuiet, 4},
      {"step " + grouped(step), Colors::kBright, 7},
      {fps_text(state.fps_real) + " of " + fps_text(state.fps_wished) + " FPS", Colors::kQuiet, 6},
      {grouped(state.dropped) + " dropped", Colors::kQuiet, 2},
  };
  if (!wished.solo.empty()) {
    parts.push_back({"only " + wished.solo, Colors::kAmber, 8});
    if (wished.zoom > 1) parts.push_back({"zoom " + short_number(wished.zoom), Colors::kAmber, 5});
  } else if (picture && picture->layout) {
    const auto sections = static_cast<int64_t>(picture->layout->total_sections);
    parts.push_back({grouped(sections) + (sections == 1 ? " section" : " sections"), Colors::kQuiet, 3});
    parts.push_back({page_text(*picture), Colors::kAmber, 8});
  }
  if (picture) parts.push_back({picture->notice, Colors::kAmber, 8});
  if (!wished.filter.empty()) parts.push_back({"filter " + wished.filter, Colors::kAmber, 5});
  parts.erase(std::remove_if(parts.begin(), parts.end(), [](const Part& p) { return p.text.empty(); }), parts.end());
  return parts;
}

int letters_of(Scaled px) { return px(12); }

std::string number(double value) {
  if (!std::isfinite(value)) return short_number(value);
  return general_text(value, 4);
}

/// For the table of keys: numbers without digits that nobody reads.
std::string shown(const Control& control, const Settings& settings) {
  const std::string text = control.get(settings);
  if (control.type != Control::Type::Number) return text;
  return number(number_of(text));
}

std::string index_text(const std::vector<int64_t>& index) {
  std::string text;
  for (int64_t i : index) text += (text.empty() ? "" : ", ") + std::to_string(i);
  return "[" + text + "]";
}

struct InfoLine {
  std::string text;
  TextColor color;
};

std::vector<InfoLine> info_lines(const Picture& picture, size_t at) {
  const SectionInfo& info = picture.sections[at];
  const Section& section = picture.layout->sections[at];
  const Statistics& s = info.statistics;
  std::vector<InfoLine> lines;
  lines.push_back(
      {times(info.shape) + "  " + to_string(info.kind) + "  " + info.dtype + "  " + info.device, Colors::kVectorName});
  if (!info.shown_as.empty()) lines.push_back({info.shown_as, Colors::kAmber});
  if (!section.reading.empty()) lines.push_back({section.reading, Colors::kQuiet});
  if (info.absent_since) {
    lines.push_back(
        {"absent since step " + grouped(*info.absent_since) + ": these are the last values", Colors::kAmber});
  }
  lines.push_back({"min " + number(s.min) + "   max " + number(s.max), Colors::kVectorName});
  lines.push_back({"mean " + number(s.mean) + "   std " + number(s.std), Colors::kVectorName});
  lines.push_back({"zeros " + grouped(s.zeros) + "   NaN " + grouped(s.nans) + "   Inf " + grouped(s.infs),
                   s.nans + s.infs > 0 ? Colors::kRed : Colors::kVectorName});
  if (s.beyond > 0) lines.push_back({"finite, beyond float32: " + grouped(s.beyond), Colors::kRed});
  lines.push_back({"colours from " + number(info.scale_low) + " to " + number(info.scale_high), Colors::kQuiet});
  const std::string shown = info.complete ? "all " + grouped(info.values_total) + " values"
                                          : grouped(s.count) + " of " + grouped(info.values_total) + " values" +
                                                (info.sampled ? ", a sample" : ", the top-left part");
  lines.push_back({shown, info.complete ? Colors::kQuiet : Colors::kAmber});
  if (info.relative_change)
    lines.push_back({"changed by " + number(*info.relative_change * 100) + " %", Colors::kQuiet});
  if (info.dead_share) lines.push_back({"dead channels " + number(*info.dead_share * 100) + " %", Colors::kAmber});
  return lines;
}

}  // namespace

void draw_status_line(const TextCanvas& canvas, const WindowLayout& window, const RunView& view) {
  const Scaled px{window.text_scale};
  const Rect bar = window.status;
  fill(canvas, bar, kStatusPanel);
  fill(canvas, {bar.x, bar.y, bar.width, std::max(1, px(1))}, kRule);
  if (!view.state) return;
  const int size = letters_of(px), margin = px(10), baseline = baseline_in(bar, size);
  const int right = bar.x + bar.width - margin;
  int x = bar.x + margin;
  if (view.state->settings.recording && view.link == Link::Connected) {
    const int radius = px(4);
    cv::Mat pixels = as_mat(canvas);
    cv::circle(pixels, {x + radius, bar.y + bar.height / 2}, radius, as_scalar(kRecording), cv::FILLED, cv::LINE_AA);
    x += 2 * radius + px(6);
    x = draw_text(canvas, x, baseline, "REC", kRecording, size, bar) + px(12);
  }
  auto parts = status_parts(view);
  const std::string dot = "  ·  ";
  const int dot_width = text_width(dot, size);
  const auto width = [&] {
    int sum = -dot_width;
    for (const auto& part : parts) sum += dot_width + text_width(part.text, size);
    return sum;
  };
  while (parts.size() > 1 && x + width() > right) {
    parts.erase(std::min_element(parts.begin(), parts.end(),
                                 [](const Part& a, const Part& b) { return a.importance < b.importance; }));
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) x = draw_text(canvas, x, baseline, dot, Colors::kFaint, size, bar);
    x = draw_text(canvas, x, baseline, parts[i].text, parts[i].color, size, bar);
  }
  const Picture* picture = view.state->picture.get();
  const int free_from = x + px(24);
  if (picture && free_from < right) {
    draw_colour_scale(canvas, *picture, {free_from, bar.y, right - free_from, bar.height}, window.text_scale);
  }
}

void draw_help(const TextCanvas& canvas, const WindowLayout& window, const Settings& settings) {
  const int picture_height = std::max(0, canvas.height - window.status.height);
  fill(canvas, {0, 0, canvas.width, picture_height}, {0, 0, 0}, 1 - kDim);

  std::vector<const Control*> rows;
  for (const auto& control : controls()) {
    if (!control.keys.empty()) rows.push_back(&control);
  }
  const std::vector<std::string> below = {"click a section: it alone, and back", "mouse over it: its numbers"};
  // The letters that the window has room for: rows of twice their size, a title, a last line, margins.
  const double lines = static_cast<double>(rows.size()) + 3.2;
  const double room = std::min(picture_height * 0.97 / lines, canvas.width / 26.0);
  const Scaled px{std::clamp(room / 26.0, 0.62, window.text_scale * 1.15)};
  const int size = std::max(8, px(13)), row_height = std::max(size + 3, px(26)), gap = px(20), margin = px(24);
  const int key_padding = px(6);

  const auto keys_width = [&](const Control& c) { return text_width(c.keys, size) + 2 * key_padding; };
  int keys = 0, names = 0, values = 0, helps = 0;
  for (const Control* c : rows) {
    keys = std::max(keys, keys_width(*c));
    names = std::max(names, text_width(c->label, size));
    values = std::max(values, text_width(shown(*c, settings), size));
    for (const auto& choice : c->choices) values = std::max(values, text_width(choice, size));  // it shall not jump
    helps = std::max(helps, text_width(c->help, size));
  }
  const int widest = canvas.width - 2 * px(12);
  int width = 2 * margin + keys + names + values + helps + 3 * gap;
  if (width > widest) helps -= width - widest;
  if (helps < px(120)) helps = -gap;  // no room for it: keys, names and values alone
  width = std::min(widest, 2 * margin + keys + names + values + helps + 3 * gap);
  const int height = static_cast<int>(std::lround(lines * row_height));
  const Rect box{(canvas.width - width) / 2, std::max(0, (picture_height - height) / 2), width, height};
  panel(canvas, box, px, kHelpCover);

  int y = box.y + row_height / 2;
  const Rect title{box.x + margin, y, width - 2 * margin, row_height};
  draw_text(canvas, title.x, baseline_in(title, size), "Keys", Colors::kBright, size, title);
  const std::string close = "h closes this";
  draw_text(canvas, title.x + title.width - text_width(close, size), baseline_in(title, size), close, Colors::kQuiet,
            size, title);
  y += row_height;
  fill(canvas, {title.x, y, title.width, std::max(1, px(1))}, kBorder);
  y += px(4);
  for (const Control* c : rows) {
    const Rect line{box.x + margin, y, width - 2 * margin, row_height};
    const int baseline = baseline_in(line, size);
    const Rect cap{line.x, line.y + px(2), keys_width(*c), row_height - 2 * px(2)};
    fill(canvas, cap, kKey);
    draw_text(canvas, cap.x + key_padding, baseline, c->keys, Colors::kBright, size, line);
    int x = line.x + keys + gap;
    draw_text(canvas, x, baseline, c->label, Colors::kBright, size, line);
    x += names + gap;
    draw_text(canvas, x, baseline, shown(*c, settings), Colors::kAmber, size, line);
    x += values + gap;
    if (helps > 0) draw_text(canvas, x, baseline, fitting(c->help, size, helps), Colors::kQuiet, size, line);
    y += row_height;
  }
  y += px(4);
  fill(canvas, {title.x, y, title.width, std::max(1, px(1))}, kBorder);
  const Rect last{title.x, y, title.width, row_height};
  draw_text(canvas, last.x, baseline_in(last, size), fitting(below[0] + "  ·  " + below[1], size, last.width),
            Colors::kQuiet, size, last);
}

void draw_notes(const TextCanvas& canvas, const WindowLayout& window, const std::vector<Note>& notes,
                const std::string& hint) {
  const Scaled px{window.text_scale};
  const int size = px(13), padding = px(12), height = px(28), above = window.status.y - px(10) - height;
  const auto draw = [&](const std::string& text, TextColor color, int x, int y) {
    const std::string shown = fitting(text, size, canvas.width - 2 * padding - px(8));
    const Rect box{x, y, text_width(shown, size) + 2 * padding, height};
    panel(canvas, box, px);
    draw_text(canvas, x + padding, baseline_in(box, size), shown, color, size, box);
  };
  int y = above;
  if (!hint.empty()) {
    const int width = text_width(hint, size) + 2 * padding;
    draw(hint, Colors::kBright, canvas.width - width - px(10), y);
    int widest = 0;
    for (const auto& note : notes) widest = std::max(widest, text_width(note.text, size) + 2 * padding);
    if ((canvas.width + widest) / 2 > canvas.width - width - px(16)) y -= height + px(6);  // no room beside it
  }
  for (auto note = notes.rbegin(); note != notes.rend(); ++note) {
    const int width = std::min(canvas.width - px(8), text_width(note->text, size) + 2 * padding);
    draw(note->text, note->color, (canvas.width - width) / 2, y);
    y -= height + px(6);
  }
}

std::vector<Note> notes_of(const RunView& view) {
  std::vector<Note> notes;
  switch (view.link) {
    case Link::Ended: notes.push_back({"run ended; waiting for a new one in " + view.where, Colors::kAmber}); break;
    case Link::Reconnecting:
      notes.push_back({"no answer from " + view.where + "; trying again", Colors::kAmber});
      break;
    case Link::Refused: notes.push_back({view.problem, Colors::kAmber}); break;
    default: break;
  }
  if (view.link != Link::Connected || !view.state) return notes;
  if (view.state->settings.paused) notes.push_back({"paused; space goes on", Colors::kBright});
  if (view.state->waiting) notes.push_back({"waiting for the next update", Colors::kAmber});
  return notes;
}

void draw_in_place_of_picture(const TextCanvas& canvas, const WindowLayout& window, const std::string& text,
                              const std::string& below) {
  const Scaled px{window.text_scale};
  const int height = canvas.height - window.status.height;
  draw_centred(canvas, text, {0, 0, canvas.width, height}, px(20), Colors::kBright);
  draw_centred(canvas, below, {0, height / 2 + px(28), canvas.width, px(24)}, px(13), Colors::kQuiet);
}

void draw_section_info(const TextCanvas& canvas, const WindowLayout& window, const Picture& picture, size_t section,
                       const std::optional<ShownValue>& value, int mouse_x, int mouse_y) {
  if (!picture.layout || section >= picture.layout->sections.size() || section >= picture.sections.size()) return;
  const Scaled px{window.text_scale};
  const Placement placement{window.scale, window.picture.x, window.picture.y, window.text_scale};
  const Rect area = placement.on_canvas(picture.layout->sections[section].picture);
  const int thin = std::max(1, px(1));
  outline(canvas, {area.x - 2 * thin, area.y - 2 * thin, area.width + 4 * thin, area.height + 4 * thin}, kOutline,
          thin);

  const int size = px(12), pitch = px(18), padding = px(10);
  const auto lines = info_lines(picture, section);
  const std::string name = picture.sections[section].name;
  // The value's line is there also while no value is known: the panel shall not jump under the mouse.
  const std::string index = value ? index_text(value->index) : "";
  const std::string number_there = !value ? "" : value->text.empty() ? number(value->value) : value->text;
  int width = text_width(name, px(13));
  for (const auto& line : lines) width = std::max(width, text_width(line.text, size));
  width = std::max(width, text_width(index + "   " + number_there, px(13)));
  width = std::min(width, canvas.width - 2 * padding);
  Rect box{0, 0, width + 2 * padding, static_cast<int>(lines.size() + 2) * pitch + 2 * padding - px(4)};
  box.x = mouse_x + px(18);
  box.y = mouse_y + px(18);
  if (box.x + box.width > canvas.width - px(4)) box.x = mouse_x - px(12) - box.width;
  if (box.y + box.height > window.status.y - px(4)) box.y = mouse_y - px(12) - box.height;
  box.x = std::max(px(4), box.x);
  box.y = std::max(px(4), box.y);
  panel(canvas, box, px);

  const int x = box.x + padding;
  Rect row{x, box.y + padding - px(2), width, pitch};
  draw_text(canvas, x, baseline_in(row, px(13)), fitting(name, px(13), width), Colors::kBright, px(13), box);
  for (const auto& line : lines) {
    row.y += pitch;
    draw_text(canvas, x, baseline_in(row, size), fitting(line.text, size, width), line.color, size, box);
  }
  row.y += pitch + px(2);
  if (!value) return;
  fill(canvas, {x, row.y, width, thin}, kBorder);
  const int after = draw_text(canvas, x, baseline_in(row, px(13)), index, Colors::kQuiet, px(13), box);
  draw_text(canvas, after + px(12), baseline_in(row, px(13)), number_there, Colors::kAmber, px(13), box);
}

}  // namespace beholder::viewer
