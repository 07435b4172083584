#include "beholder/callbacks/text.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <memory>
#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>
#include <utility>
#include <vector>
#ifdef BEHOLDER_HAS_FREETYPE
#include <opencv2/freetype.hpp>
#endif

#include "beholder/log.h"
#include "beholder/thread_safety.h"

namespace beholder {
namespace {

/// One letter in one size: coverage 0..255 of a small box, placed relative to the pen on the baseline.
struct Glyph {
  int left = 0, top = 0, width = 0, height = 0;  // the box's corner is at (pen + left, baseline + top)
  int advance = 0;                               // of the pen
  std::vector<uint8_t> coverage;                 // height x width
};

using CodePoint = uint32_t;

// Takes one code point from text; U+FFFD for what is not UTF-8.
CodePoint next_code_point(const std::string& text, size_t& at) {
  const auto lead = static_cast<unsigned char>(text[at++]);
  if (lead < 0x80) return lead;
  const int more = lead >= 0xf0 && lead < 0xf5   ? 3
                   : lead >= 0xe0 && lead < 0xf0 ? 2
                   : lead >= 0xc2 && lead < 0xe0 ? 1
                                                 : 0;
  if (more == 0) return 0xfffd;
  CodePoint point = lead & (0x3f >> more);
  for (int i = 0; i < more; ++i) {
    if (at >= text.size() || (static_cast<unsigned char>(text[at]) & 0xc0) != 0x80) return 0xfffd;
    point = point << 6 | (static_cast<unsigned char>(text[at++]) & 0x3f);
  }
  const bool surrogate = point >= 0xd800 && point < 0xe000;
  const bool overlong = (more == 2 && point < 0x800) || (more == 3 && point < 0x10000);
  return surrogate || overlong || point > 0x10ffff ? 0xfffd : point;
}

std::string to_utf8(CodePoint p) {
  if (p < 0x80) return {static_cast<char>(p)};
  if (p < 0x800) return {static_cast<char>(0xc0 | p >> 6), static_cast<char>(0x80 | (p & 0x3f))};
  if (p < 0x10000) {
    return {static_cast<char>(0xe0 | p >> 12), static_cast<char>(0x80 | (p >> 6 & 0x3f)),
            static_cast<char>(0x80 | (p & 0x3f))};
  }
  return {static_cast<char>(0xf0 | p >> 18), static_cast<char>(0x80 | (p >> 12 & 0x3f)),
          static_cast<char>(0x80 | (p >> 6 & 0x3f)), static_cast<char>(0x80 | (p & 0x3f))};
}

// What our own texts use, in letters that Hershey has.
std::string to_ascii(CodePoint p) {
  switch (p) {
    case 0xd7: return "x";      // ×
    case 0xb7: return "|";      // ·
    case 0x2026: return "..";   // …
    case 0x2212: return "-";    // −
    case 0xb1: return "+-";     // ±
    case 0x221e: return "inf";  // ∞
    default: return p >= 0x20 && p < 0x7f ? std::string(1, static_cast<char>(p)) : "?";
  }
}

const char* const kFonts[] = {
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",    // Debian, Ubuntu
    "/usr/share/fonts/dejavu-sans-fonts/DejaVuSans.ttf",  // Fedora
    "/usr/share/fonts/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/TTF/DejaVuSans.ttf",  // Arch
    "/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf",
    "/usr/share/fonts/truetype/liberation2/LiberationSans-Regular.ttf",
    "/usr/share/fonts/liberation-sans/LiberationSans-Regular.ttf",
    "/usr/share/fonts/liberation/LiberationSans-Regular.ttf",
    "/usr/share/fonts/truetype/noto/NotoSans-Regular.ttf",
    "/usr/share/fonts/noto/NotoSans-Regular.ttf",
    "/usr/share/fonts/google-noto/NotoSans-Regular.ttf",
    "/usr/share/fonts/truetype/freefont/FreeSans.ttf",
    "/System/Library/Fonts/Helvetica.ttc",
    "/System/Library/Fonts/Supplemental/Arial.ttf",
};

/// The letters of one font in all sizes asked for.
class Font {
 public:
  Font() {
    const char* chosen = std::getenv("BEHOLDER_FONT");
    const std::string wish = chosen ? chosen : "";
    if (wish == "none") return;
    if (!wish.empty() && load(wish)) return;
    if (!wish.empty()) log_warning("BEHOLDER_FONT: expected a font file that FreeType reads; found " + wish);
    for (const char* path : kFonts) {
      if (::access(path, R_OK) == 0 && load(path)) return;
    }
  }

  Mutex& mutex() BEHOLDER_RETURN_CAPABILITY(mutex_) { return mutex_; }
  const std::string& path() const { return path_; }

  /// The letters drawn so far in one size.
  struct Size {
    int size = 0;
    std::vector<std::unique_ptr<Glyph>> latin =
        std::vector<std::unique_ptr<Glyph>>(256);  // by code point: nearly all that is asked for
    std::map<CodePoint, Glyph> others;
  };

  /// What is returned is guarded by mutex() too.
  Size& letters(int size) BEHOLDER_REQUIRES(mutex_) {
    Size& found = sizes_[size];
    found.size = size;
    return found;
  }
  /// The reference is valid until the next call.
  const Glyph& glyph(Size& letters, CodePoint point) BEHOLDER_REQUIRES(mutex_) {
    if (point < letters.latin.size()) {
      auto& kept = letters.latin[point];
      if (!kept) kept = std::make_unique<Glyph>(draw(point, letters.size));
      return *kept;
    }
    auto found = letters.others.find(point);
    if (found == letters.others.end()) {
      // A thousand letters are more than one language has in tensor names; hostile names shall not fill the memory.
      if (letters.others.size() >= 1000) letters.others.clear();
      found = letters.others.emplace(point, draw(point, letters.size)).first;
    }
    return found->second;
  }

 private:
  // For the constructor: nobody else knows this object yet.
  bool load(const std::string& path) BEHOLDER_NO_THREAD_SAFETY_ANALYSIS {
#ifdef BEHOLDER_HAS_FREETYPE
    try {
      if (::access(path.c_str(), R_OK) != 0) return false;
      freetype_ = cv::freetype::createFreeType2();
      freetype_->loadFontData(path, 0);
      path_ = path;
      return true;
    } catch (const cv::Exception&) {  // not a font; the caller looks further
      freetype_.release();
    }
#else
    (void)path;
#endif
    return false;
  }

  // White on black, the pen at `origin`.
  void put(cv::Mat& canvas, const std::string& text, cv::Point origin, int size) const BEHOLDER_REQUIRES(mutex_) {
#ifdef BEHOLDER_HAS_FREETYPE
    if (freetype_) {
      freetype_->putText(canvas, text, origin, size, cv::Scalar::all(255), -1, cv::LINE_AA, true);
      return;
    }
#endif
    cv::putText(canvas, text, origin, cv::FONT_HERSHEY_SIMPLEX, hershey_scale(size), cv::Scalar::all(255), 1,
                cv::LINE_AA);
  }
  static double hershey_scale(int size) { return size / 33.0; }

  static cv::Rect box(const cv::Mat& canvas) {
    cv::Mat gray;
    cv::extractChannel(canvas, gray, 0);
    return cv::boundingRect(gray);
  }

  Glyph draw(CodePoint point, int size) const BEHOLDER_REQUIRES(mutex_) {
    const bool hershey = path_.empty();
    if (point < 0x20 || point == 0x7f) point = 0xfffd;
    const std::string text = hershey ? to_ascii(point) : to_utf8(point);
    const int room = 4 * size + 8;
    const cv::Point origin(room / 2, room / 2);
    // The advance is how much further right an H ends that follows the letter; no version of OpenCV tells it.
    cv::Mat canvas = cv::Mat::zeros(room, 2 * room, CV_8UC3), alone = canvas.clone(), after = canvas.clone();
    put(canvas, text, origin, size);
    put(alone, "H", origin, size);
    put(after, text + "H", origin, size);
    Glyph glyph;
    glyph.advance = std::max(0, box(after).br().x - box(alone).br().x);
    // Where a bottom-left origin lies relative to the baseline differs between versions: measured on a letter too.
    const int baseline = box(alone).br().y;
    const cv::Rect ink = box(canvas);
    glyph.left = ink.x - origin.x;
    glyph.top = ink.y - baseline;
    glyph.width = ink.width;
    glyph.height = ink.height;
    glyph.coverage.resize(static_cast<size_t>(ink.width) * ink.height);
    for (int y = 0; y < ink.height; ++y) {
      for (int x = 0; x < ink.width; ++x) {
        glyph.coverage[static_cast<size_t>(y) * ink.width + x] = canvas.at<cv::Vec3b>(ink.y + y, ink.x + x)[0];
      }
    }
    return glyph;
  }

  Mutex mutex_;
  std::string path_;  // set by the constructor
  std::map<int, Size> sizes_ BEHOLDER_GUARDED_BY(mutex_);
#ifdef BEHOLDER_HAS_FREETYPE
  cv::Ptr<cv::freetype::FreeType2> freetype_ BEHOLDER_GUARDED_BY(mutex_) BEHOLDER_PT_GUARDED_BY(mutex_);
#endif
};

// Leaked on purpose: a worker may still draw while static destructors run.
Font& font() {
  static auto* instance = new Font;
  return *instance;
}

int checked(int size) { return std::clamp(size, 5, 200); }

}  // namespace

int text_width(const std::string& text, int size) {
  MutexLock lock(font().mutex());
  auto& letters = font().letters(checked(size));
  int width = 0;
  for (size_t at = 0; at < text.size();) width += font().glyph(letters, next_code_point(text, at)).advance;
  return width;
}

int cap_height(int size) {
  MutexLock lock(font().mutex());
  return font().glyph(font().letters(checked(size)), 'H').height;
}

int draw_text(const TextCanvas& canvas, int x, int baseline, const std::string& text, TextColor color, int size,
              const Rect& clip) {
  const int clip_left = std::max(0, clip.x), clip_right = std::min(canvas.width, clip.x + clip.width);
  const int clip_top = std::max(0, clip.y), clip_bottom = std::min(canvas.height, clip.y + clip.height);
  const int ink[3] = {color.r, color.g, color.b};
  MutexLock lock(font().mutex());
  auto& letters = font().letters(checked(size));
  for (size_t at = 0; at < text.size();) {
    const Glyph& glyph = font().glyph(letters, next_code_point(text, at));
    const int left = x + glyph.left, top = baseline + glyph.top;
    const int first = std::max(left, clip_left), last = std::min(left + glyph.width, clip_right);
    for (int row = std::max(top, clip_top); row < std::min(top + glyph.height, clip_bottom); ++row) {
      const uint8_t* coverage = glyph.coverage.data() + static_cast<ptrdiff_t>(row - top) * glyph.width - left;
      uint8_t* pixel = canvas.rgb + (static_cast<ptrdiff_t>(row) * canvas.width + first) * 3;
      for (int column = first; column < last; ++column, pixel += 3) {
        const int alpha = coverage[column];
        if (alpha == 0) continue;
        for (int k = 0; k < 3; ++k) {
          const int mixed = pixel[k] * (255 - alpha) + ink[k] * alpha + 128;
          pixel[k] = static_cast<uint8_t>((mixed + (mixed >> 8)) >> 8);  // = mixed / 255, rounded
        }
      }
    }
    x += glyph.advance;
  }
  return x;
}

int draw_text(const TextCanvas& canvas, int x, int baseline, const std::string& text, TextColor color, int size) {
  return draw_text(canvas, x, baseline, text, color, size, {0, 0, canvas.width, canvas.height});
}

std::string text_font() { return font().path(); }

}  // namespace beholder
