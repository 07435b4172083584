#include "beholder/callbacks/live_encodings.h"

#include <atomic>
#include <opencv2/imgcodecs.hpp>
#include <stdexcept>

#include "beholder/callbacks/bgr.h"
#include "beholder/callbacks/captions.h"

namespace beholder {
namespace {

std::atomic<int64_t> made{0};

using Bytes = std::vector<uint8_t>;

/// One address for each form: the keys of Picture::derived().
struct FormKeys {
  char png[2];
  char jpeg[2][101];
};
const FormKeys keys{};

std::shared_ptr<const Bytes> encode(PictureFormat format, const uint8_t* rgb, int width, int height, int jpeg_quality) {
  auto bytes = std::make_shared<Bytes>();
  try {
    const cv::Mat bgr = bgr_of(rgb, width, height);
    const bool png = format == PictureFormat::Png;
    // Without a level of compression OpenCV takes one filter and the fastest level, half the time of level 1, which
    // tries all filters on each row; and of the strategies the default one finds the blocks that repeat from row to
    // row.
    const std::vector<int> options = png ? std::vector<int>{cv::IMWRITE_PNG_STRATEGY, cv::IMWRITE_PNG_STRATEGY_DEFAULT}
                                         : std::vector<int>{cv::IMWRITE_JPEG_QUALITY, jpeg_quality};
    if (cv::imencode(png ? ".png" : ".jpg", bgr, *bytes, options)) {
      ++made;
      return bytes;
    }
  } catch (const cv::Exception& e) {
    throw std::runtime_error("OpenCV cannot encode a picture of " + std::to_string(width) + " x " +
                             std::to_string(height) + ": " + e.err);
  }
  throw std::runtime_error("OpenCV cannot encode a picture of " + std::to_string(width) + " x " +
                           std::to_string(height));
}

}  // namespace

std::optional<PictureFormat> picture_format(const std::string& name) {
  if (name == "raw") return PictureFormat::Raw;
  if (name == "png") return PictureFormat::Png;
  if (name == "jpeg") return PictureFormat::Jpeg;
  return std::nullopt;
}

const char* content_type(PictureFormat format) {
  switch (format) {
    case PictureFormat::Raw: return "application/octet-stream";
    case PictureFormat::Png: return "image/png";
    case PictureFormat::Jpeg: return "image/jpeg";
  }
  return "application/octet-stream";
}

SharedBytes encoded(const std::shared_ptr<const Picture>& picture, PictureFormat format, bool captions,
                    int jpeg_quality) {
  // Before derived() below: a form's maker must not ask the picture for another form.
  std::shared_ptr<const CaptionedPicture> with_text;
  if (captions) with_text = captioned(*picture, ClassicText::Labels);
  const Bytes& rgb = with_text ? with_text->rgb : picture->rgb;
  if (format == PictureFormat::Raw) {
    const std::shared_ptr<const void> owner =
        with_text ? std::shared_ptr<const void>(with_text) : std::shared_ptr<const void>(picture);
    return {owner, reinterpret_cast<const char*>(rgb.data()), rgb.size()};
  }
  const void* key = format == PictureFormat::Png ? &keys.png[captions] : &keys.jpeg[captions][jpeg_quality];
  const auto bytes = picture->derived<Bytes>(
      key, [&] { return encode(format, rgb.data(), picture->width, picture->height, jpeg_quality); });
  return {bytes, reinterpret_cast<const char*>(bytes->data()), bytes->size()};
}

int64_t encodings_made() { return made.load(std::memory_order_relaxed); }

}  // namespace beholder
