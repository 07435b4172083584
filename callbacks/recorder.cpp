#include "beholder/callbacks/recorder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <ctime>
#include <deque>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "beholder/callbacks/captions.h"
#include "beholder/callbacks/film_index.h"
#include "beholder/callbacks/png_writer.h"
#include "beholder/log.h"
#include "beholder/numbers.h"
#include "beholder/options.h"
#include "beholder/thread_safety.h"

namespace beholder {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kCheckInterval{1};
constexpr int64_t kMaxNames = 10000;  // of films begun in one second

std::string amount(int64_t bytes) {
  const bool large = bytes >= int64_t{1} << 30;
  return fixed_text(static_cast<double>(bytes) / static_cast<double>(large ? 1 << 30 : 1 << 20), 1) +
         (large ? " GiB" : " MiB");
}

std::string time_name() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char text[32];
  std::strftime(text, sizeof text, "%Y%m%d-%H%M%S", &local);
  return text;
}

/// Not nlohmann::json::parse(), which asks the C library's locale.
nlohmann::ordered_json number_json(const std::string& text) {
  const double value = number_of(text);
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<int64_t>(value);
  return value;
}

std::string index_line(const Picture& picture, int64_t frame) {
  nlohmann::ordered_json line;
  line["frame"] = frame;
  line["step"] = picture.step;
  line["time"] = std::chrono::duration<double>(picture.time.time_since_epoch()).count();
  auto& settings = line["settings"];
  for (const auto& control : controls()) {
    const auto value = control.type == Control::Type::Action ? std::string() : control.get(picture.settings);
    switch (control.type) {
      case Control::Type::Action: break;
      case Control::Type::Switch: settings[control.name] = value == "on"; break;
      case Control::Type::Number: settings[control.name] = number_json(value); break;
      case Control::Type::Choice:
      case Control::Type::Text: settings[control.name] = value; break;
    }
  }
  // A filter is the user's text, not always UTF-8.
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

/// A film that is being written: an mp4 or a folder of PNGs, and its index.
struct Film {
  int width = 0, height = 0;
  std::unique_ptr<FilmIndex> index;
  std::unique_ptr<VideoWriter> video;  // one of these two
  std::unique_ptr<PngFolder> pngs;

  const std::string& path() const { return video ? video->path() : pngs->path(); }
  int64_t frames() const { return video ? video->frames() : pngs->frames(); }
  int64_t frames_safe() const { return video ? video->frames_safe() : pngs->frames(); }
  int64_t bytes() const { return (video ? video->bytes() : pngs->bytes()) + index->bytes(); }
  bool removed() const {
    struct stat status {};
    if (video) return video->descriptor() >= 0 && ::fstat(video->descriptor(), &status) == 0 && status.st_nlink == 0;
    return ::stat(pngs->path().c_str(), &status) != 0 && errno == ENOENT;
  }
};

struct ClosedFilm {
  std::string path, index_path;
  int64_t bytes = 0;
};

VideoOptions video_of(const RecorderOptions& options) {
  VideoOptions video;
  video.profile = options.profile;
  video.frames_per_second = options.frames_per_second;
  video.encoder = options.encoder;
  return video;
}

void check(const RecorderOptions& options) {
  if (!(options.frames_per_second > 0) || options.frames_per_second > 240) {
    throw std::invalid_argument("RecorderOptions::frames_per_second: expected above 0 to 240; found " +
                                number_text(options.frames_per_second));
  }
  if (options.max_recording_bytes < int64_t{1} << 20) {
    throw std::invalid_argument("RecorderOptions::max_recording_bytes: expected at least 1 MiB (1048576); found " +
                                std::to_string(options.max_recording_bytes));
  }
  if (options.min_free_bytes < 0) {
    throw std::invalid_argument("RecorderOptions::min_free_bytes: expected 0 or more; found " +
                                std::to_string(options.min_free_bytes));
  }
}

}  // namespace

// Everything but `told` belongs to the callback's thread.
struct Recorder::State {
  explicit State(RecorderOptions chosen) : options(std::move(chosen)) {}

  const RecorderOptions options;
  std::string directory;
  int64_t max_host_bytes = 0;
  std::shared_ptr<SharedSettings> settings;
  std::unique_ptr<Film> film;
  std::deque<ClosedFilm> closed;  // of this run, the oldest first
  int64_t closed_bytes = 0;
  // A size that no encoder takes, so that each further film of it is PNGs at once; 0 x 0 = none.
  int refused_width = 0, refused_height = 0;
  bool encoder_failed = false;  // in the middle of a film: PNGs from then on
  bool limit_told = false;
  Clock::time_point checked{};

  Mutex mutex;
  RecorderState told BEHOLDER_GUARDED_BY(mutex);

  void begin_film(int width, int height);
  bool try_begin(const std::string& name, int width, int height);
  void append(const Picture& picture, const uint8_t* rgb);
  void end_film();
  void put_away();
  void keep_limit();
  void check_disk();
  [[noreturn]] void stop(const std::string& why);
  [[noreturn]] void stop(const std::system_error& error);
  void tell();
};

void Recorder::State::tell() {
  MutexLock lock(mutex);
  told.recording = film != nullptr;
  told.bytes = closed_bytes + (film ? film->bytes() : 0);
  if (film) told.path = film->path();
}

// False where the name is taken.
bool Recorder::State::try_begin(const std::string& name, int width, int height) {
  auto made = std::make_unique<Film>();
  made->width = width;
  made->height = height;
  const std::string stem = directory + "/video-" + name;
  try {
    made->index = std::make_unique<FilmIndex>(stem + ".jsonl");
  } catch (const std::system_error& e) {
    if (e.code().value() == EEXIST) return false;
    throw;
  }
  try {
    if (!encoder_failed && !(width == refused_width && height == refused_height)) {
      try {
        const VideoOptions video = video_of(options);
        const int64_t bytes = int64_t{VideoWriter::host_bytes_per_pixel(video)} * width * height;
        if (bytes > max_host_bytes / 2) {
          throw EncoderError("a film of " + std::to_string(width) + " x " + std::to_string(height) + " takes about " +
                             amount(bytes) + " to encode; expected at most " + amount(max_host_bytes / 2) +
                             ", half of Options::max_host_bytes");
        }
        made->video = std::make_unique<VideoWriter>(stem, width, height, video);
        made->video->before_writing([index = made->index.get()](int64_t frames) { index->write(frames); });
      } catch (const EncoderError& e) {
        refused_width = width;
        refused_height = height;
        log_warning("recording PNG frames instead of a film: " + std::string(e.what()));
      }
    }
    if (!made->video) made->pngs = std::make_unique<PngFolder>(directory + "/video-frames-" + name);
  } catch (const std::system_error& e) {
    ::unlink(made->index->path().c_str());
    if (e.code().value() == EEXIST) return false;
    throw;
  } catch (...) {
    ::unlink(made->index->path().c_str());
    throw;
  }
  film = std::move(made);
  return true;
}

void Recorder::State::begin_film(int width, int height) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) throw std::system_error(error, "cannot create " + directory);
  check_disk();
  const std::string name = time_name();
  for (int64_t counter = 1; !try_begin(counter == 1 ? name : name + "-" + std::to_string(counter), width, height);
       ++counter) {
    if (counter == kMaxNames) throw std::system_error(EEXIST, std::generic_category(), directory + "/video-" + name);
  }
  log_info("recording to " + film->path());
  {
    MutexLock lock(mutex);
    ++told.films;
  }
  tell();
}

void Recorder::State::append(const Picture& picture, const uint8_t* rgb) {
  // The line before the frame: see FilmIndex.
  const int64_t frame = film->frames();
  film->index->add(index_line(picture, frame));
  if (film->video) {
    film->video->write(rgb);
  } else {
    film->index->write(frame + 1);
    film->pngs->write(rgb, film->width, film->height);
  }
  film->index->safe(film->frames_safe());
  {
    MutexLock lock(mutex);
    ++told.frames;
  }
  if (Clock::now() - checked >= kCheckInterval) {
    if (film->removed()) throw std::system_error(ENOENT, std::generic_category(), film->path() + " was removed");
    check_disk();
  }
  keep_limit();
  tell();
}

// The film as it is now becomes one of the closed ones. After an error of its writer too.
void Recorder::State::put_away() {
  if (!film) return;
  auto ended = std::move(film);
  try {
    if (ended->video) ended->video->close();
  } catch (const std::exception&) {  // the caller reports what made it give up the film
  }
  ended->index->cut(ended->frames_safe());
  if (ended->frames_safe() == 0) {  // its writer has removed it
    ::unlink(ended->index->path().c_str());
    if (ended->pngs) ::rmdir(ended->path().c_str());
  } else {
    closed.push_back({ended->path(), ended->index->path(), ended->bytes()});
    closed_bytes += closed.back().bytes;
  }
  tell();
}

void Recorder::State::end_film() {
  if (!film) return;
  try {
    if (film->video) film->video->close();
  } catch (...) {
    put_away();
    throw;
  }
  put_away();
}

void Recorder::State::keep_limit() {
  if (film->bytes() > options.max_recording_bytes / 4) end_film();  // the next picture begins a new one
  while (closed_bytes + (film ? film->bytes() : 0) > options.max_recording_bytes && !closed.empty()) {
    const ClosedFilm oldest = closed.front();
    closed.pop_front();
    closed_bytes -= oldest.bytes;
    std::error_code ignored;  // somebody may have removed it before us
    std::filesystem::remove_all(oldest.path, ignored);
    std::filesystem::remove(oldest.index_path, ignored);
    {
      MutexLock lock(mutex);
      ++told.films_removed;
    }
    if (!std::exchange(limit_told, true)) {
      log_warning("the films of this run are larger than " + amount(options.max_recording_bytes) +
                  " (RecorderOptions::max_recording_bytes): the oldest is removed, now and from here on, first " +
                  oldest.path);
    }
  }
}

void Recorder::State::check_disk() {
  checked = Clock::now();
  struct statvfs status {};
  if (options.min_free_bytes == 0 || ::statvfs(directory.c_str(), &status) != 0) return;
  const auto free_bytes = static_cast<int64_t>(status.f_bavail) * static_cast<int64_t>(status.f_frsize);
  if (free_bytes >= options.min_free_bytes) return;
  std::string lost;
  try {
    end_film();
  } catch (const std::exception& e) {
    lost = std::string(" (the film's end is lost: ") + e.what() + ")";
  }
  stop("expected " + amount(options.min_free_bytes) + " free on the disk of " + directory +
       " (RecorderOptions::min_free_bytes), found " + amount(free_bytes) + lost +
       ". Free some space, then switch recording on again (r)");
}

void Recorder::State::stop(const std::string& why) {
  put_away();
  settings->edit([](Settings& s) { s.recording = false; });
  throw std::runtime_error("recording stopped: " + why);  // the dispatcher adds that the training goes on
}

void Recorder::State::stop(const std::system_error& error) {
  std::string todo = "Make the folder writable";
  switch (error.code().value()) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG: todo = "Free some space"; break;
    case ENOENT: todo = "Restore the folder"; break;
    case EMFILE:
    case ENFILE: todo = "Raise the limit of open files (ulimit -n)"; break;
    default: break;
  }
  put_away();
  int64_t kept = 0;
  for (const auto& one : closed) kept += ::access(one.path.c_str(), F_OK) == 0;
  stop(std::string(error.what()) + ". Films kept: " + std::to_string(kept) + ". " + todo +
       ", then switch recording on again (r)");
}

Recorder::Recorder(RecorderOptions options) {
  check(options);
  state_ = std::make_unique<State>(std::move(options));
}

Recorder::~Recorder() {
  try {
    close();
  } catch (const std::exception& e) {
    log_error(std::string("recorder: ") + e.what());
  }
}

Needs Recorder::needs() const {
  Needs needs;
  needs.film = true;
  needs.statistics = state_->options.captions;  // NaN and Inf are counted there
  needs.host_bytes_per_pixel = VideoWriter::host_bytes_per_pixel(video_of(state_->options));
  return needs;
}

void Recorder::open(const Run& run) {
  state_->directory = run.directory;
  state_->settings = run.settings;
  state_->max_host_bytes = run.max_host_bytes;
  if (!state_->options.start) return;
  // A reset (Esc) shall not end the film.
  auto defaults = run.settings->defaults();
  defaults.recording = true;
  run.settings->set_defaults(defaults);
  run.settings->edit([](Settings& s) { s.recording = true; });
}

void Recorder::show(std::shared_ptr<const Picture> picture) {
  State& s = *state_;
  if (!picture->film || picture->recoloured) return;
  try {
    if (!s.settings->get().recording) {
      s.end_film();
      return;
    }
    // A picture that says that there is nothing to show has a size of its own in the classic layout: it neither begins
    // a film nor ends one.
    const bool fits = s.film && s.film->width == picture->width && s.film->height == picture->height;
    if (!picture->message.empty() && !fits) {
      MutexLock lock(s.mutex);
      ++s.told.left_out;
      return;
    }
    std::shared_ptr<const CaptionedPicture> with_text;
    if (s.options.captions) with_text = captioned(*picture);
    const uint8_t* rgb = with_text ? with_text->rgb.data() : picture->rgb.data();
    if (!fits) s.end_film();
    if (!s.film) s.begin_film(picture->width, picture->height);
    try {
      s.append(*picture, rgb);
    } catch (const EncoderError& e) {
      s.encoder_failed = true;
      log_warning("recording PNG frames from here on, the film so far is kept: " + std::string(e.what()));
      s.put_away();
      s.begin_film(picture->width, picture->height);
      s.append(*picture, rgb);
    }
  } catch (const std::system_error& e) {
    s.stop(e);
  } catch (const std::bad_alloc&) {
    s.stop("not enough memory for a frame. Free some, then switch recording on again (r)");
  }
}

void Recorder::close() { state_->end_film(); }

RecorderState Recorder::state() const {
  MutexLock lock(state_->mutex);
  return state_->told;
}

}  // namespace beholder
