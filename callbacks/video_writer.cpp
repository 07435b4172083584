#include "beholder/callbacks/video_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <exception>
#include <functional>
#include <iterator>
#include <new>
#include <system_error>
#include <utility>
#include <vector>

#include "beholder/options.h"
#include "beholder/paths.h"

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
}

namespace beholder {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kFragmentFrames = 15;
constexpr std::chrono::seconds kFragmentTime{1};
constexpr int kIoBufferBytes = 1 << 16;
// H.264 ends here; a film of a taller picture (classic with 123 sections) is better kept as PNGs.
constexpr int kMaxSide = 16384;

// libav frees some things through T** and others through T*.
template <auto Free>
struct FreePointer {
  template <typename T>
  void operator()(T* p) const {
    Free(&p);
  }
};
template <auto Free>
struct FreeObject {
  template <typename T>
  void operator()(T* p) const {
    Free(p);
  }
};
using UniqueCodecContext = std::unique_ptr<AVCodecContext, FreePointer<avcodec_free_context>>;
using UniqueFrame = std::unique_ptr<AVFrame, FreePointer<av_frame_free>>;
using UniquePacket = std::unique_ptr<AVPacket, FreePointer<av_packet_free>>;
using UniqueFormatContext = std::unique_ptr<AVFormatContext, FreeObject<avformat_free_context>>;
using UniqueSws = std::unique_ptr<SwsContext, FreeObject<sws_freeContext>>;

struct FreeIo {
  void operator()(AVIOContext* io) const {
    av_freep(&io->buffer);
    avio_context_free(&io);
  }
};
using UniqueIo = std::unique_ptr<AVIOContext, FreeIo>;

struct FreeDictionary {
  AVDictionary* entries = nullptr;
  ~FreeDictionary() { av_dict_free(&entries); }
  void set(const char* key, const char* value) { av_dict_set(&entries, key, value, 0); }
};

std::string describe(int error) {
  char text[AV_ERROR_MAX_STRING_SIZE] = {};
  av_strerror(error, text, sizeof text);
  return text;
}

struct EncoderChoice {
  std::string name;
  AVPixelFormat pixels;  // AV_PIX_FMT_NONE: the best for the profile of those that the encoder has
};

// The best first. Hardware encoders are left out: they take the device that is being trained on.
const EncoderChoice kPlayable[] = {
    {"libx264", AV_PIX_FMT_YUV420P}, {"libopenh264", AV_PIX_FMT_YUV420P}, {"mpeg4", AV_PIX_FMT_YUV420P}};
const EncoderChoice kExact[] = {{"libx264rgb", AV_PIX_FMT_RGB24}, {"ffv1", AV_PIX_FMT_0RGB32}};

/// What a film can be written as: the first that takes the encoder's pictures. The last takes more than it says, and is
/// always tried. What is here is served and listed as a recording (live_view.cpp).
struct Container {
  const char* name;  // libav's
  const char* extension;
};
constexpr Container kContainers[] = {{"mp4", ".mp4"}, {"matroska", ".mkv"}};

std::vector<Container> containers_of(AVCodecID codec) {
  std::vector<Container> found;
  for (const auto& container : kContainers) {
    const AVOutputFormat* format = av_guess_format(container.name, nullptr, nullptr);
    const bool last = &container == std::end(kContainers) - 1;
    if (format && (last || avformat_query_codec(format, codec, FF_COMPLIANCE_NORMAL) == 1)) found.push_back(container);
  }
  return found;
}

std::vector<EncoderChoice> candidates(const VideoOptions& options) {
  std::vector<EncoderChoice> found;
  const bool exact = options.profile == VideoProfile::Exact;
  for (const auto& choice : exact ? std::vector<EncoderChoice>(std::begin(kExact), std::end(kExact))
                                  : std::vector<EncoderChoice>(std::begin(kPlayable), std::end(kPlayable))) {
    if (options.encoder.empty() || options.encoder == choice.name) found.push_back(choice);
  }
  if (found.empty()) found.push_back({options.encoder, AV_PIX_FMT_NONE});
  return found;
}

/// Those that we can convert to.
std::vector<AVPixelFormat> pixel_formats(const AVCodec* codec) {
  const AVPixelFormat* all = nullptr;
#if LIBAVCODEC_VERSION_INT >= AV_VERSION_INT(61, 13, 100)
  const void* got = nullptr;
  if (avcodec_get_supported_config(nullptr, codec, AV_CODEC_CONFIG_PIX_FORMAT, 0, &got, nullptr) >= 0) {
    all = static_cast<const AVPixelFormat*>(got);
  }
#else
  all = codec->pix_fmts;
#endif
  std::vector<AVPixelFormat> formats;
  for (; all && *all != AV_PIX_FMT_NONE; ++all) {
    if (sws_isSupportedOutput(*all)) formats.push_back(*all);
  }
  return formats;
}

bool is_rgb(AVPixelFormat format) {
  const AVPixFmtDescriptor* about = av_pix_fmt_desc_get(format);
  return about && (about->flags & AV_PIX_FMT_FLAG_RGB) != 0;
}

/// 8 bits of red, green and blue: a picture of ours, bit for bit.
bool keeps_rgb(AVPixelFormat format) {
  const AVPixFmtDescriptor* about = av_pix_fmt_desc_get(format);
  return is_rgb(format) && about->nb_components >= 3 && about->comp[0].depth == 8 && about->comp[1].depth == 8 &&
         about->comp[2].depth == 8;
}

/// The encoder's format that suits the profile; AV_PIX_FMT_NONE where it has none, and `why`.
AVPixelFormat pixels_for(const AVCodec* codec, VideoProfile profile, std::string& why) {
  const auto formats = pixel_formats(codec);
  const std::string name = codec->name;
  if (profile == VideoProfile::Exact) {
    const AVCodecDescriptor* about = avcodec_descriptor_get(codec->id);
    const bool lossless =
        about && (about->props & AV_CODEC_PROP_LOSSLESS) != 0 && (about->props & AV_CODEC_PROP_LOSSY) == 0;
    const auto found = std::find_if(formats.begin(), formats.end(), keeps_rgb);
    if (lossless && found != formats.end()) return *found;
    why =
        name + " does not keep RGB bit for bit, as VideoProfile::Exact promises; expected ffv1, libx264rgb or no name";
    return AV_PIX_FMT_NONE;
  }
  const auto usual = std::find_if(formats.begin(), formats.end(), [](AVPixelFormat format) {
    return format == AV_PIX_FMT_YUV420P || format == AV_PIX_FMT_YUVJ420P;  // which the encoder likes better
  });
  if (usual != formats.end()) return *usual;
  std::vector<AVPixelFormat> list = formats;
  list.push_back(AV_PIX_FMT_NONE);
  const AVPixelFormat best = avcodec_find_best_pix_fmt_of_list(list.data(), AV_PIX_FMT_RGB24, 0, nullptr);
  if (best == AV_PIX_FMT_NONE) why = name + " takes no pictures that are made here";
  return best;
}

#if LIBAVFORMAT_VERSION_MAJOR >= 61
using WrittenBytes = const uint8_t;  // as libav's writing callback takes them
#else
using WrittenBytes = uint8_t;
#endif

std::string size_text(int width, int height) { return std::to_string(width) + " x " + std::to_string(height); }

}  // namespace

struct VideoWriter::State {
  int width = 0, height = 0;              // of the pictures
  int coded_width = 0, coded_height = 0;  // of the film
  std::string path, encoder;
  int fd = -1;
  int disk_error = 0;  // errno of the first write that failed
  std::function<void(int64_t)> before_writing;
  int64_t told = 0;           // frames that it was told of
  std::exception_ptr thrown;  // what it threw, on its way through libav
  int64_t position = 0;       // of the file descriptor
  int64_t bytes = 0;          // the largest position
  int64_t bytes_safe = 0;     // up to the end of the last complete fragment
  int64_t frames = 0;         // given to the encoder
  int64_t packets = 0;        // given to the muxer; one per frame
  int64_t packets_safe = 0;   // in complete fragments
  bool header_written = false;
  bool key_frame_next = true;
  Clock::time_point fragment_begin{};  // long ago: the first frame completes a fragment
  int fragment_packets = 0;
  std::vector<uint8_t> padded;  // coded_height x coded_width x 3, where the size is odd

  // The muxer writes through the descriptor's context, so it must go first: last declared, first destroyed.
  UniqueIo io;
  UniqueCodecContext codec;
  UniqueFrame frame;
  UniquePacket packet;
  UniqueSws sws;
  UniqueFormatContext format;

  ~State() {
    format.reset();
    if (fd >= 0) ::close(fd);
  }

  UniqueCodecContext open_encoder(const EncoderChoice& choice, const VideoOptions& options, std::string& why);
  void make_converter();
  void open_file();
  void write_header(const Container& container);
  void convert(const uint8_t* rgb);
  void encode(const AVFrame* picture);
  void complete_fragment();
  void close();
  void abandon() noexcept;
  bool failed() const { return disk_error != 0 || thrown; }
  [[noreturn]] void fail(const char* doing, int error);

  // Called by libav. A negative return is kept by it as the context's error; disk_error remembers errno itself.
  int write_bytes(const uint8_t* data, int size) {
    if (thrown) return AVERROR_EXTERNAL;
    if (before_writing && told < packets) {
      try {
        before_writing(packets);
        told = packets;
      } catch (...) {
        thrown = std::current_exception();
        return AVERROR_EXTERNAL;
      }
    }
    int written = 0;
    while (written < size) {
      const ssize_t n = ::write(fd, data + written, static_cast<size_t>(size - written));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        if (disk_error == 0) disk_error = n < 0 ? errno : ENOSPC;
        return AVERROR(disk_error);
      }
      written += static_cast<int>(n);
      position += n;
      if (position > bytes) bytes = position;
    }
    return size;
  }
  int64_t seek(int64_t offset, int whence) {
    if (whence & AVSEEK_SIZE) return bytes;
    const int64_t at = ::lseek(fd, offset, whence & ~AVSEEK_FORCE);
    if (at < 0) return AVERROR(errno);
    return position = at;
  }
  static int on_write(void* self, WrittenBytes* data, int size) {
    return static_cast<State*>(self)->write_bytes(data, size);
  }
  static int64_t on_seek(void* self, int64_t offset, int whence) {
    return static_cast<State*>(self)->seek(offset, whence);
  }
};

UniqueCodecContext VideoWriter::State::open_encoder(const EncoderChoice& choice, const VideoOptions& options,
                                                    std::string& why) {
  const AVCodec* found = avcodec_find_encoder_by_name(choice.name.c_str());
  if (!found) {
    why = "this FFmpeg has no encoder \"" + choice.name + "\"";
    return nullptr;
  }
  if (found->type != AVMEDIA_TYPE_VIDEO) {
    why = choice.name + " does not encode pictures";
    return nullptr;
  }
  const AVPixelFormat pixels =
      choice.pixels != AV_PIX_FMT_NONE ? choice.pixels : pixels_for(found, options.profile, why);
  if (pixels == AV_PIX_FMT_NONE) return nullptr;
  // Where colours are of blocks of pixels, sides are whole blocks.
  const AVPixFmtDescriptor* about = av_pix_fmt_desc_get(pixels);
  const int block_width = 1 << about->log2_chroma_w, block_height = 1 << about->log2_chroma_h;
  coded_width = (width + block_width - 1) / block_width * block_width;
  coded_height = (height + block_height - 1) / block_height * block_height;
  UniqueCodecContext context(avcodec_alloc_context3(found));
  if (!context) throw std::bad_alloc();
  // libav would write to the user's terminal; what matters is told through our own log.
  context->log_level_offset = AV_LOG_TRACE;
  context->width = coded_width;
  context->height = coded_height;
  context->pix_fmt = pixels;
  context->time_base = av_inv_q(av_d2q(options.frames_per_second, 1 << 16));
  context->framerate = av_inv_q(context->time_base);
  context->sample_aspect_ratio = {1, 1};
  context->gop_size = kFragmentFrames * 20;  // key frames come with the fragments, by our own order
  context->max_b_frames = 0;
  context->thread_count = 1;
  context->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
  if (!is_rgb(pixels)) {
    const bool full = found->id == AV_CODEC_ID_MJPEG || std::strncmp(about->name, "yuvj", 4) == 0;
    context->color_range = full ? AVCOL_RANGE_JPEG : AVCOL_RANGE_MPEG;
    context->colorspace = AVCOL_SPC_BT709;
    context->color_primaries = AVCOL_PRI_BT709;
    context->color_trc = AVCOL_TRC_BT709;
  } else {
    context->color_range = AVCOL_RANGE_JPEG;
    context->colorspace = AVCOL_SPC_RGB;
    context->color_primaries = AVCOL_PRI_BT709;
    context->color_trc = AVCOL_TRC_IEC61966_2_1;
  }
  FreeDictionary settings;
  const std::string& name = choice.name;
  if (name == "libx264") {
    // Noise in small blocks is all entropy coding: without CABAC (ultrafast) a frame takes 40 % of the time that
    // veryfast takes at crf 18, and looks better, in a film that is 1.4 times as large.
    settings.set("preset", "ultrafast");
    settings.set("tune", "zerolatency");
    settings.set("crf", "20");
    settings.set("forced-idr", "1");
  } else if (name == "libx264rgb") {
    settings.set("preset", "ultrafast");
    settings.set("tune", "zerolatency");
    settings.set("qp", "0");
    settings.set("forced-idr", "1");
  } else if (name == "ffv1") {
    context->gop_size = 1;
    context->level = 3;
    settings.set("slicecrc", "1");
  } else if (name.compare(0, 6, "libvpx") == 0) {  // a frame shall not wait for those after it
    settings.set("lag-in-frames", "0");
    settings.set("deadline", "realtime");
    context->bit_rate = static_cast<int64_t>(coded_width) * coded_height * 6;
  } else if (name == "mpeg4") {
    context->flags |= AV_CODEC_FLAG_QSCALE;
    context->global_quality = FF_QP2LAMBDA * 3;
  } else {
    context->bit_rate = static_cast<int64_t>(coded_width) * coded_height * 6;
  }
  const int error = avcodec_open2(context.get(), found, &settings.entries);
  if (error < 0) {
    why = name + " refuses " + size_text(coded_width, coded_height) + " (" + describe(error) + ")";
    return nullptr;
  }
  return context;
}

void VideoWriter::State::make_converter() {
  frame.reset(av_frame_alloc());
  packet.reset(av_packet_alloc());
  if (!frame || !packet) throw std::bad_alloc();
  frame->format = codec->pix_fmt;
  frame->width = coded_width;
  frame->height = coded_height;
  frame->color_range = codec->color_range;
  frame->colorspace = codec->colorspace;
  frame->color_primaries = codec->color_primaries;
  frame->color_trc = codec->color_trc;
  if (av_frame_get_buffer(frame.get(), 0) < 0) throw std::bad_alloc();
  if (codec->pix_fmt == AV_PIX_FMT_RGB24) return;  // copied row by row
  sws.reset(sws_getContext(coded_width, coded_height, AV_PIX_FMT_RGB24, coded_width, coded_height, codec->pix_fmt,
                           SWS_AREA | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INP, nullptr, nullptr, nullptr));
  if (!sws) throw EncoderError("cannot convert pictures of " + size_text(coded_width, coded_height));
  const bool full = codec->color_range == AVCOL_RANGE_JPEG;
  sws_setColorspaceDetails(sws.get(), sws_getCoefficients(SWS_CS_ITU709), 1, sws_getCoefficients(SWS_CS_ITU709), full,
                           0, 1 << 16, 1 << 16);
}

void VideoWriter::State::open_file() {
  fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "cannot create " + path);
  auto* buffer = static_cast<unsigned char*>(av_malloc(kIoBufferBytes));
  if (!buffer) throw std::bad_alloc();
  io.reset(avio_alloc_context(buffer, kIoBufferBytes, 1, this, nullptr, on_write, on_seek));
  if (!io) {
    av_free(buffer);
    throw std::bad_alloc();
  }
}

void VideoWriter::State::write_header(const Container& container) {
  AVFormatContext* made = nullptr;
  if (avformat_alloc_output_context2(&made, nullptr, container.name, nullptr) < 0) {
    throw EncoderError(std::string("this FFmpeg cannot write ") + container.name);
  }
  format.reset(made);
  format->pb = io.get();
  // What the muxer has written shall not wait in a buffer of ours, which dies with the process.
  format->flags |= AVFMT_FLAG_CUSTOM_IO | AVFMT_FLAG_FLUSH_PACKETS;
  AVStream* stream = avformat_new_stream(format.get(), nullptr);
  if (!stream) throw std::bad_alloc();
  stream->time_base = codec->time_base;
  stream->avg_frame_rate = codec->framerate;
  if (avcodec_parameters_from_context(stream->codecpar, codec.get()) < 0) throw std::bad_alloc();
  FreeDictionary settings;
  if (std::strcmp(container.name, "mp4") == 0) {
    settings.set("movflags", "frag_custom+empty_moov+default_base_moof");
  }
  const int error = avformat_write_header(format.get(), &settings.entries);
  if (error < 0) fail("cannot begin the film", error);
  header_written = true;
}

void VideoWriter::State::fail(const char* doing, int error) {
  const int disk = disk_error;
  const std::string film = path;
  const auto other = thrown;
  abandon();
  if (other) std::rethrow_exception(other);
  if (disk != 0) throw std::system_error(disk, std::generic_category(), "cannot write " + film);
  throw EncoderError(std::string(doing) + " " + film + ": " + encoder + " says: " + describe(error));
}

// Leaves the complete fragments. The trailer is not written: a fragmented film is valid without it.
void VideoWriter::State::abandon() noexcept {
  if (fd < 0) return;
  format.reset();
  io.reset();
  if (packets_safe > 0) {
    if (::ftruncate(fd, bytes_safe) == 0) bytes = bytes_safe;
  } else {
    ::unlink(path.c_str());
  }
  ::close(fd);
  fd = -1;
  frames = packets_safe;
}

void VideoWriter::State::convert(const uint8_t* rgb) {
  const size_t row = static_cast<size_t>(width) * 3, coded_row = static_cast<size_t>(coded_width) * 3;
  if (coded_width != width || coded_height != height) {
    padded.resize(coded_row * coded_height);
    for (int y = 0; y < coded_height; ++y) {
      const uint8_t* from = rgb + row * std::min(y, height - 1);
      uint8_t* to = padded.data() + coded_row * y;
      std::memcpy(to, from, row);
      if (coded_width != width) std::memcpy(to + row, from + row - 3, 3);
    }
    rgb = padded.data();
  }
  if (!sws) {
    for (int y = 0; y < coded_height; ++y) {
      std::memcpy(frame->data[0] + static_cast<ptrdiff_t>(frame->linesize[0]) * y, rgb + coded_row * y, coded_row);
    }
    return;
  }
  const uint8_t* planes[] = {rgb};
  const int strides[] = {static_cast<int>(coded_row)};
  sws_scale(sws.get(), planes, strides, 0, coded_height, frame->data, frame->linesize);
}

// picture: nullptr drains the encoder.
void VideoWriter::State::encode(const AVFrame* picture) {
  int error = avcodec_send_frame(codec.get(), picture);
  if (error < 0) fail("cannot encode", error);
  while ((error = avcodec_receive_packet(codec.get(), packet.get())) >= 0) {
    packet->stream_index = 0;
    packet->duration = 1;
    av_packet_rescale_ts(packet.get(), codec->time_base, format->streams[0]->time_base);
    ++packets;  // first: the muxer may write some of it at once
    error = av_write_frame(format.get(), packet.get());
    av_packet_unref(packet.get());
    if (error < 0 || failed()) fail("cannot write", error);
    ++fragment_packets;
  }
  if (error != AVERROR(EAGAIN) && error != AVERROR_EOF) fail("cannot encode", error);
}

void VideoWriter::State::complete_fragment() {
  const int error = av_write_frame(format.get(), nullptr);
  avio_flush(io.get());
  if (error < 0 || failed()) fail("cannot write", error);
  packets_safe = packets;
  bytes_safe = position;
  fragment_packets = 0;
  fragment_begin = Clock::now();
  key_frame_next = true;
}

void VideoWriter::State::close() {
  if (fd < 0) return;
  encode(nullptr);
  complete_fragment();
  const int error = av_write_trailer(format.get());
  avio_flush(io.get());
  if (error < 0 || failed()) fail("cannot finish", error);
  format.reset();
  io.reset();
  if (packets == 0) ::unlink(path.c_str());  // no player opens a film without frames
  const int closing = std::exchange(fd, -1);
  // Network file systems tell here that the disk is full.
  if (::close(closing) != 0 && errno != EINTR) {
    throw std::system_error(errno, std::generic_category(), "cannot finish " + path);
  }
}

VideoWriter::VideoWriter(const std::string& stem, int width, int height, const VideoOptions& options)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.width = width;
  s.height = height;
  if (width > kMaxSide || height > kMaxSide) {
    throw EncoderError("a film has at most " + std::to_string(kMaxSide) + " pixels a side; the picture has " +
                       size_text(width, height));
  }
  std::string first;
  const auto refused = [&first](const std::string& why) {
    if (first.empty()) first = why;
  };
  for (const auto& choice : candidates(options)) {
    std::string why;
    s.codec = s.open_encoder(choice, options, why);
    if (!s.codec) {
      refused(why);
      continue;
    }
    s.encoder = choice.name;
    s.make_converter();
    const auto containers = containers_of(s.codec->codec_id);
    if (containers.empty()) refused("this FFmpeg writes neither mp4 nor mkv");
    for (const auto& container : containers) {
      s.path = absolute_path(stem + container.extension);
      s.open_file();
      try {
        s.write_header(container);
        return;
      } catch (const EncoderError& e) {
        s.abandon();
        refused(e.what());
      } catch (...) {
        s.abandon();
        throw;
      }
    }
  }
  throw EncoderError(first);
}

VideoWriter::~VideoWriter() {
  try {
    state_->close();
  } catch (...) {  // documented: close() tells, the destructor does not
  }
}

int VideoWriter::host_bytes_per_pixel(const VideoOptions& options) {
  if (options.encoder == "ffv1") return 176;  // room for a packet larger than any
  if (options.profile == VideoProfile::Exact) return 29;
  return options.encoder.empty() || options.encoder == "libx264" ? HostBytesPerPixel::kEncoder : 32;
}

void VideoWriter::before_writing(std::function<void(int64_t)> told) { state_->before_writing = std::move(told); }

void VideoWriter::write(const uint8_t* rgb) {
  State& s = *state_;
  if (s.fd < 0) throw EncoderError("the film is closed: " + s.path);
  if (av_frame_make_writable(s.frame.get()) < 0) throw std::bad_alloc();
  s.convert(rgb);
  s.frame->pts = s.frames;
  s.frame->pict_type = s.key_frame_next ? AV_PICTURE_TYPE_I : AV_PICTURE_TYPE_NONE;
  s.key_frame_next = false;
  ++s.frames;
  s.encode(s.frame.get());
  if (s.fragment_packets >= kFragmentFrames || Clock::now() - s.fragment_begin >= kFragmentTime) {
    s.complete_fragment();
  }
}

void VideoWriter::close() { state_->close(); }
const std::string& VideoWriter::path() const { return state_->path; }
const std::string& VideoWriter::encoder() const { return state_->encoder; }
int64_t VideoWriter::bytes() const { return state_->bytes; }
int64_t VideoWriter::frames() const { return state_->frames; }
int64_t VideoWriter::frames_safe() const { return state_->packets_safe; }
int VideoWriter::descriptor() const { return state_->fd; }

}  // namespace beholder
