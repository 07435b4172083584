#include "tools/view_window.h"

#include <algorithm>
#include <cstdlib>
#include <opencv2/highgui.hpp>
#include <opencv2/imgproc.hpp>
#include <string>
#include <vector>

#include "beholder/callbacks/caption_drawing.h"
#include "beholder/colormaps.h"
#include "beholder/numbers.h"
#include "tools/view_keys.h"
#include "tools/view_overlay.h"

namespace beholder::viewer {
namespace {

const char* const kWindow = "Beholder";
constexpr int kPollMs = 4;  // how long a new picture or a key waits at most
constexpr auto kHintTime = std::chrono::seconds(12), kAnswerTime = std::chrono::seconds(5);
constexpr auto kValueInterval = std::chrono::milliseconds(100);
// Toolkits do not tell that the mouse has left: after a move near the edge it is soon taken for gone.
constexpr auto kMouseRests = std::chrono::seconds(20), kMouseNearEdge = std::chrono::seconds(1);
constexpr int kEdge = 16;

double unix_seconds(std::chrono::system_clock::time_point time) {
  return std::chrono::duration<double>(time.time_since_epoch()).count();
}

std::string last_component(const std::string& path) {
  const auto end = path.find_last_not_of('/');
  if (end == std::string::npos) return path;
  const auto slash = path.rfind('/', end);
  return path.substr(slash == std::string::npos ? 0 : slash + 1,
                     end - (slash == std::string::npos ? 0 : slash + 1) + 1);
}

}  // namespace

ViewWindow::ViewWindow(LiveClient& client, const std::string& latencies) : client_(client) {
  if (!latencies.empty()) latencies_.open(latencies);
  cv::namedWindow(kWindow, cv::WINDOW_NORMAL | cv::WINDOW_FREERATIO | cv::WINDOW_GUI_NORMAL);
  cv::setMouseCallback(
      kWindow, [](int event, int x, int y, int, void* self) { static_cast<ViewWindow*>(self)->on_mouse(event, x, y); },
      this);
  cv::resizeWindow(kWindow, 1280, 726);
}

ViewWindow::~ViewWindow() {
  try {
    cv::destroyAllWindows();
  } catch (const cv::Exception&) {  // it is gone already
  }
}

void ViewWindow::run() {
  do {
    if (is_changed()) {
      compose();
      cv::Mat bgr;
      cv::cvtColor(canvas_, bgr, cv::COLOR_RGB2BGR);
      cv::imshow(kWindow, bgr);
      if (!on_key(cv::waitKeyEx(1))) return;
      note_latency();
    }
    if (!on_key(cv::waitKeyEx(kPollMs))) return;
    ask_for_value();
  } while (is_open());
}

bool ViewWindow::is_open() const {
  try {
    return cv::getWindowProperty(kWindow, cv::WND_PROP_VISIBLE) >= 1;
  } catch (const cv::Exception&) {
    return false;
  }
}

bool ViewWindow::is_changed() {
  const auto now = Clock::now();
  bool changed = dirty_;
  dirty_ = false;
  auto view = client_.view();
  if (view != view_) {
    changed = true;
    view_ = std::move(view);
    const Picture* picture = view_->picture();
    if (picture && !first_shown_) first_shown_ = now;
    if (picture && !sized_) {
      const auto [width, height] = preferred_window(*picture->layout);
      cv::resizeWindow(kWindow, width, height);
      sized_ = true;
    }
    const std::string run = view_->state ? last_component(view_->state->logdir) : view_->where;
    const std::string title = run.empty() ? "Beholder" : run + " - Beholder";
    if (title != title_) cv::setWindowTitle(kWindow, title_ = title);
  }
  const cv::Rect place = cv::getWindowImageRect(kWindow);
  if (place.width > 0 && place.height > 0 && (place.width != window_.width || place.height != window_.height)) {
    window_.width = place.width;
    window_.height = place.height;
    changed = true;
  }
  if (hint_ && first_shown_ && now - *first_shown_ > kHintTime) {
    hint_ = false;
    changed = true;
  }
  const auto answer = client_.answer();
  const std::string text = answer && now - answer->time < kAnswerTime ? answer->text : "";
  if (text != answer_) {
    answer_ = text;
    answer_failed_ = answer && answer->failed;
    changed = true;
  }
  if (mouse_) {
    const bool at_edge = mouse_->x < kEdge || mouse_->y < kEdge || mouse_->x >= window_.width - kEdge ||
                         mouse_->y >= window_.height - kEdge;
    if (now - mouse_moved_ > (at_edge ? kMouseNearEdge : kMouseRests)) {
      mouse_.reset();
      changed = true;
    }
  }
  auto pointed = client_.pointed();
  if (pointed && (!pointed_ || pointed->sequence != pointed_->sequence || pointed->x != pointed_->x ||
                  pointed->y != pointed_->y || pointed->value.has_value() != pointed_->value.has_value())) {
    // A question that a newer picture overtook says nothing: the value before stays, where it is of the same place.
    const bool overtaken = !pointed->value && pointed_ && pointed_->x == pointed->x && pointed_->y == pointed->y;
    if (!overtaken || (view_->pixels && view_->pixels->sequence == pointed->sequence)) {
      pointed_ = std::move(pointed);
      changed = true;
    }
  }
  return changed;
}

void ViewWindow::scale_picture(const LivePixels& pixels) {
  const Rect& to = window_.picture;
  const Rect size{0, 0, to.width, to.height};
  if (scaled_from_.get() == &pixels && scaled_to_ == size) return;
  const cv::Mat whole(pixels.height, pixels.width, CV_8UC3, const_cast<uint8_t*>(pixels.rgb.data()));
  const cv::Mat shown =
      whole(cv::Rect(0, 0, std::min(window_.source_width, whole.cols), std::min(window_.source_height, whole.rows)));
  cv::resize(shown, scaled_, cv::Size(to.width, to.height), 0, 0,
             window_.scale < 1 ? cv::INTER_AREA : cv::INTER_NEAREST);
  scaled_from_ = view_->pixels;
  scaled_to_ = size;
}

void ViewWindow::compose() {
  // The pixels may be of another layout than the state, for the moment between two answers: shown without text then.
  const Picture* picture = view_->picture();
  Layout plain;
  if (view_->pixels) {
    plain.width = view_->pixels->width;
    plain.height = view_->pixels->height;
  }
  window_ = window_layout(window_.width, window_.height,
                          picture         ? picture->layout.get()
                          : view_->pixels ? &plain
                                          : nullptr);
  canvas_.create(window_.height, window_.width, CV_8UC3);
  canvas_.setTo(cv::Scalar(kBackgroundColour.r, kBackgroundColour.g, kBackgroundColour.b));
  const TextCanvas canvas{canvas_.data, canvas_.cols, canvas_.rows};

  hovered_.reset();
  if (view_->pixels && window_.picture.width > 0 && window_.picture.height > 0) {
    scale_picture(*view_->pixels);
    const Rect& to = window_.picture;
    scaled_.copyTo(canvas_(cv::Rect(to.x, to.y, to.width, to.height)));
    if (picture) {
      draw_section_texts(canvas, *picture, {window_.scale, to.x, to.y, window_.text_scale}, ClassicText::Labels);
      const auto pixel = mouse_ ? pixel_at(window_, mouse_->x, mouse_->y) : std::nullopt;
      if (pixel && picture->message.empty()) hovered_ = section_at(*picture->layout, *pixel);
    }
  } else if (view_->link == Link::Refused) {
    draw_in_place_of_picture(canvas, window_, view_->problem, "q closes this window");
  } else if (view_->state && view_->link == Link::Connected) {
    draw_in_place_of_picture(canvas, window_, "waiting for the first picture", "h for help, q closes this window");
  } else {
    draw_in_place_of_picture(canvas, window_, "waiting for a run in " + view_->where, "q closes this window");
  }
  draw_status_line(canvas, window_, *view_);
  if (help_) {
    draw_help(canvas, window_, view_->state ? view_->state->settings : Settings());
  } else if (hovered_ && mouse_) {
    const auto pixel = pixel_at(window_, mouse_->x, mouse_->y);
    const bool same_place = pointed_ && pixel && pointed_->x == pixel->x && pointed_->y == pixel->y;
    draw_section_info(canvas, window_, *picture, *hovered_, same_place ? pointed_->value : std::nullopt, mouse_->x,
                      mouse_->y);
  }
  auto notes = view_->pixels ? notes_of(*view_) : std::vector<Note>();
  if (!answer_.empty()) notes.push_back({answer_, answer_failed_ ? TextColors::kRed : TextColors::kBright});
  draw_notes(canvas, window_, notes, hint_ && !help_ && view_->pixels ? "h for help" : "");
}

void ViewWindow::note_latency() {
  if (!latencies_.is_open() || !view_->pixels || !view_->picture()) return;
  const Picture& picture = *view_->picture();
  if (picture.sequence != view_->pixels->sequence || picture.sequence == latency_of_) return;
  latency_of_ = picture.sequence;
  latencies_ << std::to_string(picture.sequence) + ' ' + fixed_text(unix_seconds(picture.time), 6) + ' ' +
                    fixed_text(unix_seconds(std::chrono::system_clock::now()), 6)
             << std::endl;
}

bool ViewWindow::on_key(int code) {
  const std::string key = key_name(code);
  const KeyAction action = action_of_key(key);
  if (!action.control) return true;
  const std::string& name = action.control->name;
  if (name == "quit") return false;
  if (name == "help" || (name == "reset" && help_)) {  // Esc closes the help before it resets anything
    help_ = !help_;
    hint_ = false;
    dirty_ = true;
  } else if (name == "pan") {
    const bool across = key == "left" || key == "right";
    client_.pan(across ? action.direction : 0, across ? 0 : action.direction);
  } else {
    client_.act(name, action.direction);
  }
  return true;
}

void ViewWindow::on_mouse(int event, int x, int y) {
  mouse_ = Pixel{x, y};
  mouse_moved_ = Clock::now();
  dirty_ = true;
  if (event == cv::EVENT_LBUTTONDOWN || event == cv::EVENT_LBUTTONDBLCLK) pressed_ = *mouse_;
  if (event == cv::EVENT_LBUTTONUP && std::abs(x - pressed_.x) < 5 && std::abs(y - pressed_.y) < 5) click();
}

void ViewWindow::click() {
  const Picture* picture = view_ ? view_->picture() : nullptr;
  if (!picture || help_) return;
  if (!view_->state->settings.solo.empty()) {
    client_.act("solo_toggle", 1);  // back, wherever it is clicked
    return;
  }
  const auto pixel = pixel_at(window_, mouse_->x, mouse_->y);
  const auto section = pixel ? section_at(*picture->layout, *pixel) : std::nullopt;
  if (section) client_.toggle_solo(picture->sections[*section].name);
}

void ViewWindow::ask_for_value() {
  if (!mouse_ || !hovered_ || help_ || !view_->pixels || view_->link != Link::Connected) return;
  const auto pixel = pixel_at(window_, mouse_->x, mouse_->y);
  const auto now = Clock::now();
  if (!pixel || now - asked_at_ < kValueInterval) return;
  const PointedValue question{view_->pixels->sequence, pixel->x, pixel->y, std::nullopt};
  if (asked_ && asked_->sequence == question.sequence && asked_->x == question.x && asked_->y == question.y) return;
  asked_ = question;
  asked_at_ = now;
  client_.point_at(question.sequence, question.x, question.y);
}

}  // namespace beholder::viewer
