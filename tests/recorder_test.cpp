// What the recorder leaves on the disk, read back by other programs: ffprobe, ffmpeg, OpenCV.
#include "beholder/callbacks/recorder.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <opencv2/videoio.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "beholder/callbacks/captions.h"
#include "beholder/callbacks/film_index.h"
#include "beholder/callbacks/live_encodings.h"
#include "beholder/callbacks/png_writer.h"
#include "beholder/layout.h"
#include "beholder/log.h"
#include "beholder/state.h"
#include "catch.h"
#include "german.h"
#include "synthetic_picture.h"

namespace fs = std::filesystem;
using namespace beholder;

namespace {

struct TemporaryFolder {
  fs::path path;
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "beholder-recorder-XXXXXX").string();
    path = ::mkdtemp(name.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

/// Collects log lines while it lives.
struct LogLines {
  std::vector<std::pair<LogLevel, std::string>> lines;
  LogLines() {
    set_log_sink([this](LogLevel level, const std::string& text) { lines.emplace_back(level, text); });
  }
  ~LogLines() { set_log_sink({}); }
  int count(LogLevel level) const {
    int n = 0;
    for (const auto& line : lines) n += line.first == level;
    return n;
  }
};

RecorderOptions plain() {
  RecorderOptions options;
  options.captions = false;
  options.min_free_bytes = 0;  // the tests' disk may be small
  return options;
}

/// A recorder in a logdir of its own, called as the dispatcher calls it.
struct Rig {
  TemporaryFolder logdir;
  LogLines log;
  Run run;
  std::vector<std::string> errors;  // what show() and close() threw
  std::unique_ptr<Recorder> recorder;

  explicit Rig(const RecorderOptions& options = plain(), const std::string& directory = "") {
    run.logdir = logdir.path.string();
    run.directory = directory.empty() ? run.logdir + "/plugins/beholder" : directory;
    std::error_code ignored;
    fs::create_directories(run.directory, ignored);
    run.settings = std::make_shared<SharedSettings>();
    run.state = [] { return State{}; };
    recorder = std::make_unique<Recorder>(options);
    recorder->open(run);
  }
  void show(std::shared_ptr<const Picture> picture) {
    try {
      recorder->show(std::move(picture));
    } catch (const std::exception& e) {
      errors.push_back(e.what());
    }
  }
  void show(int count, int width = 64, int height = 48) {
    for (int i = 0; i < count; ++i) show(synthetic::blocks(width, height, i));
  }
  void close() { recorder->close(); }
  void recording(bool on) {
    run.settings->edit([on](Settings& s) { s.recording = on; });
  }
  std::vector<std::string> files(const std::string& extension) const {
    std::vector<std::string> found;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(run.directory, ignored)) {
      if (entry.path().extension() == extension) found.push_back(entry.path().string());
    }
    std::sort(found.begin(), found.end());
    return found;
  }
};

std::string output_of(const std::string& command) {
  std::string text;
  FILE* pipe = ::popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  char part[4096];
  while (const size_t n = std::fread(part, 1, sizeof part, pipe)) text.append(part, n);
  ::pclose(pipe);
  return text;
}

/// What ffprobe says about a film, after decoding all of it.
struct Probe {
  nlohmann::json stream;
  std::string complaints;
  int frames = -1, width = 0, height = 0;

  explicit Probe(const std::string& path) {
    const auto text = output_of("ffprobe -v error -count_frames -show_streams -of json '" + path + "' 2>/dev/null");
    complaints = output_of("ffmpeg -v warning -nostdin -i '" + path + "' -f null - 2>&1");
    const auto all = nlohmann::json::parse(text, nullptr, false);
    if (all.is_discarded() || !all.contains("streams") || all["streams"].empty()) return;
    stream = all["streams"][0];
    width = stream.value("width", 0);
    height = stream.value("height", 0);
    frames = std::stoi(stream.value("nb_read_frames", "-1"));
  }
};

/// The frames as OpenCV decodes them, in RGB.
std::vector<cv::Mat> opencv_frames(const std::string& path) {
  cv::VideoCapture capture(path, cv::CAP_FFMPEG);
  REQUIRE(capture.isOpened());
  std::vector<cv::Mat> frames;
  for (cv::Mat frame; capture.read(frame);) {
    cv::cvtColor(frame, frame, cv::COLOR_BGR2RGB);
    frames.push_back(frame.clone());
  }
  return frames;
}

std::vector<nlohmann::json> index_of(const std::string& path) {
  std::vector<nlohmann::json> lines;
  for (const auto& line : read_film_index(path)) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

/// Both readers agree that the film has so many frames of this size, without a complaint; so does its index.
void check_film(const std::string& path, int frames, int width, int height) {
  CAPTURE(path);
  const Probe probe(path);
  CHECK(probe.complaints == "");
  CHECK(probe.frames == frames);
  CHECK(probe.width == width);
  CHECK(probe.height == height);
  const auto decoded = opencv_frames(path);
  CHECK(static_cast<int>(decoded.size()) == frames);
  if (!decoded.empty()) CHECK(decoded[0].size() == cv::Size(width, height));
  CHECK(static_cast<int>(index_of(fs::path(path).replace_extension(".jsonl").string()).size()) == frames);
}

/// Runs in a child process; returns its wait status. The child leaves without Catch's and the sanitizer's epilogue.
template <typename Body>
int in_child(const Body& body) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    int status = 1;
    try {
      status = body();
    } catch (...) {
    }
    ::_exit(status);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

}  // namespace

TEST_CASE("a film has one frame per picture, and one index line per frame") {
  Rig rig;
  rig.show(40);
  rig.close();
  REQUIRE(rig.files(".mp4").size() == 1);
  const auto film = rig.files(".mp4")[0];
  check_film(film, 40, 64, 48);
  const Probe probe(film);
  CHECK(probe.stream["codec_name"] == "h264");
  CHECK(probe.stream["pix_fmt"] == "yuv420p");
  CHECK(probe.stream["avg_frame_rate"] == "15/1");
  CHECK(probe.stream["color_space"] == "bt709");
  CHECK(probe.stream["color_range"] == "tv");
  const auto lines = index_of(rig.files(".jsonl")[0]);
  REQUIRE(lines.size() == 40);
  CHECK(lines[7]["frame"] == 7);
  CHECK(lines[7]["step"] == 70);
  CHECK(lines[7]["time"] == 1700000007.0);
  CHECK(lines[7]["settings"]["values"] == "parameters");
  CHECK(lines[7]["settings"]["window_size"] == 15);
  CHECK(lines[7]["settings"]["show_all"] == false);
  CHECK(rig.errors.empty());
  CHECK(rig.recorder->state().frames == 40);
  CHECK(rig.recorder->state().path == film);
  REQUIRE(rig.log.lines.size() == 1);
  CHECK(rig.log.lines[0].second == "recording to " + film);
}

TEST_CASE("a playable film keeps the colours of blocks") {
  Rig rig;
  const auto picture = synthetic::blocks(320, 240, 3, 16);
  rig.show(picture);
  rig.show(picture);
  rig.close();
  // ffmpeg follows the BT.709 tag; OpenCV does not, and would show other greens.
  const auto raw = output_of("ffmpeg -v error -nostdin -i '" + rig.files(".mp4")[0] +
                             "' -sws_flags accurate_rnd+full_chroma_int+full_chroma_inp -pix_fmt rgb24 -f rawvideo -");
  REQUIRE(raw.size() == 2 * picture->rgb.size());
  double error = 0;
  int worst = 0, count = 0;
  for (int y = 0; y < 240; ++y) {
    for (int x = 0; x < 320; ++x) {
      if (x % 16 < 4 || x % 16 > 11 || y % 16 < 4 || y % 16 > 11) continue;
      for (int k = 0; k < 3; ++k, ++count) {
        const size_t at = (static_cast<size_t>(y) * 320 + x) * 3 + k;
        const int difference = std::abs(static_cast<uint8_t>(raw[at]) - picture->rgb[at]);
        error += difference;
        worst = std::max(worst, difference);
      }
    }
  }
  CHECK(error / count < 3);
  CHECK(worst < 24);
}

TEST_CASE("an exact film is the pictures, bit for bit") {
  auto options = plain();
  options.profile = VideoProfile::Exact;
  std::string extension = ".mp4";
  SECTION("by the best encoder") {}
  SECTION("by FFV1, in a Matroska file") {
    options.encoder = "ffv1";
    extension = ".mkv";
  }
  Rig rig(options);
  rig.show(20, 75, 41);  // odd sizes are not padded
  rig.close();
  REQUIRE(rig.files(extension).size() == 1);
  check_film(rig.files(extension)[0], 20, 75, 41);
  const auto frames = opencv_frames(rig.files(extension)[0]);
  REQUIRE(frames.size() == 20);
  for (int i = 0; i < 20; ++i) {
    const auto picture = synthetic::blocks(75, 41, i);
    CHECK(cv::norm(frames[i], cv::Mat(41, 75, CV_8UC3, picture->rgb.data()), cv::NORM_INF) == 0);
  }
}

TEST_CASE("a film of one frame is valid") {
  Rig rig;
  rig.show(1);
  rig.close();
  check_film(rig.files(".mp4").at(0), 1, 64, 48);
}

TEST_CASE("without a picture there is no file") {
  Rig rig;
  rig.close();
  CHECK(fs::is_empty(rig.run.directory));
}

TEST_CASE("odd sizes are padded by a repeated row and column") {
  const int width = GENERATE(1, 2, 101);
  const int height = GENERATE(1, 57);
  CAPTURE(width, height);
  Rig rig;
  rig.show(3, width, height);
  rig.close();
  CHECK(rig.errors.empty());
  REQUIRE(rig.files(".mp4").size() == 1);
  check_film(rig.files(".mp4")[0], 3, (width + 1) / 2 * 2, (height + 1) / 2 * 2);
  const auto frame = opencv_frames(rig.files(".mp4")[0]).at(0);
  CHECK(cv::norm(frame.col(frame.cols - 1), frame.col(std::max(0, width - 1)), cv::NORM_INF) < 40);
}

TEST_CASE("a new size begins a new film") {
  Rig rig;
  rig.show(5, 64, 48);
  rig.show(7, 80, 48);
  rig.close();
  const auto films = rig.files(".mp4");
  REQUIRE(films.size() == 2);
  const bool sorted = Probe(films[0]).width == 64;
  check_film(films[sorted ? 0 : 1], 5, 64, 48);
  check_film(films[sorted ? 1 : 0], 7, 80, 48);
}

TEST_CASE("a picture that says that there is nothing to show makes no film of its own, in any layout") {
  const LayoutKind layout = GENERATE(LayoutKind::Fit, LayoutKind::Classic);
  const std::string order = GENERATE("mmpppp", "ppmmpp", "ppppmm", "mpmpmppm", "m", "mm-mpp", "pp-mpp", "pp-m");
  CAPTURE(order);
  const Layout empty =
      layout == LayoutKind::Fit ? fit_layout({}, 64, 48, false) : classic_layout({}, false);  // as plans make them
  Rig rig;
  int pictures = 0, messages = 0, all_messages = 0, films = 0;
  bool open = false;
  for (const char c : order) {
    if (c == '-') {
      rig.recording(false);
      rig.show(1);
      rig.recording(true);
      open = false;
    } else if (c == 'm') {
      auto picture = synthetic::blocks(empty.width, empty.height, 1);
      picture->message = "no gradients yet";
      rig.show(picture);
      ++all_messages;
      messages += open && layout == LayoutKind::Fit;
    } else {
      rig.show(1);
      ++pictures;
      films += !std::exchange(open, true);
    }
  }
  rig.close();
  CHECK(rig.errors.empty());
  CHECK(static_cast<int>(rig.files(".mp4").size()) == films);
  CHECK(static_cast<int>(rig.files(".jsonl").size()) == films);
  CHECK(rig.recorder->state().films == films);
  CHECK(rig.recorder->state().frames == pictures + messages);
  CHECK(rig.recorder->state().left_out == all_messages - messages);
  size_t frames = 0;
  for (const auto& film : rig.files(".mp4")) {
    const auto decoded = opencv_frames(film);
    frames += decoded.size();
    CHECK(decoded.at(0).size() == cv::Size(64, 48));
  }
  CHECK(static_cast<int>(frames) == pictures + messages);
}

TEST_CASE("an encoder by name writes the film") {
  auto options = plain();
  options.encoder = "mpeg4";
  Rig rig(options);
  rig.show(20);
  rig.close();
  CHECK(rig.errors.empty());
  check_film(rig.files(".mp4").at(0), 20, 64, 48);
  CHECK(Probe(rig.files(".mp4")[0]).stream["codec_name"] == "mpeg4");
}

TEST_CASE("any encoder by name is written in a file that takes it, in both profiles") {
  struct Case {
    const char* encoder;
    VideoProfile profile;
    const char* extension;  // nullptr: any
    const char* codec;
  };
  const auto one = GENERATE(
      Case{"ffv1", VideoProfile::Playable, ".mkv", "ffv1"}, Case{"libx264", VideoProfile::Playable, ".mp4", "h264"},
      Case{"mpeg4", VideoProfile::Playable, ".mp4", "mpeg4"}, Case{"mjpeg", VideoProfile::Playable, nullptr, "mjpeg"},
      Case{"png", VideoProfile::Playable, nullptr, "png"}, Case{"huffyuv", VideoProfile::Playable, ".mkv", "huffyuv"},
      Case{"libvpx-vp9", VideoProfile::Playable, nullptr, "vp9"}, Case{"ffv1", VideoProfile::Exact, ".mkv", "ffv1"},
      Case{"png", VideoProfile::Exact, nullptr, "png"});
  CAPTURE(one.encoder);
  if (output_of("ffmpeg -hide_banner -v error -h encoder=" + std::string(one.encoder) + " 2>/dev/null")
          .find("Encoder") != 0) {
    WARN("skipped, this FFmpeg has no encoder " << one.encoder);
    return;
  }
  auto options = plain();
  options.encoder = one.encoder;
  options.profile = one.profile;
  Rig rig(options);
  rig.show(20);
  rig.close();
  CHECK(rig.errors.empty());
  for (const auto& line : rig.log.lines) UNSCOPED_INFO(line.second);
  REQUIRE(rig.log.count(LogLevel::Warning) == 0);
  const fs::path film = rig.recorder->state().path;
  CHECK((film.extension() == ".mp4" || film.extension() == ".mkv"));
  if (one.extension) CHECK(film.extension() == one.extension);
  CHECK(fs::file_size(film) > 1000);
  check_film(film.string(), 20, 64, 48);
  CHECK(Probe(film.string()).stream["codec_name"] == one.codec);
}

TEST_CASE("what no encoder takes becomes numbered PNGs, with one line") {
  auto options = plain();
  int width = 16, height = 24;
  SECTION("a side of more than 16384 pixels") { height = 16390; }
  std::string why;
  SECTION("an encoder that is not there") {
    options.encoder = "no-such-encoder";
    why = "no encoder \"no-such-encoder\"";
  }
  SECTION("one of sounds") {
    options.encoder = "aac";
    why = "aac does not encode pictures";
  }
  SECTION("one that loses bits, where none may be lost") {
    options.encoder = "mpeg4";
    options.profile = VideoProfile::Exact;
    why = "mpeg4 does not keep RGB bit for bit";
  }
  Rig rig(options);
  rig.show(3, width, height);
  rig.recording(false);
  rig.show(1, width, height);
  rig.recording(true);
  rig.show(2, width, height);
  rig.close();
  CHECK(rig.errors.empty());
  CHECK(rig.files(".mp4").empty());
  CHECK(rig.log.count(LogLevel::Warning) == 1);
  for (const auto& line : rig.log.lines) {
    if (line.first == LogLevel::Warning) CHECK(line.second.find(why) != std::string::npos);
  }
  CHECK(rig.files(".jsonl").size() == 2);
  const std::string folder = rig.recorder->state().path;
  CHECK(folder.find("/video-frames-") != std::string::npos);
  CHECK(std::distance(fs::directory_iterator(folder), fs::directory_iterator()) == 2);
  const cv::Mat second = cv::imread(folder + "/00001.png");
  REQUIRE(second.size() == cv::Size(width, height));
  const auto picture = synthetic::blocks(width, height, 1);
  cv::Mat expected;
  cv::cvtColor(cv::Mat(height, width, CV_8UC3, picture->rgb.data()), expected, cv::COLOR_RGB2BGR);
  CHECK(cv::norm(second, expected, cv::NORM_INF) == 0);
}

TEST_CASE("what a process of its own does with pictures", "[.threads]") {
  const auto threads = [] {
    return std::distance(fs::directory_iterator("/proc/self/task"), fs::directory_iterator());
  };
  const auto before = threads();
  auto options = plain();
  options.captions = true;
  options.encoder = "none";  // PNGs
  Rig rig(options);
  const auto picture = synthetic::network({{"fc.weight", {10, 20}}, {"fc.bias", {10}}}, 1280, 720, 1);
  rig.show(picture);
  rig.close();
  CHECK(fs::exists(rig.recorder->state().path + "/00000.png"));
  for (const auto format : {PictureFormat::Raw, PictureFormat::Png, PictureFormat::Jpeg}) {
    for (const bool captions : {false, true}) CHECK(encoded(picture, format, captions, 85).size > 0);
  }
  CHECK(threads() == before);
}

TEST_CASE("no thread of OpenCV's pool wakes for PNGs, captions and encodings") {
  // In a process of its own: here, what reads films has woken it.
  const std::string program = fs::read_symlink("/proc/self/exe").string();
  CHECK(output_of("OPENCV_FOR_THREADS_NUM=4 '" + program + "' '[.threads]' 2>&1").find("All tests passed") !=
        std::string::npos);
}

TEST_CASE("an encoder that takes more than half of max_host_bytes: PNGs, with one line that has the numbers") {
  auto options = plain();
  options.encoder = "ffv1";
  Rig rig(options);
  rig.recorder->close();
  rig.run.max_host_bytes = 10 << 20;
  rig.recorder = std::make_unique<Recorder>(options);
  rig.recorder->open(rig.run);
  rig.show(2, 320, 240);  // 12.9 MiB for ffv1
  rig.show(2, 64, 48);    // 0.5 MiB
  rig.close();
  CHECK(rig.errors.empty());
  CHECK(rig.log.count(LogLevel::Warning) == 1);
  const auto& lines = rig.log.lines;
  CHECK(std::any_of(lines.begin(), lines.end(), [](const auto& line) {
    return line.second.find("320 x 240 takes about 12.9 MiB") != std::string::npos &&
           line.second.find("at most 5.0 MiB, half of Options::max_host_bytes") != std::string::npos;
  }));
  CHECK(rig.files(".mkv").size() == 1);
  CHECK(rig.recorder->needs().host_bytes_per_pixel == VideoWriter::host_bytes_per_pixel({{}, 15, "ffv1"}));
}

TEST_CASE("recording is switched by the setting") {
  Rig rig;
  CHECK(rig.run.settings->get().recording);
  CHECK(rig.run.settings->defaults().recording);  // a reset does not end the film
  rig.show(4);
  rig.recording(false);
  rig.show(10);
  CHECK_FALSE(rig.recorder->state().recording);
  check_film(rig.files(".mp4").at(0), 4, 64, 48);
  rig.recording(true);
  rig.show(6);
  CHECK(rig.recorder->state().recording);
  rig.close();
  const auto films = rig.files(".mp4");
  REQUIRE(films.size() == 2);
  CHECK(Probe(films[0]).frames + Probe(films[1]).frames == 10);
}

TEST_CASE("a recorder that shall not start waits for the setting") {
  auto options = plain();
  options.start = false;
  Rig rig(options);
  CHECK_FALSE(rig.run.settings->get().recording);
  rig.show(3);
  CHECK(rig.files(".mp4").empty());
  rig.recording(true);
  rig.show(3);
  rig.close();
  check_film(rig.files(".mp4").at(0), 3, 64, 48);
}

TEST_CASE("the film has pictures of the film's view alone, each once") {
  Rig rig;
  rig.show(2);
  auto solo = synthetic::blocks(64, 48, 5);
  solo->film = false;
  rig.show(solo);
  auto recoloured = synthetic::blocks(64, 48, 6);
  recoloured->recoloured = true;
  rig.show(recoloured);
  rig.close();
  check_film(rig.files(".mp4").at(0), 2, 64, 48);
}

TEST_CASE("the film has captions") {
  auto options = plain();
  options.captions = true;
  options.profile = VideoProfile::Exact;
  Rig rig(options);
  const auto picture = synthetic::network({{"fc.weight", {10, 20}}, {"fc.bias", {10}}}, 320, 200, 1);
  rig.show(picture);
  rig.close();
  const auto frame = opencv_frames(rig.files(".mp4").at(0)).at(0);
  const auto expected = captioned(*picture);
  CHECK(expected->rgb != picture->rgb);
  CHECK(std::equal(expected->rgb.begin(), expected->rgb.end(), frame.data));
}

TEST_CASE("names that are taken are left alone") {
  TemporaryFolder shared;
  const std::string folder = shared.path.string();
  std::vector<std::unique_ptr<Rig>> rigs;
  for (int i = 0; i < 5; ++i) {  // within a second or two
    rigs.push_back(std::make_unique<Rig>(plain(), folder));
    rigs.back()->show(i + 1);
  }
  int frames = 0;
  std::vector<std::string> paths;
  for (auto& rig : rigs) {
    rig->close();
    paths.push_back(rig->recorder->state().path);
    frames += Probe(paths.back()).frames;
  }
  std::sort(paths.begin(), paths.end());
  CHECK(std::unique(paths.begin(), paths.end()) == paths.end());
  CHECK(frames == 1 + 2 + 3 + 4 + 5);
}

TEST_CASE("a film never overwrites a file") {
  TemporaryFolder folder;
  const std::string stem = (folder.path / "mine").string();
  { std::ofstream(stem + ".mp4") << "not yours"; }
  int error = 0;
  try {
    VideoWriter writer(stem, 64, 48, {});
  } catch (const std::system_error& e) {
    error = e.code().value();
  }
  CHECK(error == EEXIST);
  CHECK(fs::file_size(stem + ".mp4") == 9);
}

TEST_CASE("destruction finishes the film") {
  Rig rig;
  rig.show(23);
  rig.recorder.reset();
  check_film(rig.files(".mp4").at(0), 23, 64, 48);
}

TEST_CASE("a film can be read while it is written") {
  Rig rig;
  rig.show(1);
  CHECK(Probe(rig.files(".mp4").at(0)).frames == 1);  // at once
  rig.show(20);
  const Probe probe(rig.files(".mp4").at(0));
  CHECK(probe.frames >= 16);
  CHECK(probe.complaints == "");
}

TEST_CASE("a fragment lasts no longer than a second") {
  Rig rig;
  rig.show(1);
  rig.show(3);
  std::this_thread::sleep_for(std::chrono::milliseconds(1050));
  rig.show(1);
  CHECK(Probe(rig.files(".mp4").at(0)).frames == 5);
}

TEST_CASE("each fragment begins with a key frame, so that a player can jump to it") {
  Rig rig;
  rig.show(50);
  rig.recorder.reset();
  const std::string path = rig.files(".mp4").at(0);
  std::istringstream packets(output_of("ffprobe -v error -show_entries packet=flags -of csv=p=0 '" + path + "'"));
  int count = 0;
  for (std::string flags; packets >> flags; ++count) {
    CAPTURE(count, flags);
    // The first frame is a fragment of its own, to be seen at once; each other one has 15.
    CHECK((flags[0] == 'K') == (count == 0 || count % 15 == 1));
  }
  CHECK(count == 50);
}

TEST_CASE("a killed process loses no more than its last fragment") {
  auto* written = static_cast<std::atomic<int>*>(
      ::mmap(nullptr, sizeof(std::atomic<int>), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  for (int round = 0; round < 6; ++round) {
    CAPTURE(round);
    const bool exact_ffv1 = round == 5;
    TemporaryFolder folder;
    written->store(0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      auto options = plain();
      if (exact_ffv1) {
        options.profile = VideoProfile::Exact;
        options.encoder = "ffv1";
      }
      Rig rig(options, folder.path.string());
      for (int i = 0;; ++i) {
        rig.recorder->show(synthetic::blocks(320, 240, i));
        written->fetch_add(1);
      }
    }
    while (written->load() < 1 + round * 13) std::this_thread::sleep_for(std::chrono::microseconds(200));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    std::string film, index;
    for (const auto& entry : fs::directory_iterator(folder.path)) {
      (entry.path().extension() == ".jsonl" ? index : film) = entry.path().string();
    }
    const Probe probe(film);
    CHECK(probe.complaints == "");
    CHECK(probe.frames >= 1);
    CHECK(probe.frames > written->load() - 16);
    CHECK(static_cast<int>(index_of(index).size()) >= probe.frames);
    CHECK(static_cast<int>(opencv_frames(film).size()) == probe.frames);
  }
  ::munmap(written, sizeof(std::atomic<int>));
}

TEST_CASE("index and messages are the same in every language of the program") {
  std::vector<std::string> told[2];
  for (const bool german : {false, true}) {
    std::optional<German> language;
    if (german) language.emplace();
    Rig rig;
    rig.run.settings->edit([](Settings& s) { s.fps = 2.5; });
    auto picture = synthetic::blocks(64, 48, 1234);
    picture->settings.fps = 2.5;
    picture->settings.page = 12345;
    picture->settings.zoom = 1.5;
    rig.show(picture);
    rig.close();
    told[german] = read_film_index(rig.files(".jsonl").at(0));
    auto options = plain();
    options.min_free_bytes = std::numeric_limits<int64_t>::max();
    Rig full(options);
    full.show(1);
    const std::string error = full.errors.at(0);
    told[german].push_back(error.substr(0, error.find(" free on")));
    options.frames_per_second = 240.5;
    try {
      Recorder recorder(options);
    } catch (const std::invalid_argument& e) {
      told[german].emplace_back(e.what());
    }
  }
  CHECK(told[0] == told[1]);
  REQUIRE(told[0].size() == 3);
  CHECK(nlohmann::json::parse(told[0][0])["settings"]["fps"] == 2.5);
  CHECK(nlohmann::json::parse(told[0][0])["settings"]["page"] == 12345);
  CHECK(told[0][1].find("8589934592.0 GiB") != std::string::npos);
  CHECK(told[0][2].find("found 240.5") != std::string::npos);
}

TEST_CASE("files stay where they were begun when the working directory changes") {
  TemporaryFolder first, second;
  const fs::path before = fs::current_path();
  fs::current_path(first.path);
  {
    VideoWriter video("film", 64, 48, {});
    PngFolder pngs("frames");
    FilmIndex index("film.jsonl");
    index.add("{}\n");
    fs::current_path(second.path);
    const auto picture = synthetic::blocks(64, 48);
    video.write(picture->rgb.data());
    pngs.write(picture->rgb.data(), 64, 48);
    index.write(1);
    CHECK(fs::equivalent(video.path(), first.path / "film.mp4"));
    CHECK(fs::equivalent(index.path(), first.path / "film.jsonl"));
    VideoWriter empty("empty", 64, 48, {});
    fs::current_path(first.path);
    empty.close();  // without a frame: removed where it was made
  }
  CHECK(fs::exists(first.path / "frames/00000.png"));
  CHECK(fs::is_empty(second.path));
  fs::current_path(before);
}

TEST_CASE("an index that is torn anywhere in its last line has one line less") {
  Rig rig;
  rig.show(7);
  rig.close();
  const std::string path = rig.files(".jsonl").at(0);
  const auto whole = read_film_index(path);
  REQUIRE(whole.size() == 7);
  const auto size = fs::file_size(path);
  const auto before = size - whole.back().size() - 1;
  for (auto bytes = size; bytes + 1 > before; --bytes) {
    fs::resize_file(path, bytes);
    auto expected = whole;
    if (bytes < size) expected.pop_back();
    const auto lines = read_film_index(path);
    if (lines != expected) FAIL("at " << bytes << " of " << size << " bytes: " << lines.size() << " lines");
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    CHECK(whole_lines(fd, static_cast<int64_t>(bytes)) == static_cast<int64_t>(bytes < size ? before : size));
    ::close(fd);
  }
  CHECK(read_film_index(path, 4).size() == 4);
  CHECK(read_film_index(path, 0).empty());
  fs::resize_file(path, 3);
  CHECK(read_film_index(path).empty());
  CHECK_THROWS_AS(read_film_index(path + "x"), std::system_error);
}

TEST_CASE("wherever the process or the disk ends, the index has a line for each frame of the film") {
  // A limit of the size of files ends the writing after any byte that we want, in the index as in the film: with the
  // process, where SIGXFSZ is not ignored, else with an error, as on a full disk.
  auto options = plain();
  int size = 16, first = 4000, step = 613;  // of the index, which outgrows a film of small pictures
  std::string extension = ".mp4";
  SECTION("in the index") {}
  SECTION("in the film") {
    size = 320;
    first = 60000;
    step = 17011;
  }
  SECTION("in a film whose muxer writes without being told to") {
    options.profile = VideoProfile::Exact;
    options.encoder = "ffv1";
    extension = ".mkv";
    size = 64;
    step = 3001;
  }
  SECTION("in the index of PNGs") {
    options.encoder = "none";
    extension = "";
  }
  for (int n = 0; n < 28; ++n) {
    const bool killed = n % 2 != 0;
    const int bytes = first + n / 2 * step;
    CAPTURE(killed, bytes);
    TemporaryFolder folder;
    const int status = in_child([&] {
      Rig rig(options, folder.path.string());
      ::signal(SIGXFSZ, killed ? SIG_DFL : SIG_IGN);
      const rlimit limit{static_cast<rlim_t>(bytes), static_cast<rlim_t>(bytes)}, no_core{0, 0};
      ::setrlimit(RLIMIT_CORE, &no_core);
      ::setrlimit(RLIMIT_FSIZE, &limit);
      for (int i = 0; i < 60 && rig.errors.empty(); ++i) rig.show(synthetic::blocks(size, size, size == 16 ? 0 : i, 4));
      return rig.errors.size() == 1 ? 0 : 2;
    });
    CHECK(
        (killed ? WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ : WIFEXITED(status) && WEXITSTATUS(status) == 0));
    size_t frames = 0;
    std::string index;
    for (const auto& entry : fs::directory_iterator(folder.path)) {
      if (entry.path().extension() == ".jsonl") {
        index = entry.path().string();
      } else if (extension.empty()) {
        for (const auto& png : fs::directory_iterator(entry)) frames += png.path().extension() == ".png";
      } else {
        CHECK(entry.path().extension() == extension);
        frames = opencv_frames(entry.path().string()).size();
      }
    }
    REQUIRE_FALSE(index.empty());
    const size_t lines = read_film_index(index).size();
    CAPTURE(frames, lines);
    CHECK(frames > 0);
    CHECK(lines >= frames);
    CHECK(lines <= frames + (killed ? 15 : 0));
    CHECK(read_film_index(index, static_cast<int64_t>(frames)).size() == frames);
  }
}

TEST_CASE("a full disk stops the recording with one line, and what was written stays") {
  TemporaryFolder folder;
  const std::string disk = folder.path.string();
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=600k") != 0) {
    WARN("skipped, mounting a tmpfs needs root");
    return;
  }
  {
    auto options = plain();
    SECTION("a film") {}
    SECTION("PNGs") { options.encoder = "none"; }
    Rig rig(options, disk);
    for (int i = 0; i < 60; ++i) rig.show(synthetic::blocks(320, 240, i, 4));
    CHECK(rig.errors.size() == 1);
    CHECK(rig.errors.at(0).find("No space left on device") != std::string::npos);
    CHECK(rig.errors.at(0).find("Free some space") != std::string::npos);
    CHECK_FALSE(rig.run.settings->get().recording);
    const auto state = rig.recorder->state();
    if (options.encoder.empty()) {
      const Probe probe(state.path);
      CHECK(probe.frames > 15);
      check_film(state.path, probe.frames, 320, 240);
    } else {
      const auto pngs =
          static_cast<size_t>(std::distance(fs::directory_iterator(state.path), fs::directory_iterator()));
      CHECK(index_of(rig.files(".jsonl").at(0)).size() == pngs);
      for (const auto& png : fs::directory_iterator(state.path)) CHECK_FALSE(cv::imread(png.path().string()).empty());
    }
  }
  ::umount2(disk.c_str(), MNT_DETACH);
}

TEST_CASE("a file size limit stops the recording in the same way") {
  const int status = in_child([] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{300000, 300000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    Rig rig;
    for (int i = 0; i < 60; ++i) rig.show(synthetic::blocks(320, 240, i, 4));
    if (rig.errors.size() != 1 || rig.errors[0].find("File too large") == std::string::npos) return 2;
    const Probe probe(rig.recorder->state().path);
    return probe.frames > 15 && probe.complaints.empty() ? 0 : 3;
  });
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("no file descriptors left: one line, and the recording can be switched on again") {
  const int status = in_child([] {
    Rig rig;
    rlimit before{}, none{};
    ::getrlimit(RLIMIT_NOFILE, &before);
    none = before;
    none.rlim_cur = 3;
    ::setrlimit(RLIMIT_NOFILE, &none);
    rig.show(5);
    ::setrlimit(RLIMIT_NOFILE, &before);
    if (rig.errors.size() != 1 || rig.errors[0].find("Too many open files") == std::string::npos) return 2;
    rig.recording(true);
    rig.show(5);
    rig.close();
    return rig.errors.size() == 1 && Probe(rig.files(".mp4").at(0)).frames == 5 ? 0 : 3;
  });
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("a logdir that is removed while recording: one line, no crash, and a new start") {
  auto options = plain();
  SECTION("a film") {}
  SECTION("PNGs") { options.encoder = "none"; }
  Rig rig(options);
  rig.show(5);
  fs::remove_all(rig.logdir.path);
  rig.show(1);
  std::this_thread::sleep_for(std::chrono::milliseconds(1050));
  rig.show(5);
  REQUIRE(rig.errors.size() == 1);
  CHECK(rig.errors[0].find("Restore the folder") != std::string::npos);
  CHECK_FALSE(rig.run.settings->get().recording);
  rig.recording(true);
  rig.show(5);
  rig.close();
  CHECK(rig.errors.size() == 1);
  CHECK(rig.files(".jsonl").size() == 1);
}

TEST_CASE("a logdir that cannot be written: one line") {
  const int status = in_child([] {
    Rig rig;
    fs::permissions(rig.run.directory, fs::perms::owner_read | fs::perms::owner_exec);
    if (::geteuid() == 0 && ::seteuid(65534) != 0) return 4;
    rig.show(5);
    if (::getuid() == 0 && ::seteuid(0) != 0) return 5;
    fs::permissions(rig.run.directory, fs::perms::owner_all);
    if (rig.errors.size() != 1 || rig.errors[0].find("Permission denied") == std::string::npos) return 2;
    if (rig.errors[0].find("the training goes on") != std::string::npos) return 6;  // the dispatcher says that
    return !rig.run.settings->get().recording && rig.files(".mp4").empty() && rig.files(".jsonl").empty() ? 0 : 3;
  });
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("a folder that cannot be made: the line says why, not that a file is missing") {
  const int status = in_child([] {
    Rig rig;
    const fs::path parent = fs::path(rig.run.directory).parent_path();
    fs::remove_all(rig.run.directory);
    // Both can be looked into, or the reason would be another one.
    fs::permissions(rig.logdir.path, static_cast<fs::perms>(0755));
    fs::permissions(parent, static_cast<fs::perms>(0555));
    if (::geteuid() == 0 && ::seteuid(65534) != 0) return 4;
    rig.show(5);
    if (::getuid() == 0 && ::seteuid(0) != 0) return 5;
    fs::permissions(parent, fs::perms::owner_all);
    return rig.errors.size() == 1 && rig.errors[0].find("Permission denied") != std::string::npos &&
                   rig.errors[0].find("Make the folder writable") != std::string::npos
               ? 0
               : 2;
  });
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("the films of a run stay below their limit: the oldest goes, said once") {
  auto options = plain();
  options.max_recording_bytes = 1 << 20;
  SECTION("films") {}
  SECTION("PNGs") { options.encoder = "none"; }
  Rig rig(options);
  { std::ofstream(rig.run.directory + "/video-of-another-run.mp4") << "not ours"; }
  int64_t most = 0;
  for (int i = 0; i < 200; ++i) {
    rig.show(synthetic::blocks(320, 240, i, 2));
    int64_t bytes = 0;
    for (const auto& entry : fs::recursive_directory_iterator(rig.run.directory)) {
      if (entry.is_regular_file()) bytes += static_cast<int64_t>(entry.file_size());
    }
    most = std::max(most, bytes);
  }
  CHECK(most > (1 << 19));
  CHECK(most <= (1 << 20) + 8);  // and the file that is not ours
  rig.close();
  CHECK(rig.errors.empty());
  const auto state = rig.recorder->state();
  CHECK(state.films_removed > 2);
  CHECK(state.films - state.films_removed == static_cast<int64_t>(rig.files(".jsonl").size()));
  CHECK(state.frames == 200);
  int told = 0;
  for (const auto& line : rig.log.lines) told += line.second.find("max_recording_bytes") != std::string::npos;
  CHECK(told == 1);
  CHECK(fs::exists(rig.run.directory + "/video-of-another-run.mp4"));
  int64_t frames = 0;
  for (const auto& index : rig.files(".jsonl")) frames += static_cast<int64_t>(index_of(index).size());
  CHECK(frames >= 6);
}

TEST_CASE("the disk keeps its reserve: recording stops, said once") {
  auto options = plain();
  options.min_free_bytes = std::numeric_limits<int64_t>::max();
  Rig rig(options);
  rig.show(5);
  CHECK(rig.errors.size() == 1);
  CHECK(rig.errors.at(0).find("min_free_bytes") != std::string::npos);
  CHECK_FALSE(rig.run.settings->get().recording);
  CHECK(fs::is_empty(rig.run.directory));
}

TEST_CASE("options out of their range are refused with what is allowed") {
  RecorderOptions options;
  SECTION("frames per second") { options.frames_per_second = 0; }
  SECTION("not a number") { options.frames_per_second = NAN; }
  SECTION("limit") { options.max_recording_bytes = 10; }
  SECTION("reserve") { options.min_free_bytes = -1; }
  std::string told;
  try {
    Recorder recorder(options);
  } catch (const std::invalid_argument& e) {
    told = e.what();
  }
  CHECK(told.find("expected") != std::string::npos);
  CHECK(told.find("found") != std::string::npos);
}
