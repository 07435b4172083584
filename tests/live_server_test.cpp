// The live server, by real requests over real sockets: what each path answers, who is let in, what happens to those who
// are slow, silent, many or malicious, and how it ends.
#include "beholder/callbacks/live_server.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <torch/version.h>
#include <unistd.h>

#include <atomic>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <opencv2/imgcodecs.hpp>
#include <regex>
#include <set>
#include <sstream>
#include <thread>
#include <utility>
#include <vector>

#include "beholder/beholder.h"
#include "beholder/callbacks/captions.h"
#include "beholder/callbacks/cpu_share.h"
#include "beholder/callbacks/live_access.h"
#include "beholder/callbacks/live_actions.h"
#include "beholder/callbacks/live_connections.h"
#include "beholder/callbacks/live_encodings.h"
#include "beholder/callbacks/live_file.h"
#include "beholder/state.h"
#include "catch.h"
#include "german.h"
#include "http_client.h"
#include "log_lines.h"
#include "own_threads.h"
#include "synthetic_picture.h"

namespace {

using namespace std::chrono_literals;
using namespace beholder;
using http::Client;
using http::Reply;
using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;
namespace fs = std::filesystem;

// A machine that others use as well must not make these fail.
constexpr auto kDeadline = 60s;
// Blocks of three pixels are the worst for a JPEG, which keeps colours at half the resolution (0 = exact, 85 = noise).
constexpr double kJpegDifference = 16;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;  // several times slower
#else
constexpr bool kSanitized = false;
#endif
const std::string kToken = "a-token-for-tests";

bool eventually(const std::function<bool()>& condition) {
  for (const auto end = Clock::now() + kDeadline; Clock::now() < end;) {
    if (condition()) return true;
    std::this_thread::sleep_for(2ms);
  }
  return condition();
}

double seconds_of(const std::function<void()>& work) {
  const auto begin = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

int open_descriptors() {
  int count = 0;
  DIR* folder = ::opendir("/proc/self/fd");
  while (folder && ::readdir(folder)) ++count;
  if (folder) ::closedir(folder);
  return count;
}

int threads_of_this_process() {
  return static_cast<int>(std::distance(fs::directory_iterator("/proc/self/task"), fs::directory_iterator()));
}

struct TemporaryFolder {
  fs::path path;
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "beholder-live-XXXXXX").string();
    if (!::mkdtemp(&name[0])) throw std::runtime_error("no temporary folder");
    path = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

std::shared_ptr<Picture> network_picture(uint64_t sequence, int width = 640, int height = 360) {
  auto picture = synthetic::network({{"conv1.weight", {8, 3, 3, 3}}, {"conv1.bias", {8}}, {"fc.weight", {10, 72}}},
                                    width, height, 2, static_cast<int>(sequence));
  picture->sequence = sequence;
  picture->step = static_cast<int64_t>(sequence) * 10;
  picture->names =
      std::make_shared<std::vector<std::string>>(std::vector<std::string>{"conv1.weight", "conv1.bias", "fc.weight"});
  return picture;
}

/// A run without a training: what the Beholder would give to the callback.
struct FakeRun {
  TemporaryFolder folder;
  Run run;
  std::atomic<int> states{0};           // how often it was asked for its state
  double max_background = 0;            // set before the server opens; 0 = nobody says
  std::shared_ptr<const Picture> last;  // set before the server opens

  explicit FakeRun(bool with_folder = true) {
    run.logdir = folder.path.string();
    run.directory = (folder.path / "plugins" / "beholder").string();
    if (with_folder) fs::create_directories(run.directory);
    run.settings = std::make_shared<SharedSettings>();
    run.state = [this] {
      ++states;
      State state;
      state.step = 1234;
      state.fps_real = std::numeric_limits<double>::quiet_NaN();
      state.max_background = max_background;
      state.not_shown = {{"empty.weight", "empty"}};
      CallbackState callback;
      callback.name = "recorder";
      callback.open = true;
      callback.shown = 7;
      state.callbacks = {callback};
      return state;
    };
    run.last_picture = [this] { return last; };
    run.value_at = [](uint64_t sequence, int x, int y) -> std::optional<ShownValue> {
      if (x == 0) return std::nullopt;
      ShownValue shown;
      shown.section = 2;
      shown.index = {static_cast<int64_t>(sequence), y};
      shown.value = static_cast<float>(x) / 4;
      shown.text = x == 11 ? "9007199254740993" : x == 12 ? "1e+300" : x == 13 ? "3+4i" : x == 14 ? "NaN" : "2.5";
      if (x == 11) shown.value = 9007199254740992;
      if (x == 12) shown.value = 1e300;
      if (x == 14) shown.value = std::numeric_limits<double>::quiet_NaN();
      return shown;
    };
  }
};

struct Server {
  std::unique_ptr<FakeRun> own_run;
  FakeRun& fake;
  LiveServer server;
  int port = 0;

  explicit Server(LiveServerOptions options = {}, FakeRun* run = nullptr)
      : own_run(run ? nullptr : new FakeRun()), fake(run ? *run : *own_run), server(with_token(options)) {
    server.open(fake.run);
    port = server.state().port;
  }
  static LiveServerOptions with_token(LiveServerOptions options) {
    if (options.token.empty()) options.token = kToken;
    if (options.max_cpu == LiveServerOptions().max_cpu) options.max_cpu = 64;  // tests of the budget choose it
    return options;
  }

  SharedSettings& settings() { return *fake.run.settings; }
  void show(uint64_t sequence) { server.show(network_picture(sequence)); }

  static std::string request(const std::string& method, const std::string& path, const std::string& body = "",
                             const std::string& headers = "Authorization: Bearer " + kToken + "\r\n",
                             const std::string& host = "localhost") {
    std::string text = method + " " + path + " HTTP/1.1\r\n";
    if (!host.empty()) text += "Host: " + host + "\r\n";
    text += headers;
    if (!body.empty() || method == "POST") text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
    return text + "\r\n" + body;
  }
  Reply ask(const std::string& text) const {
    Client client(port);
    client.send(text);
    return client.read();
  }
  Reply get(const std::string& path) const { return ask(request("GET", path)); }
  Reply post(const std::string& path, const std::string& body) const { return ask(request("POST", path, body)); }
  Json state() const { return Json::parse(get("/state").body); }
};

std::string error_of(const Reply& reply) { return Json::parse(reply.body).value("error", std::string()); }

std::string pixels(const std::vector<uint8_t>& rgb) { return std::string(rgb.begin(), rgb.end()); }

/// As R G B.
std::string decoded(const std::string& body, int width, int height) {
  const std::vector<uint8_t> bytes(body.begin(), body.end());
  const cv::Mat bgr = cv::imdecode(bytes, cv::IMREAD_COLOR);
  if (bgr.cols != width || bgr.rows != height) return {};
  std::string rgb;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const auto& color = bgr.at<cv::Vec3b>(y, x);
      for (int c = 2; c >= 0; --c) rgb += static_cast<char>(color[c]);
    }
  }
  return rgb;
}

double mean_difference(const std::string& a, const std::string& b) {
  if (a.size() != b.size() || a.empty()) return 255;
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += std::abs(static_cast<int>(static_cast<uint8_t>(a[i])) - static_cast<int>(static_cast<uint8_t>(b[i])));
  }
  return sum / static_cast<double>(a.size());
}

}  // namespace

// ---- what it answers

TEST_CASE("options out of their range are refused in words") {
  const auto refused = [](const std::function<void(LiveServerOptions&)>& change, const std::string& name) {
    LiveServerOptions options;
    change(options);
    try {
      LiveServer server(options);
    } catch (const std::invalid_argument& e) {
      const std::string text = e.what();
      return text.find("LiveServerOptions::" + name) != std::string::npos &&
             text.find("expected") != std::string::npos && text.find("found") != std::string::npos;
    }
    return false;
  };
  CHECK(refused([](auto& o) { o.address = ""; }, "address"));
  CHECK(refused([](auto& o) { o.port = -1; }, "port"));
  for (const char* name : {"", "gpu:6007", "http://gpu", "gpu/page", ".gpu", "*", "gpu\r\n", "[::1]:80", "a b"}) {
    CHECK(refused([name](auto& o) { o.allowed_hosts = {"gpu", name}; }, "allowed_hosts"));
  }
  CHECK(refused([](auto& o) { o.port = 65536; }, "port"));
  CHECK(refused([](auto& o) { o.token = "short"; }, "token"));
  CHECK(refused([](auto& o) { o.token = "with spaces and ; in it"; }, "token"));
  CHECK(refused([](auto& o) { o.max_viewers = 0; }, "max_viewers"));
  CHECK(refused([](auto& o) { o.max_viewers = 1001; }, "max_viewers"));
  CHECK(refused([](auto& o) { o.jpeg_quality = 0; }, "jpeg_quality"));
  CHECK(refused([](auto& o) { o.max_cpu = 0; }, "max_cpu"));
  CHECK(refused([](auto& o) { o.max_cpu = std::nan(""); }, "max_cpu"));
}

TEST_CASE("the page's files come with their types, a strict policy and no caching") {
  Server server;
  const std::vector<std::pair<std::string, std::string>> files = {
      {"/", "index.html"}, {"/page.css", "page.css"}, {"/page.js", "page.js"}};
  const std::vector<std::string> types = {"text/html", "text/css", "text/javascript"};
  for (size_t i = 0; i < files.size(); ++i) {
    const Reply reply = server.get(files[i].first);
    INFO(files[i].first);
    CHECK(reply.status == 200);
    CHECK(reply.header("content-type") == types[i] + "; charset=utf-8");
    CHECK(reply.header("cache-control") == "no-store");
    CHECK(reply.header("x-content-type-options") == "nosniff");
    const std::string policy = reply.header("content-security-policy");
    for (const char* part : {"default-src 'none'", "script-src 'self'", "style-src 'self'",
                             "img-src 'self' blob: data:", "connect-src 'self'", "frame-ancestors 'none'"}) {
      CHECK(policy.find(part) != std::string::npos);
    }
    std::ifstream file(std::string(BEHOLDER_SOURCE_DIR) + "/callbacks/page/" + files[i].second, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    CHECK(!text.empty());
    CHECK(reply.body == text);
  }
  CHECK(server.get("/page_js").status == 404);
  CHECK(server.get("/nothing").status == 404);
  CHECK(server.get("/favicon.ico").status == 204);
}

TEST_CASE("a frame comes at once where nothing is waited for, and 204 where there is none yet") {
  Server server;
  const Reply none = server.get("/frame");
  CHECK(none.status == 204);
  CHECK(none.number("x-beholder-sequence") == 0);
  CHECK(none.number("x-beholder-revision") >= 1);
  CHECK(none.header("x-beholder-layout") != "");
  server.show(7);
  const Reply frame = server.get("/frame?format=raw");
  CHECK(frame.status == 200);
  CHECK(frame.number("x-beholder-sequence") == 7);
  CHECK(frame.number("x-beholder-width") == 640);
  CHECK(frame.number("x-beholder-height") == 360);
  CHECK(frame.number("x-beholder-step") == 70);
  CHECK(frame.body.size() == 640u * 360u * 3u);
}

TEST_CASE("a viewer that comes while nothing new is shown sees the last picture") {
  FakeRun run;
  run.last = network_picture(3);
  Server server({}, &run);
  CHECK(server.get("/frame").number("x-beholder-sequence") == 3);
}

TEST_CASE("a frame is waited for until there is a newer one") {
  Server server;
  server.show(1);
  Client client(server.port);
  client.send(Server::request("GET", "/frame?after=1&format=raw&timeout_ms=20000"));
  CHECK(client.read_head(300ms).status == 0);  // it waits
  server.show(2);
  Reply reply;
  CHECK(seconds_of([&] { reply = client.read(); }) < 15);  // not only when its time is over
  CHECK(reply.status == 200);
  CHECK(reply.number("x-beholder-sequence") == 2);
}

TEST_CASE("a slow viewer gets the newest picture, never a backlog") {
  Server server;
  Client client(server.port);
  uint64_t after = 0;
  for (uint64_t sequence = 1; sequence <= 30; ++sequence) {
    server.show(sequence);
    if (sequence % 10 != 0) continue;
    client.send(Server::request("GET", "/frame?format=raw&after=" + std::to_string(after)));
    const Reply reply = client.read();
    CHECK(reply.number("x-beholder-sequence") == static_cast<int64_t>(sequence));
    CHECK(reply.body == pixels(network_picture(sequence)->rgb));
    after = sequence;
  }
}

TEST_CASE("waiting for a frame ends with 204 after timeout_ms, and at once when the state changes") {
  Server server;
  server.show(1);
  const int64_t revision = server.get("/frame").number("x-beholder-revision");
  const std::string path = "/frame?after=1&revision=" + std::to_string(revision);
  Reply reply;
  const double waited = seconds_of([&] { reply = server.get(path + "&timeout_ms=200"); });
  CHECK(reply.status == 204);
  CHECK(waited >= 0.19);
  CHECK(reply.number("x-beholder-sequence") == 1);

  Client client(server.port);
  client.send(Server::request("GET", path));
  CHECK(client.read_head(200ms).status == 0);
  server.settings().edit([](Settings& s) { s.fps = 3; });
  reply = client.read();
  CHECK(reply.status == 204);
  CHECK(reply.number("x-beholder-revision") > revision);
  // Another revision than now's: no waiting. A newer picture goes before the news about the state.
  CHECK(server.get("/frame?after=1&revision=999").status == 204);
  CHECK(server.get("/frame?after=0&revision=999").status == 200);
}

TEST_CASE("pictures leave the revision alone; settings, waiting, films and the end change it") {
  FakeRun run;
  auto server = std::make_unique<Server>(LiveServerOptions(), &run);
  const auto revision = [&] { return server->get("/frame?after=0&timeout_ms=0").number("x-beholder-revision"); };
  const int64_t none = revision();
  server->show(1);
  const int64_t first = revision();
  CHECK(first > none);  // the first is not waited for any more
  server->show(2);
  server->show(3);
  CHECK(revision() == first);
  server->settings().edit([](Settings& s) { s.recording = true; });
  const int64_t second = revision();
  CHECK(second > first);

  const auto hears = [&](int64_t before, const std::function<void()>& change) {
    Client client(server->port);
    client.send(Server::request("GET", "/frame?after=4&revision=" + std::to_string(before)));
    if (client.read_head(100ms).status != 0) return int64_t{-1};
    change();
    return client.read(20s).number("x-beholder-revision");
  };
  // Values that no picture shows are waited for, until one does.
  server->settings().edit([](Settings& s) { s.mode = Mode::Variance; });
  const int64_t wished = revision();
  CHECK(wished > second);
  CHECK(server->state()["waiting"] == true);
  const auto shown = network_picture(4);
  shown->settings = server->settings().get();
  const int64_t third = hears(wished, [&] { server->server.show(shown); });
  CHECK(third > wished);
  CHECK(server->state()["waiting"] == false);
  // Nobody announces a film: a viewer that waits hears of it all the same. It needs no State for that.
  const int asked = run.states;
  const int64_t fourth = hears(third, [&] { std::ofstream(run.run.directory + "/video-1.mp4") << "film"; });
  CHECK(fourth > third);
  CHECK(run.states == asked);
  CHECK(server->state()["recordings"][0]["name"] == "video-1.mp4");

  Client client(server->port);
  client.send(Server::request("GET", "/frame?after=4&revision=" + std::to_string(fourth)));
  REQUIRE(client.read_head(100ms).status == 0);
  server.reset();
  const Reply last = client.read(20s);
  CHECK(last.status == 204);
  CHECK(last.number("x-beholder-revision") > fourth);
  CHECK(last.header("x-beholder-ended") == "1");
}

TEST_CASE("the layout's number changes when the sections stand elsewhere, and only then") {
  Server server;
  server.show(1);
  const auto layout = [&] { return server.get("/frame").header("x-beholder-layout"); };
  const std::string first = layout();
  server.show(2);
  CHECK(layout() == first);
  server.server.show(network_picture(3, 320, 240));
  const std::string second = layout();
  CHECK(second != first);
  auto other_names = network_picture(4, 320, 240);
  other_names->sections[0].name = "another.weight";
  server.server.show(other_names);
  CHECK(layout() != second);
  CHECK(server.state()["picture"]["layout_id"] == std::stoll(layout()));
}

TEST_CASE("raw and png are the picture exactly, jpeg nearly; text comes only where it is asked for") {
  Server server;
  const auto picture = network_picture(5);
  server.server.show(picture);
  const std::string plain = pixels(picture->rgb);
  const std::string with_text = pixels(captioned(*picture, ClassicText::Labels)->rgb);
  REQUIRE(plain != with_text);

  const Reply raw = server.get("/frame?format=raw");
  CHECK(raw.header("content-type") == "application/octet-stream");
  CHECK(raw.body == plain);
  CHECK(server.get("/frame?format=raw&captions=0").body == plain);
  CHECK(server.get("/frame?format=raw&captions=1").body == with_text);

  const Reply png = server.get("/frame?format=png");
  CHECK(png.header("content-type") == "image/png");
  CHECK(decoded(png.body, 640, 360) == plain);
  CHECK(decoded(server.get("/frame?format=png&captions=1").body, 640, 360) == with_text);

  const Reply jpeg = server.get("/frame?format=jpeg");
  CHECK(jpeg.header("content-type") == "image/jpeg");
  const std::string jpeg_pixels = decoded(jpeg.body, 640, 360);
  const std::string jpeg_with_text = decoded(server.get("/frame?format=jpeg&captions=1").body, 640, 360);
  CHECK(mean_difference(jpeg_pixels, plain) < kJpegDifference);
  CHECK(mean_difference(jpeg_with_text, with_text) < kJpegDifference);
  CHECK(mean_difference(jpeg_with_text, plain) > mean_difference(jpeg_pixels, plain));

  CHECK(server.get("/frame?format=gif").status == 400);
  CHECK(error_of(server.get("/frame?format=gif")) == "format: expected raw, png or jpeg; found 'gif'");
  for (const char* path : {"/frame?after=x", "/frame?after=-1", "/frame?revision=99999999999999999999",
                           "/frame?timeout_ms=1e3", "/frame?captions=yes"}) {
    INFO(path);
    CHECK(server.get(path).status == 400);
  }
}

TEST_CASE("nothing is encoded while nobody asks, and once for all who ask") {
  Server server;
  const int64_t before = encodings_made();
  for (uint64_t sequence = 1; sequence <= 50; ++sequence) server.show(sequence);
  CHECK(encodings_made() == before);
  std::vector<std::thread> viewers;
  std::atomic<int> good{0};
  for (int i = 0; i < 20; ++i) {
    viewers.emplace_back([&, i] {
      const std::string format = i % 2 ? "png" : "jpeg";
      good += server.get("/frame?format=" + format).status == 200;
    });
  }
  for (auto& viewer : viewers) viewer.join();
  CHECK(good == 20);
  CHECK(encodings_made() == before + 2);
  server.get("/frame?format=raw");
  CHECK(encodings_made() == before + 2);
}

TEST_CASE("the server's numbers are the same in every language of the program") {
  std::vector<std::string> told[2];
  for (const bool german : {false, true}) {
    std::optional<German> language;
    if (german) language.emplace();
    Server server;
    auto picture = network_picture(42);
    picture->sections[0].statistics.mean = 1234.5;
    server.server.show(picture);
    CHECK(server.post("/settings", R"({"zoom": 1.5, "fps": 2.25})").status == 200);
    const Json state = Json::parse(server.get("/state").body);
    told[german] = {state["picture"]["sections"].dump(), state["settings"].dump(), state["controls"].dump(),
                    server.get("/frame?format=raw").header("content-length")};
    CHECK(state["settings"]["zoom"] == 1.5);
    CHECK(state["picture"]["sections"][0]["mean"] == 1234.5);
    LiveServerOptions options;
    options.max_cpu = 64.5;
    try {
      LiveServer refused(options);
    } catch (const std::invalid_argument& e) {
      told[german].emplace_back(e.what());
    }
  }
  CHECK(told[0] == told[1]);
  REQUIRE(told[0].size() == 5);
  CHECK(told[0][4].find("64.5") != std::string::npos);
}

TEST_CASE("the state says what the contract promises") {
  Server server;
  auto picture = network_picture(42);
  picture->sections[0].statistics.mean = std::nan("");
  picture->sections[1].relative_change = 0.25;
  picture->sections[1].name = "not utf-8: \xff";
  picture->message = "m";
  server.server.show(picture);
  const Reply reply = server.get("/state");
  CHECK(reply.status == 200);
  CHECK(reply.header("content-type") == "application/json");
  const Json state = Json::parse(reply.body);
  CHECK(state["run"]["logdir"] == server.fake.run.logdir);
  CHECK(state["run"]["pid"] == static_cast<int64_t>(::getpid()));
  CHECK(state["run"]["nonce"].get<std::string>().size() == 32);
  CHECK(state["revision"].is_number());
  CHECK(state["settings"]["fps"] == 10);
  CHECK(state["settings"]["show_all"] == false);
  CHECK(state["settings"]["colormap"] == "magma");
  CHECK(state["defaults"] == state["settings"]);
  CHECK(state["waiting"] == false);
  CHECK(state["names"] == Json({"conv1.weight", "conv1.bias", "fc.weight"}));
  // The table, in its order, with what a viewer needs to bind keys.
  REQUIRE(state["controls"].size() == controls().size());
  for (size_t i = 0; i < controls().size(); ++i) {
    const Json& row = state["controls"][i];
    CHECK(row["name"] == controls()[i].name);
    CHECK(row["keys"] == controls()[i].keys);
    REQUIRE(row["bindings"].size() == controls()[i].bindings.size());
    for (size_t k = 0; k < row["bindings"].size(); ++k) {
      CHECK(row["bindings"][k]["key"] == controls()[i].bindings[k].key);
      CHECK(row["bindings"][k]["direction"] == controls()[i].bindings[k].direction);
    }
    const bool action = controls()[i].type == Control::Type::Action;
    CHECK(action == (row["type"] == "action"));
    CHECK(action != state["settings"].contains(controls()[i].name));
  }
  const Json& shown = state["picture"];
  CHECK(shown["sequence"] == 42);
  CHECK(shown["step"] == 420);
  CHECK(shown["width"] == 640);
  CHECK(shown["message"] == "m");
  CHECK(shown["colours"].get<std::string>().size() == 1024);  // base64 of 768 bytes
  REQUIRE(shown["sections"].size() == 3);
  const Json& section = shown["sections"][0];
  CHECK(section["name"] == "conv1.weight");
  CHECK(section["shape"] == Json({8, 3, 3, 3}));
  const Rect& area = picture->layout->sections[0].area;
  CHECK(section["area"] == Json({area.x, area.y, area.width, area.height}));
  CHECK(section["mean"].is_null());
  CHECK(section["relative_change"].is_null());
  CHECK(shown["sections"][1]["relative_change"] == 0.25);
  for (const char* name :
       {"kind",       "shown_as",     "dtype",    "device",  "caption",    "caption_inline", "picture", "reading",
        "min",        "max",          "std",      "count",   "zeros",      "nans",           "infs",    "scale_low",
        "scale_high", "values_total", "complete", "sampled", "dead_share", "beyond_float32"}) {
    INFO(name);
    CHECK(section.contains(name));
  }
  CHECK(state["counters"]["step"] == 1234);
  CHECK(state["counters"]["fps_real"].is_null());
  CHECK(state["counters"]["max_viewers"] == 64);
  CHECK(state["not_shown"][0]["name"] == "empty.weight");
  CHECK(state["callbacks"][0]["shown"] == 7);
  CHECK(state["recordings"] == Json::array());
  server.settings().edit([](Settings& s) { s.filter = "\xff"; });
  CHECK(server.get("/state").status == 200);
}

TEST_CASE("the value under a pixel is that of the tensor, from update() to JSON") {
  const std::vector<NamedTensor> arrays = {
    {"int32", at::full({1}, 16777217, at::kInt)},
    {"int64", at::full({1}, int64_t{1} << 40 | 1, at::kLong)},
    {"least", at::full({1}, std::numeric_limits<int64_t>::min() + 1, at::kLong)},
    {"small", at::full({1}, -3, at::kLong)},
    {"float64", at::full({1}, 1.0 / 3, at::kDouble)},
    {"float32", at::full({1}, 16777216.0, at::kFloat)},
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 3)
    {"uint32", at::full({1}, 4294967295, at::kLong).to(c10::ScalarType::UInt32)},
    {"uint64", at::full({1}, int64_t{1} << 60 | 1, at::kLong).to(c10::ScalarType::UInt64)},
#endif
  };
  const std::vector<Json> expected = {16777217,
                                      int64_t{1} << 40 | 1,
                                      std::numeric_limits<int64_t>::min() + 1,
                                      -3,
                                      1.0 / 3,
                                      16777216,
                                      int64_t{4294967295},
                                      int64_t{1} << 60 | 1};
  const TemporaryFolder folder;
  Options options;
  options.settings.values = Values::Arrays;
  options.max_overhead = 1;
  options.max_background = 64;
  Beholder run(folder.path.string(), options);
  const auto server = std::make_shared<LiveServer>(Server::with_token({}));
  run.add(server);
  const auto ask = [&](const std::string& path) {
    Client client(server->state().port);
    client.send(Server::request("GET", path));
    const Reply reply = client.read();
    return reply.status == 200 ? Json::parse(reply.body) : Json(nullptr);
  };
  const auto eventually = [](const std::function<bool()>& condition) {
    for (const auto end = Clock::now() + 60s; Clock::now() < end && !condition();) std::this_thread::sleep_for(5ms);
    return condition();
  };
  REQUIRE(eventually([&] { return server->state().port != 0; }));
  Json picture;
  REQUIRE(eventually([&] {
    run.update(beholder::Now, arrays);
    picture = ask("/state")["picture"];
    return picture.is_object() && picture["sections"].size() == arrays.size();
  }));
  // What update() has begun may still come: the newest picture is asked.
  for (size_t i = 0; i < arrays.size(); ++i) {
    INFO(arrays[i].name);
    Json value;
    REQUIRE(eventually([&] {
      picture = ask("/state")["picture"];
      const Json& place = picture["sections"][i]["picture"];
      const auto middle = [&](int first) { return place[first].get<int>() + place[first + 2].get<int>() / 2; };
      value = ask("/value?seq=" + std::to_string(picture["sequence"].get<int64_t>()) +
                  "&x=" + std::to_string(middle(0)) + "&y=" + std::to_string(middle(1)));
      return value.is_object();
    }));
    CHECK(value["name"] == arrays[i].name);
    CHECK(value["value"] == expected[i]);
  }
}

TEST_CASE("the value under a pixel has its section, name and index") {
  Server server;
  server.show(9);
  const Reply reply = server.get("/value?seq=9&x=10&y=20");
  CHECK(reply.status == 200);
  CHECK(Json::parse(reply.body) ==
        Json({{"section", 2}, {"name", "fc.weight"}, {"index", {9, 20}}, {"value", 2.5}, {"text", "2.5"}}));
  // Exactly: an integer that no float64 has, and what is no number of JSON in words.
  const auto value_at = [&](int x) { return Json::parse(server.get("/value?seq=9&y=2&x=" + std::to_string(x)).body); };
  CHECK(value_at(11)["value"].get<int64_t>() == 9007199254740993);
  CHECK(value_at(12)["value"] == 1e300);
  CHECK(value_at(13)["text"] == "3+4i");
  CHECK(value_at(13)["value"] == 3.25);
  CHECK(value_at(14)["text"] == "NaN");
  CHECK(value_at(14)["value"].is_null());
  CHECK(server.get("/value?seq=9&x=0&y=20").status == 204);
  CHECK(server.get("/value?seq=8&x=10&y=20").status == 204);  // not the newest picture
  CHECK(server.get("/value?seq=9&x=640&y=20").status == 204);
  CHECK(server.get("/value?seq=9").status == 400);
  CHECK(server.get("/value?seq=9&x=-1&y=2").status == 400);
}

// ---- settings and keys

TEST_CASE("posted settings are all taken, or none, with what is allowed") {
  Server server;
  const Reply good = server.post("/settings", R"({"colormap": "viridis", "fps": 0.5, "show_all": true, "window_size": 5,
                                                  "filter": "conv*", "page": "2"})");
  CHECK(good.status == 200);
  CHECK(Json::parse(good.body)["revision"] == server.get("/frame").number("x-beholder-revision"));
  const Settings now = server.settings().get();
  CHECK(now.colormap == Colormap::Viridis);
  CHECK(now.fps == 0.5);
  CHECK(now.show_all);
  CHECK(now.window_size == 5);
  CHECK(now.filter == "conv*");
  CHECK(now.page == 2);
  CHECK(server.post("/settings", "{}").status == 200);

  const std::vector<std::pair<std::string, std::string>> wrong = {
      {R"({"fps": 5, "colormap": "x"})",
       "colormap: expected one of magma, inferno, plasma, viridis, gray, diverging; found 'x'"},
      {R"({"fps": 61})", "fps: expected a number from 0 to 60; found '61'"},
      {R"({"fps": true})", "fps: expected no boolean; found true"},
      {R"({"fps": null})", "fps: expected a text, a number or a boolean; found null"},
      {R"({"fps": [1]})", "fps: expected a text, a number or a boolean; found array"},
      {R"({"window_size": 2.5})", "window_size: expected a whole number from 2 to 20; found '2.5'"},
      {R"({"show_all": "maybe"})", "show_all: expected on or off; found 'maybe'"},
      {R"({"nonsense": 1})", "unknown setting 'nonsense'"},
      {R"({"snapshot": 1})", "unknown setting 'snapshot'"},
      {R"([1])", "expected a JSON object of settings"},
      {R"({"fps": 1e999})", "expected JSON"},
      {R"({"fps": 5)", "expected JSON"},
      {"\xff\xfe", "expected JSON"},
      {std::string(60000, '['), "expected JSON"},
      {"{\"fps\": " + std::string(500, '[') + std::string(500, ']') + "}", "nested too deep"},
      {"{\"filter\": \"" + std::string(1001, 'x') + "\"}", "filter: expected at most 1000 characters"},
  };
  const uint64_t revision = server.settings().revision();
  for (const auto& [body, error] : wrong) {
    INFO(body.substr(0, 80));
    const Reply reply = server.post("/settings", body);
    CHECK(reply.status == 400);
    INFO(reply.body);
    CHECK(error_of(reply).find(error) != std::string::npos);
    CHECK(server.settings().get() == now);
  }
  CHECK(server.settings().revision() == revision);
}

TEST_CASE("every key of the table but the viewer's own does something by POST /action") {
  Server server;
  auto picture = network_picture(1);
  auto layout = std::make_shared<Layout>(*picture->layout);
  layout->pages = 3;
  picture->layout = layout;
  server.server.show(picture);
  for (const auto& control : controls()) {
    if (control.bindings.empty()) continue;
    INFO(control.name);
    Settings start;
    if (control.name == "pan" || control.name == "zoom") {
      start.solo = "fc.weight";
      start.zoom = 4;
    }
    if (control.name == "reset") start.fps = 3;
    server.settings().set(start);
    const std::string extra = control.name == "pan" ? R"(, "dx": 1, "dy": 0)" : "";
    const Reply reply = server.post("/action", R"({"control": ")" + control.name + "\"" + extra + "}");
    if (control.name == "help" || control.name == "quit") {
      CHECK(reply.status == 400);
      CHECK(server.settings().get() == start);
      continue;
    }
    CHECK(reply.status == 200);
    CHECK(Json::parse(reply.body)["revision"].is_number());
    if (control.name == "snapshot") {
      CHECK(fs::exists(Json::parse(reply.body)["path"].get<std::string>()));
    } else {
      CHECK(server.settings().get() != start);
    }
  }
  CHECK(server.post("/action", R"({"control": "colormap", "direction": 2})").status == 400);
  CHECK(server.post("/action", R"({"control": "colormap", "direction": "up"})").status == 400);
  CHECK(server.post("/action", R"({"control": "filter"})").status == 400);
  CHECK(server.post("/action", R"({"control": "nonsense"})").status == 400);
  CHECK(server.post("/action", R"({"control": 7})").status == 400);
  CHECK(server.post("/action", R"({"control": "solo_toggle", "section": "nonsense"})").status == 400);
  CHECK(server.post("/action", "").status == 400);
}

TEST_CASE("both signs of a key step back and forth") {
  Server server;
  server.show(1);
  server.post("/action", R"({"control": "colormap", "direction": -1})");
  CHECK(server.settings().get().colormap == Colormap::Diverging);
  server.post("/action", R"({"control": "colormap"})");
  CHECK(server.settings().get().colormap == Colormap::Magma);
  server.post("/action", R"({"control": "window_size", "direction": -1})");
  CHECK(server.settings().get().window_size == 14);
}

TEST_CASE("solo, and back to all; without a name the last one, else the first") {
  ActionContext context;
  context.names = {"a", "b", "c"};
  Settings s;
  KeyAction toggle;
  toggle.control = "solo_toggle";
  CHECK(apply(toggle, context, s) == "");
  CHECK(s.solo == "a");
  s.zoom = 8;
  s.pan_x = 0.5;
  CHECK(apply(toggle, context, s) == "");
  CHECK(s == Settings());
  context.last_solo = "c";
  CHECK(apply(toggle, context, s) == "");
  CHECK(s.solo == "c");
  toggle.section = "b";
  CHECK(apply(toggle, context, s) == "");
  CHECK(s.solo == "b");
  CHECK(apply(toggle, context, s) == "");
  CHECK(s.solo == "");
  toggle.section = "x";
  CHECK(apply(toggle, context, s) != "");
  CHECK(s == Settings());
  context.names.clear();
  context.last_solo = "gone";
  toggle.section.reset();
  CHECK(apply(toggle, context, s) != "");
}

TEST_CASE("the server remembers the last solo section") {
  Server server;
  server.show(1);
  server.post("/action", R"({"control": "solo_toggle", "section": "fc.weight"})");
  CHECK(server.settings().get().solo == "fc.weight");
  server.post("/action", R"({"control": "solo_toggle"})");
  CHECK(server.settings().get().solo == "");
  server.post("/action", R"({"control": "solo_toggle"})");
  CHECK(server.settings().get().solo == "fc.weight");
}

TEST_CASE("next goes round the sections in solo, and through the pages otherwise") {
  ActionContext context;
  context.names = {"a", "b", "c"};
  context.pages = 3;
  KeyAction next, previous;
  next.control = previous.control = "next";
  previous.direction = -1;
  Settings s;
  s.solo = "c";
  s.zoom = 3;
  apply(next, context, s);
  CHECK(s.solo == "a");
  CHECK(s.zoom == 1);
  apply(previous, context, s);
  CHECK(s.solo == "c");
  s.solo = "not there any more";
  apply(next, context, s);
  CHECK(s.solo == "a");
  s = Settings();
  for (int page : {1, 2, 2}) {
    apply(next, context, s);
    CHECK(s.page == page);
  }
  s.page = 90;  // of a network that had more
  apply(previous, context, s);
  CHECK(s.page == 1);
  context.pages = 1;
  apply(next, context, s);
  CHECK(s.page == 0);
}

TEST_CASE("zoom keeps the middle, pan stays inside, and neither does anything outside solo") {
  ActionContext context;
  KeyAction zoom, pan;
  zoom.control = "zoom";
  pan.control = "pan";
  pan.dx = 1;
  pan.dy = -1;
  Settings s;
  apply(zoom, context, s);
  apply(pan, context, s);
  CHECK(s == Settings());
  s.solo = "a";
  s.zoom = 4;
  s.pan_x = 0.2;
  s.pan_y = 0.5;
  const auto middle = [](double p, double z) { return p * (1 - 1 / z) + 0.5 / z; };
  const double before = middle(s.pan_x, s.zoom);
  apply(zoom, context, s);
  CHECK(s.zoom > 4);
  CHECK(middle(s.pan_x, s.zoom) == Catch::Approx(before));
  const double x = s.pan_x, y = s.pan_y;
  apply(pan, context, s);
  CHECK(s.pan_x > x);
  CHECK(s.pan_y < y);
  for (int i = 0; i < 1000; ++i) apply(pan, context, s);
  CHECK(s.pan_x == 1);
  CHECK(s.pan_y == 0);
  zoom.direction = -1;
  for (int i = 0; i < 20; ++i) apply(zoom, context, s);
  CHECK(s.zoom == 1);
  pan.dx = 2;
  CHECK(apply(pan, context, s) != "");
}

TEST_CASE("a snapshot is a new PNG with text, and none is no picture") {
  Server server;
  CHECK(server.post("/snapshot", "").status == 400);
  const auto picture = network_picture(3);
  server.server.show(picture);
  std::set<std::string> paths;
  for (int i = 0; i < 3; ++i) {
    const Reply reply = server.post("/snapshot", "");
    REQUIRE(reply.status == 200);
    paths.insert(Json::parse(reply.body)["path"].get<std::string>());
  }
  CHECK(paths.size() == 3);
  std::ifstream file(*paths.begin(), std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  CHECK(decoded(bytes, 640, 360) == pixels(captioned(*picture, ClassicText::Labels)->rgb));
  CHECK(fs::path(*paths.begin()).parent_path() == server.fake.run.directory);
  fs::remove_all(server.fake.run.directory);
  const Reply lost = server.post("/snapshot", "");
  CHECK(lost.status == 500);
  CHECK(error_of(lost).find("cannot write") != std::string::npos);
}

TEST_CASE("recording is switched, and toggled by an empty body") {
  Server server;
  CHECK(server.post("/record", R"({"on": true})").status == 200);
  CHECK(server.settings().get().recording);
  CHECK(server.post("/record", R"({"on": true})").status == 200);
  CHECK(server.settings().get().recording);
  CHECK(server.post("/record", "").status == 200);
  CHECK_FALSE(server.settings().get().recording);
  // As `curl -X POST` has it: no body and no length.
  CHECK(server.ask("POST /record HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + kToken + "\r\n\r\n").status ==
        200);
  CHECK(server.settings().get().recording);
  CHECK(server.post("/record", R"({"on": "yes"})").status == 400);
}

TEST_CASE("the stream is captioned jpegs, the newest only, and ends with its viewer") {
  Server server;
  server.show(1);
  Client client(server.port);
  std::string request = Server::request("GET", "/stream.mjpg");
  SECTION("as a browser asks") {}
  SECTION("as a proxy asks that knows no chunks") {
    const size_t version = request.find("HTTP/1.1");
    REQUIRE(version != std::string::npos);
    request.replace(version, 8, "HTTP/1.0");
  }
  client.send(request);
  const Reply head = client.read_head();
  REQUIRE(head.status == 200);
  CHECK(head.header("transfer-encoding").empty());
  CHECK(head.header("x-accel-buffering") == "no");
  const std::string type = head.header("content-type");
  const std::string prefix = "multipart/x-mixed-replace; boundary=";
  REQUIRE(type.compare(0, prefix.size(), prefix) == 0);
  const std::string boundary = "--" + type.substr(prefix.size()) + "\r\n";
  REQUIRE(client.read_bytes(boundary.size()) == boundary);
  for (uint64_t sequence : {1, 4}) {
    std::string part;
    while (part.find("\r\n\r\n") == std::string::npos) {
      const std::string one = client.read_bytes(1);
      REQUIRE(!one.empty());
      part += one;
    }
    CHECK(part.find("Content-Type: image/jpeg") == 0);
    const size_t length = std::stoul(part.substr(part.find("Content-Length: ") + 16));
    const auto picture = network_picture(sequence);
    const std::string pixels_there = decoded(client.read_bytes(length), 640, 360);
    CHECK(mean_difference(pixels_there, pixels(captioned(*picture, ClassicText::Labels)->rgb)) < kJpegDifference);
    // The end of a picture is there as soon as the picture: players need it to show it.
    REQUIRE(client.read_bytes(boundary.size() + 2, 5s) == "\r\n" + boundary);
    if (sequence == 1) server.show(4);
  }
  CHECK(eventually([&] { return server.server.state().viewers == 1; }));
  ::shutdown(client.descriptor(), SHUT_RDWR);
  CHECK(eventually([&] { return server.server.state().viewers == 0; }));
}

TEST_CASE("HEAD tells the size and sends nothing") {
  Server server;
  server.show(1);
  Client client(server.port);
  client.send(Server::request("HEAD", "/frame?format=raw") + Server::request("GET", "/frame?format=raw"));
  const Reply head = client.read(kDeadline, false);
  CHECK(head.status == 200);
  CHECK(head.number("content-length") == 640 * 360 * 3);
  CHECK(client.read().body.size() == 640u * 360u * 3u);  // the next answer follows at once
}

TEST_CASE("requests in one packet, and in many, are answered in their order") {
  Server server;
  server.show(1);
  Client client(server.port);
  client.send(Server::request("POST", "/settings", R"({"fps": 2})") + Server::request("GET", "/state") +
              Server::request("POST", "/settings", R"({"fps": 3})"));
  CHECK(client.read().status == 200);
  CHECK(Json::parse(client.read().body)["settings"]["fps"] == 2);
  CHECK(client.read().status == 200);
  for (const char byte : Server::request("POST", "/settings", R"({"fps": 4})")) client.send(std::string(1, byte));
  CHECK(client.read().status == 200);
  CHECK(server.settings().get().fps == 4);
  client.send(Server::request("POST", "/settings", R"({"fps": 5})",
                              "Expect: 100-continue\r\nAuthorization: Bearer " + kToken + "\r\n"));
  Reply reply = client.read_head();
  if (reply.status == 100) reply = client.read();
  CHECK(reply.status == 200);
  CHECK(server.settings().get().fps == 5);
}

TEST_CASE("a client that waits for 100 Continue before its body gets it") {
  Server server;
  Client client(server.port);
  const std::string body = R"({"fps": 5})";
  const std::string whole =
      Server::request("POST", "/settings", body, "Expect: 100-continue\r\nAuthorization: Bearer " + kToken + "\r\n");
  client.send(whole.substr(0, whole.size() - body.size()));
  CHECK(client.read_head().status == 100);
  client.send(body);
  CHECK(client.read().status == 200);
}

// ---- films

TEST_CASE("films are listed and served whole or in ranges, also while they grow") {
  Server server;
  const std::string directory = server.fake.run.directory;
  std::string film;
  for (int i = 0; i < 700000; ++i) film += static_cast<char>(i * 31 >> 3);
  std::ofstream(directory + "/video-20260101-120000.mp4", std::ios::binary) << film;
  std::ofstream(directory + "/video-20260101-120000.jsonl") << "{}\n";
  fs::create_directories(directory + "/video-frames-20260101-130000");
  const Json list = Json::parse(server.get("/recordings/").body);
  REQUIRE(list.size() == 1);
  CHECK(list[0]["name"] == "video-20260101-120000.mp4");
  CHECK(list[0]["bytes"] == film.size());
  CHECK(list[0]["time"].get<double>() > 1e9);

  const std::string path = "/recordings/video-20260101-120000.mp4";
  const Reply whole = server.get(path);
  CHECK(whole.status == 200);
  CHECK(whole.header("content-type") == "video/mp4");
  CHECK(whole.header("accept-ranges") == "bytes");
  CHECK(whole.body == film);
  CHECK(server.get("/recordings/video-20260101-120000.jsonl").body == "{}\n");
  std::ofstream(directory + "/video-20260101-120000.jsonl", std::ios::app) << "{\"fra";  // a line that was torn off
  CHECK(server.get("/recordings/video-20260101-120000.jsonl").body == "{}\n");

  const auto range = [&](const std::string& value) {
    return server.ask(
        Server::request("GET", path, "", "Range: bytes=" + value + "\r\nAuthorization: Bearer " + kToken + "\r\n"));
  };
  Reply part = range("100-299");
  CHECK(part.status == 206);
  CHECK(part.header("content-range") == "bytes 100-299/700000");
  CHECK(part.body == film.substr(100, 200));
  CHECK(range("699990-").body == film.substr(699990));
  CHECK(range("-10").body == film.substr(699990));
  CHECK(range("0-99999999").body == film);
  CHECK(range("5-5").body == film.substr(5, 1));
  part = range("700000-");
  CHECK(part.status == 416);
  CHECK(part.header("content-range") == "bytes */700000");

  std::ofstream(directory + "/video-20260101-120000.mp4", std::ios::binary | std::ios::app) << "more";
  CHECK(range("700000-").body == "more");
}

TEST_CASE("nothing but this run's films is served, by no name") {
  Server server;
  const fs::path directory = server.fake.run.directory;
  std::ofstream(directory / "video-1.mp4") << "film";
  std::ofstream(directory / "other.mp4") << "secret";
  std::ofstream(directory.parent_path() / "video-2.mp4") << "secret";
  fs::create_symlink(directory.parent_path() / "video-2.mp4", directory / "video-3.mp4");
  fs::create_directory(directory / "video-4.mp4");
  ::mkfifo((directory / "video-5.mp4").c_str(), 0600);
  REQUIRE(server.get("/recordings/video-1.mp4").status == 200);
  for (const char* name : {"other.mp4",
                           "live.json",
                           "video-2.mp4",
                           "video-3.mp4",
                           "video-4.mp4",
                           "video-5.mp4",
                           "../video-2.mp4",
                           "..%2fvideo-2.mp4",
                           "%2e%2e/video-2.mp4",
                           "%2e%2e%2fvideo-2.mp4",
                           "video-1.mp4%00",
                           "video-1.mp4/",
                           "./video-1.mp4",
                           "video-..%2f..%2fvideo-2.mp4",
                           "video-%2f..%2f..%2fvideo-2.mp4",
                           "..\\video-2.mp4",
                           "%252e%252e%252fvideo-2.mp4",
                           "/etc/passwd",
                           "video-1.mp4%0d%0aX: y",
                           ""}) {
    const Reply reply = server.get(std::string("/recordings/") + name);
    INFO(name << ": " << reply.body);
    CHECK((reply.status == 200) == std::string(name).empty());
    CHECK(reply.body.find("secret") == std::string::npos);
    CHECK(reply.body.find(kToken) == std::string::npos);
  }
  const Json list = Json::parse(server.get("/recordings/").body);
  CHECK(list.size() == 1);
}

// ---- who is let in

TEST_CASE("without the token nothing is answered or changed; query, header and cookie all do") {
  Server server;
  server.show(1);
  const std::vector<std::string> paths = {"/",
                                          "/page.js",
                                          "/page.css",
                                          "/frame",
                                          "/state",
                                          "/value?seq=1&x=1&y=1",
                                          "/stream.mjpg",
                                          "/recordings/",
                                          "/recordings/video-1.mp4",
                                          "/favicon.ico",
                                          "/nothing"};
  for (const auto& path : paths) {
    INFO(path);
    const Reply reply = server.ask(Server::request("GET", path, "", ""));
    CHECK(reply.status == 401);
    CHECK(reply.body.find("live.json") != std::string::npos);
    CHECK(reply.body.find(kToken) == std::string::npos);
    CHECK(reply.header("x-beholder-sequence") == "");
  }
  for (const char* path : {"/settings", "/action", "/snapshot", "/record"}) {
    INFO(path);
    CHECK(server.ask(Server::request("POST", path, R"({"fps": 3, "control": "fps"})", "")).status == 401);
  }
  CHECK(server.settings().revision() == 1);
  for (const std::string& wrong : {std::string("x"), kToken + "x", kToken.substr(1), std::string("")}) {
    INFO(wrong);
    CHECK(server.ask(Server::request("GET", "/state", "", "Authorization: Bearer " + wrong + "\r\n")).status == 401);
    CHECK(server.ask(Server::request("GET", "/state?token=" + wrong, "", "")).status == 401);
    CHECK(server.ask(Server::request("GET", "/?token=" + wrong, "", "")).header("set-cookie") == "");
  }
  CHECK(server.ask(Server::request("GET", "/state", "", "Authorization: Basic " + kToken + "\r\n")).status == 401);
  CHECK(server.ask(Server::request("GET", "/state?token=" + kToken, "", "")).status == 200);
  CHECK(server.get("/state").status == 200);
}

TEST_CASE("the URL with the token sets a cookie of this run and hides the token") {
  Server server;
  const Reply redirect = server.ask(Server::request("GET", "/?token=" + kToken, "", ""));
  CHECK(redirect.status == 302);
  CHECK(redirect.header("location") == "./");
  CHECK(redirect.header("referrer-policy") == "no-referrer");
  const std::string cookie = redirect.header("set-cookie");
  const std::string pair = cookie.substr(0, cookie.find(';'));
  CHECK(pair.find("beholder-") == 0);
  for (const char* part : {"; HttpOnly", "; SameSite=Strict"}) CHECK(cookie.find(part) != std::string::npos);
  CHECK(cookie.find("Path") == std::string::npos);
  const auto with_cookie = [&](const Server& one, const std::string& value) {
    return one.ask(Server::request("GET", "/state", "", "Cookie: " + value + "\r\n")).status;
  };
  CHECK(with_cookie(server, pair) == 200);
  CHECK(with_cookie(server, "a=b; " + pair + "; c=d") == 200);
  CHECK(with_cookie(server, pair + "x") == 401);
  CHECK(with_cookie(server, "beholder-x=" + kToken) == 401);
  // Another run on this machine has a cookie of its own, so that the two do not replace each other's.
  LiveServerOptions options;
  options.token = "another-token";
  Server other(options);
  const Reply second = other.ask(Server::request("GET", "/?token=another-token", "", ""));
  CHECK(second.status == 302);
  CHECK(second.header("set-cookie").substr(0, second.header("set-cookie").find('=')) != pair.substr(0, pair.find('=')));
  CHECK(with_cookie(other, pair) == 401);
}

TEST_CASE("only a loopback name is answered to, so that no stranger's name can be bent to this server") {
  Server server;
  const auto status = [&](const std::string& host) {
    return server.ask(Server::request("GET", "/state", "", "Authorization: Bearer " + kToken + "\r\n", host)).status;
  };
  for (const char* host : {"localhost", "localhost:6007", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:9999", "127.3.2.1",
                           "[::1]", "[::1]:6007"}) {
    INFO(host);
    CHECK(status(host) == 200);
  }
  for (const char* host :
       {"", "evil.example", "evil.example:6007", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.1.5:6007",
        "0.0.0.0", "localhost@evil.example", "[::1].evil.example", "[::2]", "::1", "localhost:abc", "1270.0.1"}) {
    INFO(host);
    CHECK(status(host) == 403);
  }
  CHECK(
      server.ask(Server::request("GET", "/state", "", "Host: evil.example\r\nAuthorization: Bearer " + kToken + "\r\n"))
          .status == 403);
}

TEST_CASE("a page of another origin changes nothing, even with the cookie") {
  Server server;
  const Reply redirect = server.ask(Server::request("GET", "/?token=" + kToken, "", ""));
  const std::string cookie =
      "Cookie: " + redirect.header("set-cookie").substr(0, redirect.header("set-cookie").find(';')) + "\r\n";
  const auto post = [&](const std::string& origin, const std::string& host) {
    return server
        .ask(Server::request("POST", "/settings", R"({"fps": 3})", "Origin: " + origin + "\r\n" + cookie, host))
        .status;
  };
  for (const char* origin : {"null", "http://evil.example", "https://localhost.evil.example", "http://localhost:8888",
                             "file://", "http://localhost:6007@evil.example", "http://127.0.0.1:6007"}) {
    INFO(origin);
    CHECK(post(origin, "localhost:6007") == 403);
    CHECK(server.settings().revision() == 1);
  }
  CHECK(post("http://localhost:6007", "localhost:6007") == 200);
  CHECK(post("http://127.0.0.1:9999", "127.0.0.1:9999") == 200);  // through a tunnel of another number
}

namespace {

/// A reverse proxy with nothing but this server behind it, below a path that the server is not told of.
class PrefixProxy {
 public:
  /// `host`: what it asks with; empty = what it was asked with.
  PrefixProxy(int server, std::string prefix, std::string host)
      : server_(server), prefix_(std::move(prefix)), host_(std::move(host)) {
    listening_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    REQUIRE(::bind(listening_, reinterpret_cast<const sockaddr*>(&at), size) == 0);
    REQUIRE(::listen(listening_, 16) == 0);
    REQUIRE(::getsockname(listening_, reinterpret_cast<sockaddr*>(&at), &size) == 0);
    port_ = ntohs(at.sin_port);
    thread_ = std::thread([this] {
      for (int client; (client = ::accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0; ::close(client)) {
        forward(client);
      }
    });
  }
  ~PrefixProxy() {
    ::shutdown(listening_, SHUT_RDWR);
    thread_.join();
    ::close(listening_);
  }
  PrefixProxy(const PrefixProxy&) = delete;
  PrefixProxy& operator=(const PrefixProxy&) = delete;

  int port() const { return port_; }

 private:
  /// One request, which the tests send in one piece, and its answer.
  void forward(int client) const {
    char bytes[65536];
    const ssize_t got = ::recv(client, bytes, sizeof bytes, 0);
    std::string request(bytes, static_cast<size_t>(std::max<ssize_t>(0, got)));
    const size_t path = request.find(' ') + 1;
    if (request.compare(path, prefix_.size(), prefix_) != 0) {
      answer(client, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
      return;
    }
    request.replace(path, prefix_.size(), "/");
    request.insert(request.find("\r\n") + 2, "Connection: close\r\n");
    if (!host_.empty()) {
      const size_t name = request.find("Host: ") + 6;
      request.replace(name, request.find("\r\n", name) - name, host_);
    }
    Client there(server_);
    there.send(request);
    for (std::string part; !(part = there.read_bytes(1)).empty();) answer(client, part);
  }
  static void answer(int client, const std::string& bytes) { ::send(client, bytes.data(), bytes.size(), MSG_NOSIGNAL); }

  const int server_;
  const std::string prefix_, host_;
  int listening_ = -1, port_ = 0;
  std::thread thread_;
};

/// The path that a browser asks for where a page at `page` names `reference`.
std::string resolved(const std::string& page, std::string reference) {
  if (reference.compare(0, 1, "/") == 0) return reference;
  if (reference.compare(0, 2, "./") == 0) reference.erase(0, 2);
  const std::string without_query = page.substr(0, page.find('?'));
  return without_query.substr(0, without_query.rfind('/') + 1) + reference;
}

/// What stands in the first group of each match.
std::vector<std::string> found_in(const std::string& text, const char* expression) {
  std::vector<std::string> found;
  const std::regex pattern(expression);
  for (std::sregex_iterator at(text.begin(), text.end(), pattern), end; at != end; ++at) found.push_back((*at)[1]);
  return found;
}

}  // namespace

TEST_CASE("the page, its cookie and all that it asks for stay below the path of a reverse proxy") {
  const std::string prefix = "/user/me/proxy/6007/";
  LiveServerOptions options;
  std::string asks_as;  // the proxy
  bool browser_says = true;
  SECTION("that asks by its own name, with a browser that says where a page is from") { asks_as = "localhost"; }
  SECTION("that asks by its own name, with its name allowed") {
    asks_as = "localhost";
    browser_says = false;
    options.allowed_hosts = {"hub.example"};
  }
  SECTION("that asks by the name it was asked by, which is allowed") {
    browser_says = false;
    options.allowed_hosts = {"hub.example"};
  }
  Server server(options);
  server.show(1);
  std::ofstream(server.fake.run.directory + "/video-1.mp4") << "a film";
  const PrefixProxy proxy(server.port, prefix, asks_as);
  std::string cookie;
  const auto ask = [&](const std::string& method, const std::string& path, const std::string& body = "") {
    Client client(proxy.port());
    const std::string headers =
        cookie + "Origin: https://hub.example\r\n" + (browser_says ? "Sec-Fetch-Site: same-origin\r\n" : "");
    client.send(Server::request(method, path, body, headers, "hub.example"));
    return client.read();
  };
  const Reply redirect = ask("GET", prefix + "?token=" + kToken);
  CHECK(redirect.status == 302);
  CHECK(resolved(prefix + "?token=" + kToken, redirect.header("location")) == prefix);
  const std::string set = redirect.header("set-cookie");
  CHECK(found_in(set, "[Pp]ath=([^;]*)").empty());  // then it is the folder of what was asked for: the prefix
  cookie = "Cookie: " + set.substr(0, set.find(';')) + "\r\n";

  const Reply page = ask("GET", prefix);
  REQUIRE(page.status == 200);
  std::string script;
  int files = 0;
  for (const auto& reference : found_in(page.body, R"re((?:href|src|action)="([^"]*)")re")) {
    if (reference.compare(0, 5, "data:") == 0 || reference == "stream.mjpg") continue;
    INFO(reference);
    const Reply file = ask("GET", resolved(prefix, reference));
    CHECK(file.status == 200);
    if (reference.find(".js") != std::string::npos) script = file.body;
    ++files;
  }
  CHECK(files == 2);
  CHECK(page.body.find("\"stream.mjpg\"") != std::string::npos);
  // Whatever the script asks for, in any way: no text in it is an absolute path.
  for (const auto& path : found_in(script, R"re(["'`](/[A-Za-z][^"'`]*))re")) FAIL_CHECK("an absolute path: " << path);
  std::set<std::string> asked;
  for (const auto& path : found_in(script, R"re((?:fetch|url)\("([^"]+)")re")) {
    INFO(path);
    const Reply reply = ask("GET", resolved(prefix, path) + (path == "value" ? "?seq=1&x=1&y=1" : ""));
    CHECK(reply.status == 200);
    asked.insert(path);
  }
  CHECK(asked == std::set<std::string>{"frame", "state", "value"});
  CHECK(ask("GET", resolved(prefix, "recordings/video-1.mp4")).body == "a film");
  CHECK(found_in(script, "`(recordings/)").size() == 1);
  for (const auto& [path, body] : std::vector<std::pair<std::string, std::string>>{
           {"settings", R"({"fps": 3})"}, {"action", R"({"control": "colormap"})"}, {"snapshot", ""}, {"record", ""}}) {
    INFO(path);
    CHECK(ask("POST", resolved(prefix, path), body).status == 200);
  }
  CHECK(server.settings().get().fps == 3);
  CHECK(ask("GET", "/state").status == 404);  // what is not below the path is not this server's
}

TEST_CASE("what a browser says of a page is believed for no other than its own") {
  Server server;
  for (const char* site : {"cross-site", "same-site", "none", "", "same-origin, cross-site"}) {
    INFO(site);
    CHECK(server
              .ask(Server::request("POST", "/settings", R"({"fps": 3})",
                                   "Origin: https://evil.example\r\nSec-Fetch-Site: " + std::string(site) +
                                       "\r\nAuthorization: Bearer " + kToken + "\r\n"))
              .status == 403);
  }
}

TEST_CASE("tokens are compared in whole, host names are read strictly") {
  CHECK(equal_in_constant_time("abc", "abc"));
  CHECK_FALSE(equal_in_constant_time("abd", "abc"));
  CHECK_FALSE(equal_in_constant_time("abcabc", "abc"));
  CHECK_FALSE(equal_in_constant_time("", "abc"));
  CHECK_FALSE(equal_in_constant_time("a", ""));
  CHECK(random_hex(32).size() == 64);
  CHECK(random_hex(32) != random_hex(32));
  CHECK(host_name("LocalHost:80") == "localhost");
  CHECK(host_name("[::1]:80") == "::1");
  CHECK(host_name("[::1]x") == "");
  CHECK(is_loopback_name("127.255.0.1"));
  CHECK_FALSE(is_loopback_name("128.0.0.1"));
  CHECK_FALSE(is_loopback_name("127.1"));  // some read it as 127.0.0.1: nobody needs it
  // Where the user asked for the network, its addresses are right, strangers' names are not.
  CHECK(is_own_host("192.168.1.5:6007", own_names("0.0.0.0", {})));
  CHECK_FALSE(is_own_host("192.168.1.5:6007", own_names("127.0.0.1", {})));
  CHECK_FALSE(is_own_host("evil.example", own_names("0.0.0.0", {})));
}

TEST_CASE("a server that the network may ask answers to its machine's names, and to those that the user allows") {
  char machine[256] = "";
  REQUIRE(::gethostname(machine, sizeof machine - 1) == 0);
  const std::string host = machine;
  std::string capitals = host;
  for (auto& c : capitals) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  addrinfo hints{}, *found = nullptr;
  hints.ai_flags = AI_CANONNAME;
  std::string full = host;
  if (::getaddrinfo(machine, nullptr, &hints, &found) == 0) {
    if (found->ai_canonname) full = found->ai_canonname;
    ::freeaddrinfo(found);
  }
  for (const char* address : {"0.0.0.0", "::", "192.168.1.5", "a-name-of-it"}) {
    INFO(address);
    const OwnNames names = own_names(address, {"Proxy.Example", "[fd00::1]"});
    for (const std::string& good :
         {std::string("localhost:1"), host, host + ":6007", capitals, full, std::string("192.168.1.5:6007"),
          std::string("[fe80::1]:6007"), std::string("proxy.example:443"), std::string("[FD00::1]")}) {
      INFO(good);
      CHECK(is_own_host(good, names));
    }
    for (const std::string& bad : {std::string(), std::string("evil.example"), host + ".evil.example", "evil-" + host,
                                   std::string("evil.proxy.example"), std::string("proxy.example.evil"), host + ":x"}) {
      INFO(bad);
      CHECK_FALSE(is_own_host(bad, names));
    }
  }
  CHECK(is_own_host("a-name-of-it", own_names("A-name-of-it", {})));
  // A name in full, as it stands in some resolvers' files and in some links.
  for (const std::string& good : {host + ".", host + ".:6007", full + ".", std::string("hub.example.:80"),
                                  std::string("dotted.example"), std::string("localhost.")}) {
    INFO(good);
    CHECK(is_own_host(good, own_names("0.0.0.0", {"hub.example", "dotted.example."})));
  }
  for (const char* bad : {".", "..", "hub.example..", "evil.example.", ":80", ".:80"}) {
    INFO(bad);
    CHECK_FALSE(is_own_host(bad, own_names("0.0.0.0", {"hub.example"})));
  }
  // Loopback alone has no other names, whatever the machine is called.
  CHECK(own_names("127.0.0.1", {}).own.empty());
  CHECK(own_names("LOCALHOST", {}).own.empty());
  CHECK(is_own_host("[fd00::1]", own_names("::1", {"fd00::1"})));

  LiveServerOptions options;
  options.address = "0.0.0.0";
  LogLines quiet;
  Server open(options);
  const auto ask = [&](const Server& server, const std::string& name) {
    return server.ask(Server::request("GET", "/state", "", "Authorization: Bearer " + kToken + "\r\n", name));
  };
  CHECK(ask(open, host + ":" + std::to_string(open.port)).status == 200);
  const Reply refused = ask(open, "evil.example:6007");
  CHECK(refused.status == 403);
  // What was found, what is right, and what to do.
  for (const std::string& part :
       {std::string("'evil.example:6007'"), std::string("localhost"), own_names("0.0.0.0", {}).own.at(0),
        std::string("plain IP addresses"), std::string("LiveServerOptions::allowed_hosts"),
        std::string("BEHOLDER_ALLOWED_HOSTS")}) {
    INFO(part << " in " << refused.body);
    CHECK(refused.body.find(part) != std::string::npos);
  }
  CHECK(ask(open, std::string(60, 'e') + "\x01" + std::string(60, 'e')).body.find('\x01') == std::string::npos);
}

TEST_CASE("the names that a user allows are right for requests and for pages, from the options or the environment") {
  const auto get = [](const Server& server, const std::string& host) {
    return server.ask(Server::request("GET", "/state", "", "Authorization: Bearer " + kToken + "\r\n", host)).status;
  };
  const auto post = [](const Server& server, const std::string& origin, const std::string& host) {
    return server
        .ask(Server::request("POST", "/settings", R"({"fps": 3})",
                             "Origin: " + origin + "\r\nAuthorization: Bearer " + kToken + "\r\n", host))
        .status;
  };
  const auto check = [&](const Server& server) {
    CHECK(get(server, "hub.example") == 200);
    CHECK(get(server, "HUB.example:8000") == 200);
    CHECK(get(server, "localhost") == 200);
    CHECK(get(server, "evil.example") == 403);
    CHECK(get(server, "hub.example.evil") == 403);
    CHECK(get(server, "192.168.1.5") == 403);
    CHECK(post(server, "https://hub.example", "hub.example") == 200);
    CHECK(post(server, "https://hub.example:8000", "localhost:6007") == 200);  // a proxy that asks by its own name
    CHECK(post(server, "https://evil.example", "hub.example") == 403);
    CHECK(post(server, "https://evil.example", "localhost:6007") == 403);
    CHECK(post(server, "file://hub.example", "localhost:6007") == 403);
    CHECK(post(server, "https://hub.example@evil.example", "localhost:6007") == 403);
  };
  LiveServerOptions options;
  options.allowed_hosts = {"Hub.Example"};
  {
    Server server(options);
    check(server);
  }
  ::setenv("BEHOLDER_ALLOWED_HOSTS", " other.example, hub.example ,http://bad:1,", 1);
  {
    LogLines lines;
    Server server;
    check(server);
    CHECK(get(server, "other.example") == 200);
    CHECK(lines.count("BEHOLDER_ALLOWED_HOSTS") == 1);
    CHECK(lines.count("'http://bad:1'") == 1);
    Server chosen(options);  // the option comes first
    CHECK(get(chosen, "hub.example") == 200);
    CHECK(get(chosen, "other.example") == 403);
  }
  ::unsetenv("BEHOLDER_ALLOWED_HOSTS");
}

// ---- what a client may cost

TEST_CASE("what is too large or no HTTP is refused, and the next request is answered") {
  Server server;
  const std::string bearer = "Authorization: Bearer " + kToken + "\r\n";
  const auto status = [&](const std::string& bytes) { return server.ask(bytes).status; };
  // Refused before it was sent: the body is not waited for.
  CHECK(status("POST /settings HTTP/1.1\r\nHost: localhost\r\n" + bearer + "Content-Length: 65537\r\n\r\n") == 413);
  CHECK(status("POST /settings HTTP/1.1\r\nHost: localhost\r\n" + bearer +
               "Content-Length: 99999999999999999999\r\n\r\n") == 413);
  CHECK(server.post("/settings", std::string(65537, ' ')).status == 413);
  CHECK(server.post("/settings", std::string(65536, ' ')).status == 200);
  CHECK(status("POST /settings HTTP/1.1\r\nHost: localhost\r\n" + bearer + "Content-Length: -5\r\n\r\n") == 400);
  CHECK(status("POST /settings HTTP/1.1\r\nHost: localhost\r\n" + bearer +
               "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ") == 400);
  CHECK(status("POST /settings HTTP/1.1\r\nHost: localhost\r\n" + bearer +
               "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n") == 411);
  CHECK(server.get("/" + std::string(5000, 'a')).status == 414);
  CHECK(server.get("/state?" + std::string(5000, 'a')).status == 414);
  CHECK(status("GET /" + std::string(100000, 'a')) == 414);
  CHECK(server.ask(Server::request("GET", "/state", "", bearer + "X: " + std::string(5000, 'a') + "\r\n")).status ==
        431);
  std::string many;
  for (int i = 0; i < 100; ++i) many += "X-" + std::to_string(i) + ": y\r\n";
  CHECK(server.ask(Server::request("GET", "/state", "", bearer + many)).status == 431);
  CHECK(status("\x16\x03\x01\x02garbage\r\n\r\n") == 400);  // TLS
  CHECK(status("GET / HTTP/1.1\nHost: localhost\n\n\r\n\r\n") == 400);
  CHECK(status("GET / HTTP/1.1\r\nHost: localhost\r\nX: a\nAuthorization: b\r\n\r\n") == 400);
  CHECK(status(std::string("GET /\0 HTTP/1.1\r\n\r\n", 20)) == 400);
  CHECK(status("NONSENSE\r\n\r\n") == 400);
  CHECK(status("GET / HTTP/9.9\r\nHost: localhost\r\n\r\n") >= 400);
  for (const char* method : {"PUT", "DELETE", "OPTIONS", "PATCH"}) {
    INFO(method);
    CHECK(server.ask(Server::request(method, "/settings", "{}")).status == 405);
  }
  CHECK(server.get("/settings").status == 404);
  CHECK(server.get("/state").status == 200);
  // A body that expands is not expanded.
  CHECK(
      server.ask(Server::request("POST", "/settings", "\x1f\x8b\x08", bearer + "Content-Encoding: gzip\r\n")).status ==
      400);
  CHECK(server.settings().revision() == 1);
}

TEST_CASE("random bytes never end the server") {
  Server server;
  std::minstd_rand random(7);
  for (int i = 0; i < 200; ++i) {
    Client client(server.port);
    std::string bytes;
    for (int n = static_cast<int>(random() % 3000); n > 0; --n) bytes += static_cast<char>(random() >> 7);
    if (i % 2) bytes = "GET /frame?" + bytes;
    if (i % 3 == 0) bytes += "\r\n\r\n";
    client.send(bytes);
    if (i % 5 == 0) client.read_head(20ms);
  }
  CHECK(server.get("/state").status == 200);
}

TEST_CASE("connections that say nothing, or never finish their request, keep nobody out") {
  LiveServerOptions options;
  options.max_viewers = 8;
  Server server(options);
  std::vector<std::unique_ptr<Client>> silent;
  for (int i = 0; i < 300; ++i) {
    silent.push_back(std::make_unique<Client>(server.port));
    if (i % 2) silent.back()->send("POST /settings HTTP/1.1\r\nHost: localhost\r\nX-Slow: ");
  }
  CHECK(server.post("/settings", R"({"fps": 3})").status == 200);
  CHECK(server.server.state().connections <= 2 * 8 + 64);
  CHECK(server.server.state().threads <= 8 + 4);
}

TEST_CASE("viewers beyond the limit are told to come again, while settings still go through") {
  LiveServerOptions options;
  options.max_viewers = 6;
  Server server(options);
  server.show(1);
  std::vector<std::unique_ptr<Client>> viewers;
  for (int i = 0; i < 6; ++i) {
    viewers.push_back(std::make_unique<Client>(server.port));
    viewers.back()->send(Server::request("GET", i % 2 ? "/frame?after=1&timeout_ms=20000" : "/stream.mjpg"));
  }
  REQUIRE(eventually([&] { return server.server.state().viewers == 6; }));
  const Reply refused = server.get("/frame");
  CHECK(refused.status == 503);
  CHECK(refused.header("retry-after") == "2");
  CHECK(server.get("/stream.mjpg").status == 503);
  for (int i = 1; i <= 20; ++i) {
    CHECK(server.post("/settings", "{\"window_size\": " + std::to_string(2 + i % 10) + "}").status == 200);
    CHECK(server.get("/state").status == 200);
  }
  CHECK(server.server.state().threads <= 6 + 4);
  CHECK(server.state()["counters"]["viewers"] == 6);
  // One that goes while it waits makes room at once.
  viewers[1].reset();
  CHECK(eventually([&] { return server.server.state().viewers == 5; }));
  CHECK(server.get("/frame").status == 200);
  viewers.clear();
  CHECK(eventually([&] { return server.server.state().viewers == 0 && server.server.state().connections == 0; }));
}

TEST_CASE("viewers that stall hold up neither show(), nor each other, nor settings") {
  Server server;
  std::vector<std::unique_ptr<Client>> stalled;
  for (int i = 0; i < 20; ++i) {
    stalled.push_back(std::make_unique<Client>(server.port, 4096));
    stalled.back()->send(Server::request("GET", i % 2 ? "/frame?after=0&format=raw" : "/stream.mjpg"));
  }
  // Large enough not to fit into the kernel's buffers.
  uint64_t sequence = 0;
  const auto show_large = [&] { server.server.show(network_picture(++sequence, 1920, 1080)); };
  show_large();
  REQUIRE(eventually([&] { return server.server.state().viewers == 20; }));
  Client lively(server.port);
  for (int i = 0; i < 10; ++i) {
    const auto picture = network_picture(++sequence, 1920, 1080);
    CHECK(seconds_of([&] { server.server.show(picture); }) < (kSanitized ? 10 : 1));
    lively.send(Server::request("GET", "/frame?format=raw&after=" + std::to_string(sequence - 1)));
    CHECK(lively.read().number("x-beholder-sequence") == static_cast<int64_t>(sequence));
    CHECK(server.post("/settings", "{\"window_size\": " + std::to_string(2 + i) + "}").status == 200);
  }
  // Short answers that nobody takes need no thread either.
  std::vector<std::unique_ptr<Client>> deaf;
  for (int i = 0; i < 30; ++i) {
    deaf.push_back(std::make_unique<Client>(server.port, 4096));
    for (int k = 0; k < 40; ++k) deaf.back()->send(Server::request("GET", "/state"));
  }
  CHECK(server.post("/settings", R"({"fps": 3})").status == 200);
  CHECK(seconds_of([&] { server.server.close(); }) < (kSanitized ? 20 : 3));
}

TEST_CASE("a viewer that takes nothing is given up after a while", "[.long]") {
  Server server;
  Client stalled(server.port, 4096);
  stalled.send(Server::request("GET", "/frame?after=0&format=raw"));
  server.server.show(network_picture(1, 1920, 1080));
  REQUIRE(eventually([&] { return server.server.state().viewers == 1; }));
  CHECK(eventually([&] { return server.server.state().viewers == 0; }));
}

TEST_CASE("what the server's threads use is billed to the run, whoever asks for it") {
  FakeRun run;
  std::atomic<double> billed{0};  // changed by several threads: added to in a loop
  run.run.bill = [&](double seconds) {
    for (double before = billed; !billed.compare_exchange_weak(before, before + seconds);) {
    }
  };
  Server server({}, &run);
  const auto costs = [&](const std::function<void()>& asks) {
    const double before = billed;
    asks();
    return eventually([&] { return billed > before; });
  };
  server.show(1);
  CHECK(costs([&] { CHECK(server.get("/frame?format=png&captions=1").status == 200); }));
  CHECK(costs([&] { CHECK(server.get("/state").status == 200); }));
  CHECK(costs([&] { CHECK(server.ask(Server::request("GET", "/state", "", "")).status == 401); }));
  // As much as the state says that was used.
  server.show(2);
  const double before = billed;
  for (int i = 0; i < 20; ++i) {
    server.show(static_cast<uint64_t>(3 + i));
    CHECK(server.get("/frame?format=png").status == 200);
  }
  CHECK(billed - before > 20 * 0.0002);  // a PNG of 640 x 360 takes more than a millisecond
}

TEST_CASE("viewers leave half of the budget of all threads to the pictures") {
  const auto share = [](double all, double max_cpu) {
    FakeRun run;
    run.max_background = all;
    LiveServerOptions options;
    options.max_cpu = max_cpu;
    Server server(options, &run);
    return server.state()["counters"]["max_server_cpu"].get<double>();
  };
  CHECK(share(0.1, 0.3) == 0.05);
  CHECK(share(0.1, 0.01) == 0.01);
  CHECK(share(0, 0.3) == 0.3);
}

TEST_CASE("what the server's threads use is billed by their own clocks") {
  FakeRun run;
  std::atomic<int64_t> billed_ns{0};
  run.run.bill = [&](double seconds) { billed_ns += static_cast<int64_t>(1e9 * seconds); };
  Server server({}, &run);
  const auto used = [] {
    double seconds = 0;
    for (const auto& thread : own_threads()) {
      if (thread.name.rfind("bh live", 0) == 0) seconds += thread.cpu_seconds;
    }
    return seconds;
  };
  // Pictures, states and what is refused, on connections that stay.
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(std::make_unique<Client>(server.port));
  uint64_t sequence = 0;
  REQUIRE(eventually([&] {
    server.show(++sequence);
    for (auto& client : clients) {
      for (const char* path : {"/frame?format=png&captions=1", "/state", "/nothing"}) {
        client->send(Server::request("GET", path));
        client->read();
      }
    }
    return used() > 0.3;
  }));
  const double of_clocks = used();
  CHECK(eventually([&] { return 1e-9 * static_cast<double>(billed_ns.load()) > 0.85 * of_clocks; }));
}

TEST_CASE("the budget makes pictures fewer, and settings none the slower") {
  LiveServerOptions options;
  options.max_cpu = 0.01;
  Server server(options);
  std::atomic<bool> stop{false};
  std::atomic<int> pictures{0};
  std::vector<std::thread> viewers;
  for (int i = 0; i < 4; ++i) {
    viewers.emplace_back([&] {
      Client client(server.port);
      int64_t after = 0;
      while (!stop) {
        client.send(Server::request("GET", "/frame?format=png&after=" + std::to_string(after)));
        const Reply reply = client.read();
        if (reply.status != 200) continue;
        after = reply.number("x-beholder-sequence");
        ++pictures;
      }
    });
  }
  uint64_t shown = 0;
  double slowest = 0;
  for (const auto end = Clock::now() + 3s; Clock::now() < end;) {
    server.show(++shown);
    slowest = std::max(slowest, seconds_of([&] {
                         server.post("/settings", "{\"window_size\": " + std::to_string(2 + shown % 10) + "}");
                       }));
    std::this_thread::sleep_for(10ms);
  }
  stop = true;
  server.server.close();
  for (auto& viewer : viewers) viewer.join();
  CHECK(pictures > 0);
  CHECK(pictures < static_cast<int>(shown) * 2);  // of four times as many
  CHECK(slowest < (kSanitized ? 20 : 2));
}

TEST_CASE("threads that serve viewers stand behind the training's") {
  const int niceness = ::getpriority(PRIO_PROCESS, 0);
  Server server;
  server.show(1);
  Client client(server.port);
  client.send(Server::request("GET", "/frame?format=png"));
  CHECK(client.read().status == 200);
  const auto threads = own_threads();
  CHECK(threads.size() >= 2);
  for (const OwnThread& thread : threads) {
    INFO(thread.name);
    CHECK(thread.policy != SCHED_OTHER);
    CHECK(thread.niceness == 19);
  }
  CHECK(::getpriority(PRIO_PROCESS, 0) == niceness);
}

TEST_CASE("idle cores are what the system says") {
  double idle = 0, machine = 0;
  idle_cores("cpu  100 0 50 800 50 0 0 0 7 7", 4, idle, machine);
  CHECK(idle_cores("cpu  200 50 50 850 50 0 0 0 9 9", 4, idle, machine) == Catch::Approx(1));
  CHECK(idle_cores("cpu  200 50 50 900 100 0 0 0 9 9", 4, idle, machine) == Catch::Approx(4));
  CHECK(idle_cores("cpu  200 50 50 900 100 0 0 0 9 9", 4, idle, machine) < 0);  // no time has passed
  CHECK(idle_cores("nonsense", 4, idle, machine) < 0);
  CHECK(idle_cores("", 4, idle, machine) < 0);
}

TEST_CASE("a client that vanishes while it is sent to ends nothing, whatever SIGPIPE does") {
  struct sigaction before {
  }, after{};
  ::sigaction(SIGPIPE, nullptr, &before);
  Server server;
  ::sigaction(SIGPIPE, nullptr, &after);
  CHECK(before.sa_handler == after.sa_handler);
  REQUIRE(after.sa_handler == SIG_DFL);  // would end this test
  for (int i = 0; i < 20; ++i) {
    auto client = std::make_unique<Client>(server.port, 4096);
    client->send(Server::request("GET", i % 2 ? "/frame?after=0&format=raw" : "/stream.mjpg"));
    server.server.show(network_picture(static_cast<uint64_t>(i) + 1, 1920, 1080));
    client->read_head(50ms);
    const linger reset{1, 0};  // RST instead of FIN
    ::setsockopt(client->descriptor(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    client.reset();
  }
  CHECK(eventually([&] { return server.server.state().viewers == 0; }));
  CHECK(server.get("/state").status == 200);
}

// ---- beginning and end

namespace {

/// A port that nobody has now, and that no server takes by itself (6007 and the next ones).
int free_port() {
  const int descriptor = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  const bool bound = ::bind(descriptor, reinterpret_cast<sockaddr*>(&address), length) == 0 &&
                     ::getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &length) == 0;
  ::close(descriptor);
  return bound ? ntohs(address.sin_port) : 0;
}

}  // namespace

TEST_CASE("it ends within a second, whoever waits, streams, stalls or says nothing; nothing is left") {
  const int descriptors = open_descriptors(), threads = threads_of_this_process();
  double fastest = 1e9;  // of three: the machine may be busy
  for (int round = 0; round < 3; ++round) {
    LiveServerOptions options;
    options.port = free_port();  // another program's server may take the usual ones when this one has closed
    Server server(options);
    server.server.show(network_picture(1, 1920, 1080));
    std::vector<std::unique_ptr<Client>> clients;
    for (int i = 0; i < 40; ++i) {
      clients.push_back(std::make_unique<Client>(server.port, 4096));
      const char* paths[] = {"/frame?after=1", "/stream.mjpg", "/frame?format=raw", "/frame?after=99&timeout_ms=20000"};
      if (i % 5 < 4) clients.back()->send(Server::request("GET", paths[i % 5]));
    }
    REQUIRE(eventually([&] { return server.server.state().viewers >= 32; }));
    fastest = std::min(fastest, seconds_of([&] { server.server.close(); }));
    CHECK(server.server.state().url == "");
    for (auto& client : clients) CHECK(client->closed_within(5s));
    CHECK_THROWS(Client(server.port));
    server.server.close();  // again
  }
  CHECK(fastest < (kSanitized ? 10 : 1));
  CHECK(eventually([&] { return open_descriptors() == descriptors && threads_of_this_process() == threads; }));
}

TEST_CASE("it ends whenever it is told to, also while its loop has just been woken by something else") {
  struct Progress {
    std::atomic<int> rounds{0};
    std::atomic<bool> done{false};
  };
  const auto progress = std::make_shared<Progress>();  // outlives a thread that hangs
  const int wished = kSanitized ? 1000 : 5000;
  std::thread([progress, wished] {
    for (; progress->rounds < wished; ++progress->rounds) {
      const int listening = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
      sockaddr_in at{};
      at.sin_family = AF_INET;
      at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      socklen_t size = sizeof at;
      ::bind(listening, reinterpret_cast<const sockaddr*>(&at), size);
      ::listen(listening, 8);
      ::getsockname(listening, reinterpret_cast<sockaddr*>(&at), &size);
      ConnectionLimits limits;
      limits.max_threads = limits.max_connections = 4;
      LiveConnections connections(
          listening, limits, [](Exchange& exchange) { exchange.write("HTTP/1.1 204 No Content\r\n\r\n", 27); }, [] {},
          [](double) {});
      if (progress->rounds % 2 != 0) {  // a client that asks and is gone
        Client client(ntohs(at.sin_port));
        client.send("GET / HTTP/1.1\r\n\r\n");
      }
      const auto end = Clock::now() + std::chrono::microseconds(progress->rounds * 7 % 300);
      while (Clock::now() < end) {
      }
      connections.stop(0ms);
    }
    progress->done = true;
  }).detach();
  int before = -1;
  while (!progress->done && std::exchange(before, progress->rounds.load()) != progress->rounds) {
    for (const auto end = Clock::now() + kDeadline;
         !progress->done && progress->rounds == before && Clock::now() < end;) {
      std::this_thread::sleep_for(10ms);
    }
  }
  CHECK(progress->rounds == wished);
}

TEST_CASE("a taken port is passed over by default, and one clear error where it was asked for") {
  Server first;
  Server second;
  CHECK(first.port != second.port);
  CHECK(first.port >= 6007);
  CHECK(second.port >= 6007);
  LiveServerOptions options;
  options.port = first.port;
  LiveServer third(options);
  FakeRun run;
  try {
    third.open(run.run);
    FAIL("opened a port that is taken");
  } catch (const std::runtime_error& e) {
    const std::string text = e.what();
    CHECK(text.find("port " + std::to_string(first.port) + " is taken") != std::string::npos);
    CHECK(text.find('\n') == std::string::npos);
  }
  CHECK(third.state().url == "");
  CHECK_FALSE(fs::exists(run.run.directory + "/live.json"));
  first.server.close();
  third.open(run.run);  // free again at once, with connections of before still in the kernel
  CHECK(third.state().port == options.port);
  LiveServerOptions elsewhere;
  elsewhere.address = "203.0.113.1";  // nobody's
  LiveServer fourth(elsewhere);
  CHECK_THROWS_WITH(fourth.open(run.run), Catch::Contains("cannot listen at 203.0.113.1"));
}

TEST_CASE("without a token of the user's, each server has a random one of 256 bits") {
  FakeRun run, other;
  LiveServer a, b;
  a.open(run.run);
  b.open(other.run);
  CHECK(a.state().token.size() == 64);
  CHECK(a.state().token != b.state().token);
  CHECK(a.state().url == "http://127.0.0.1:" + std::to_string(a.state().port) + "/?token=" + a.state().token);
}

TEST_CASE("live.json tells this user alone where the server is, and goes with it") {
  FakeRun run;
  const std::string path = run.run.directory + "/live.json";
  Server server({}, &run);
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  const auto there = read_live_file(run.run.directory);
  REQUIRE(there);
  CHECK(there->address == "127.0.0.1");
  CHECK(there->port == server.port);
  CHECK(there->token == kToken);
  CHECK(there->pid == ::getpid());
  CHECK(there->started > 1e9);
  CHECK(there->nonce == server.state()["run"]["nonce"]);
  CHECK(answers(*there));
  const auto newest = newest_live_run(run.run.logdir);
  REQUIRE(newest);
  CHECK(newest->nonce == there->nonce);
  CHECK(std::distance(fs::directory_iterator(run.run.directory), fs::directory_iterator()) == 1);
  server.server.close();
  CHECK_FALSE(fs::exists(path));
  CHECK_FALSE(answers(*there));
  CHECK_FALSE(newest_live_run(run.run.logdir));
}

TEST_CASE("a live.json that nobody lives behind is replaced, one of a living server is kept") {
  FakeRun run;
  const auto write = [&](int64_t pid, int port, const std::string& nonce) {
    std::ofstream(run.run.directory + "/live.json")
        << Json({{"address", "127.0.0.1"}, {"port", port}, {"token", kToken}, {"pid", pid}, {"nonce", nonce}}).dump();
  };
  // A process that is gone; one that lives without such a server; another server at that port.
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ::waitpid(child, nullptr, 0);
  Server other;
  int dead_port;
  {
    Server closed;
    dead_port = closed.port;
  }
  for (const auto& [pid, port] :
       std::vector<std::pair<int64_t, int>>{{child, other.port}, {::getpid(), dead_port}, {::getpid(), other.port}}) {
    write(pid, port, "0123456789abcdef");
    Server server({}, &run);
    const auto there = read_live_file(run.run.directory);
    REQUIRE(there);
    CHECK(there->port == server.port);
  }
  std::ofstream(run.run.directory + "/live.json") << "{ not json";
  {
    Server server({}, &run);
    CHECK(read_live_file(run.run.directory)->port == server.port);
    LogLines lines;
    Server second({}, &run);
    CHECK(lines.count("another live server serves") == 1);
    CHECK(second.get("/state").status == 200);
    CHECK(read_live_file(run.run.directory)->port == server.port);
    second.server.close();
    CHECK(read_live_file(run.run.directory)->port == server.port);
    // Somebody else's by now: not ours to remove.
    write(::getpid(), other.port, "of another server");
  }
  CHECK(read_live_file(run.run.directory)->nonce == "of another server");
}

TEST_CASE("a live.json whose process id another process has by now shadows nothing") {
  TemporaryFolder folder;
  const auto run_in = [&](const std::string& name) {
    auto run = std::make_unique<FakeRun>();
    run->run.logdir = (folder.path / name).string();
    run->run.directory = (folder.path / name / "plugins" / "beholder").string();
    fs::create_directories(run->run.directory);
    return run;
  };
  const auto living = run_in("living"), stale = run_in("stale");
  Server server({}, living.get());
  const auto here = read_live_file(living->run.directory);
  REQUIRE(here);
  CHECK(here->pid_started > 0);
  CHECK(here->boot_id.size() == 36);
  CHECK(process_exists(*here));
  CHECK(is_of_this_process(*here));

  // This process has the number, but it is not the one that wrote the file. The file is newer than the living run's.
  const auto write = [&](const Json& identity) {
    Json json = {{"address", "127.0.0.1"}, {"port", server.port}, {"token", kToken},
                 {"pid", ::getpid()},      {"nonce", "stale"},    {"started", here->started + 100}};
    json.update(identity);
    std::ofstream(stale->run.directory + "/live.json") << json.dump();
    const auto there = read_live_file(stale->run.directory);
    REQUIRE(there);
    return *there;
  };
  const auto newest = [&](bool check) { return newest_live_run(folder.path.string(), check)->nonce; };
  for (const Json& identity :
       {Json{{"pid_started", here->pid_started - 1}, {"boot_id", here->boot_id}},
        Json{{"pid_started", here->pid_started}, {"boot_id", "00000000-0000-0000-0000-000000000000"}},
        Json{{"pid_started", here->pid_started + 1}}, Json{{"boot_id", "another"}}}) {
    INFO(identity.dump());
    const LiveRun there = write(identity);
    CHECK_FALSE(process_exists(there));
    CHECK_FALSE(is_of_this_process(there));
    CHECK_FALSE(answers(there));
    CHECK(newest(true) == here->nonce);
    CHECK(newest(false) == here->nonce);
  }
  // One of an older version does not say: its server is asked.
  const LiveRun old = write(Json::object());
  CHECK(process_exists(old));
  CHECK_FALSE(answers(old));
  CHECK(newest(true) == here->nonce);
  CHECK(newest(false) == here->nonce);
  server.server.close();
  CHECK(newest(false) == "stale");  // nothing better is there: who follows it asks again and again
  CHECK_FALSE(newest_live_run(folder.path.string(), true));
  // Of such a process nothing is kept.
  write({{"pid_started", here->pid_started - 1}, {"boot_id", here->boot_id}});
  Server next({}, stale.get());
  CHECK(read_live_file(stale->run.directory)->port == next.port);
  for (const Json& wrong : {Json{{"pid_started", "soon"}}, Json{{"boot_id", 7}}}) {
    std::ofstream(living->run.directory + "/live.json") << wrong.dump();
    CHECK_FALSE(read_live_file(living->run.directory));
  }
}

TEST_CASE("a process that has ended is none, reaped or not; one whose first thread has ended is one") {
  TemporaryFolder folder;
  FakeRun living;
  living.run.logdir = (folder.path / "living").string();
  living.run.directory = living.run.logdir + "/plugins/beholder";
  const std::string killed = (folder.path / "killed").string(), killed_directory = killed + "/plugins/beholder";
  fs::create_directories(living.run.directory);
  fs::create_directories(killed_directory);
  Server server({}, &living);
  // The start of another process, as its file would say it.
  const auto started = [](pid_t pid) {
    std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
    std::string text((std::istreambuf_iterator<char>(stat)), {}), field;
    std::istringstream fields(text.substr(text.rfind(')') + 1));
    for (int i = 3; i <= 22; ++i) fields >> field;
    return std::stoull(field);
  };
  const auto write = [&](pid_t pid, bool certain) {
    LiveRun run = *read_live_file(living.run.directory);
    run.pid = pid;
    run.nonce = "killed";
    run.started += 100;
    run.pid_started = certain ? started(pid) : 0;
    if (!certain) run.boot_id.clear();
    fs::remove(killed_directory + "/live.json");
    write_live_file(killed_directory, run);
    return run;
  };
  const std::string here = read_live_file(living.run.directory)->nonce;

  const pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // where a check below ends the test
    for (;;) ::pause();
  }
  REQUIRE(child > 0);
  for (const bool certain : {true, false}) CHECK(process_exists(write(child, certain)));
  REQUIRE(::kill(child, SIGKILL) == 0);
  siginfo_t ended{};
  REQUIRE(::waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT) == 0);
  REQUIRE(::kill(child, 0) == 0);  // still has its number
  for (const bool certain : {true, false}) {
    CHECK_FALSE(process_exists(write(child, certain)));
    CHECK(newest_live_run(folder.path.string(), false)->nonce == here);
  }
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  CHECK(newest_live_run(folder.path.string(), false)->nonce == here);

  // No number of a process.
  for (const int64_t pid : {int64_t{0}, int64_t{-1}, int64_t{1} << 32, (int64_t{1} << 32) + ::getpid()}) {
    std::ofstream(killed_directory + "/live.json")
        << Json{{"address", "127.0.0.1"}, {"port", 1}, {"token", kToken}, {"pid", pid}, {"nonce", "n"}}.dump();
    CHECK_FALSE(read_live_file(killed_directory));
  }

#ifndef __SANITIZE_THREAD__  // which allows no thread after a fork
  const pid_t headless = ::fork();
  if (headless == 0) {
    std::thread([] {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (;;) ::pause();
    }).detach();
    ::syscall(SYS_exit, 0);  // this thread alone
  }
  REQUIRE(headless > 0);
  const auto state_is_zombie = [&] {
    std::ifstream stat("/proc/" + std::to_string(headless) + "/stat");
    const std::string text((std::istreambuf_iterator<char>(stat)), {});
    return text.compare(text.rfind(')') + 2, 1, "Z") == 0;
  };
  const auto deadline = Clock::now() + kDeadline;
  while (!state_is_zombie() && Clock::now() < deadline) std::this_thread::sleep_for(5ms);
  CHECK(state_is_zombie());
  for (const bool certain : {true, false}) CHECK(process_exists(write(headless, certain)));
  CHECK(::kill(headless, SIGKILL) == 0);
  CHECK(::waitpid(headless, nullptr, 0) == headless);
#endif
}

TEST_CASE("the newest living run below a folder is found") {
  TemporaryFolder folder;
  std::vector<std::unique_ptr<FakeRun>> runs;
  std::vector<std::unique_ptr<Server>> servers;
  for (const char* name : {"a", "deeper/b", "c"}) {
    runs.push_back(std::make_unique<FakeRun>());
    runs.back()->run.logdir = (folder.path / name).string();
    runs.back()->run.directory = (folder.path / name / "plugins" / "beholder").string();
    fs::create_directories(runs.back()->run.directory);
    servers.push_back(std::make_unique<Server>(LiveServerOptions(), runs.back().get()));
  }
  CHECK(newest_live_run(folder.path.string())->port == servers[2]->port);
  servers[2].reset();
  CHECK(newest_live_run(folder.path.string())->port == servers[1]->port);
  CHECK(newest_live_run(folder.path.string())->directory == runs[1]->run.directory);
  servers.clear();
  CHECK_FALSE(newest_live_run(folder.path.string()));
  CHECK_FALSE(newest_live_run((folder.path / "not there").string()));
}

TEST_CASE("a folder that cannot be written is one warning") {
  FakeRun run(false);
  LogLines lines;
  Server server({}, &run);
  CHECK(lines.count("live.json") == 1);
  CHECK(server.get("/state").status == 200);
}

TEST_CASE("one log line has the URL, and without a display the tunnel") {
  const auto line_with = [](const char* display) {
    const char* before_x = std::getenv("DISPLAY");
    const char* before_wayland = std::getenv("WAYLAND_DISPLAY");
    const std::string x = before_x ? before_x : "", wayland = before_wayland ? before_wayland : "";
    ::unsetenv("WAYLAND_DISPLAY");
    ::setenv("DISPLAY", display, 1);
    LogLines lines;
    { Server server; }
    before_x ? ::setenv("DISPLAY", x.c_str(), 1) : ::unsetenv("DISPLAY");
    if (before_wayland) ::setenv("WAYLAND_DISPLAY", wayland.c_str(), 1);
    REQUIRE(lines.all().size() == 1);
    return lines.all()[0];
  };
  const std::string with = line_with(":0"), without = line_with("");
  CHECK(with.find("http://127.0.0.1:") != std::string::npos);
  CHECK(with.find("/?token=" + kToken) != std::string::npos);
  CHECK(with.find("ssh") == std::string::npos);
  CHECK(without.find("/?token=" + kToken) != std::string::npos);
  const size_t ssh = without.find("ssh -L ");
  REQUIRE(ssh != std::string::npos);
  const std::string port = without.substr(without.find("127.0.0.1:") + 10, 4);
  CHECK(without.find("ssh -L " + port + ":localhost:" + port + " ") == ssh);
  CHECK(without.find('@', ssh) != std::string::npos);
  CHECK(without.find('\n') == std::string::npos);
}

// ---- other people's programs

namespace {

/// What a program prints; its exit status in `status`.
std::string output_of(const std::string& command, int& status) {
  std::string text;
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  REQUIRE(pipe);
  char part[4096];
  while (const size_t n = std::fread(part, 1, sizeof part, pipe)) text.append(part, n);
  status = ::pclose(pipe);
  return text;
}

}  // namespace

TEST_CASE("curl reads every path, and keeps its cookie") {
  Server server;
  server.show(1);
  std::ofstream(server.fake.run.directory + "/video-1.mp4") << "a film";
  int status = 0;
  output_of("curl --version", status);
  if (status != 0) {
    WARN("skipped: there is no curl");
    return;
  }
  const std::string base = "http://localhost:" + std::to_string(server.port);
  const std::string jar = (server.fake.folder.path / "cookies").string();
  const auto curl = [&](const std::string& arguments) {
    const std::string out = output_of("curl -sS -m 20 -b " + jar + " -c " + jar + " " + arguments, status);
    INFO(arguments << ": " << out);
    CHECK(status == 0);
    return out;
  };
  CHECK(curl("-L '" + base + "/?token=" + kToken + "'").find("<!doctype html") != std::string::npos);
  const auto code = [&](const std::string& arguments) { return curl("-o /dev/null -w '%{http_code}' " + arguments); };
  for (const char* path :
       {"/", "/page.js", "/page.css", "/frame?format=raw", "/frame?format=png", "/frame?format=jpeg&captions=1",
        "/state", "/value?seq=1&x=1&y=1", "/recordings/", "/recordings/video-1.mp4"}) {
    INFO(path);
    CHECK(code("'" + base + path + "'") == "200");
  }
  CHECK(curl("-r 2-5 " + base + "/recordings/video-1.mp4") == "film");
  CHECK(code("-d '{\"fps\": 5}' " + base + "/settings") == "200");
  CHECK(code("-H 'Content-Type: application/json' -d '{\"control\": \"colormap\"}' " + base + "/action") == "200");
  CHECK(code("-X POST " + base + "/snapshot") == "200");
  CHECK(code("-X POST " + base + "/record") == "200");
  CHECK(server.settings().get().recording);
  CHECK(server.settings().get().fps == 5);
  // A stream has no end: curl's time is over instead.
  output_of("curl -sS -m 1 -b " + jar + " -o " + jar + ".mjpg " + base + "/stream.mjpg", status);
  CHECK(fs::file_size(jar + ".mjpg") > 1000);
}

TEST_CASE("ffprobe reads the stream") {
  Server server;
  int status = 0;
  output_of("ffprobe -version", status);
  if (status != 0) {
    WARN("skipped: there is no ffprobe");
    return;
  }
  std::atomic<bool> stop{false};
  std::thread shows([&] {
    for (uint64_t sequence = 1; !stop; ++sequence) {
      server.show(sequence);
      std::this_thread::sleep_for(30ms);
    }
  });
  const std::string out = output_of(
      "ffprobe -v error -select_streams v -count_frames -read_intervals '%+#5' -show_entries "
      "stream=codec_name,width,height,nb_read_frames -of csv=p=0 'http://localhost:" +
          std::to_string(server.port) + "/stream.mjpg?token=" + kToken + "'",
      status);
  stop = true;
  shows.join();
  INFO(out);
  CHECK(status == 0);
  CHECK(out.find("mjpeg,640,360,5") == 0);
}
