// `beholder render` as a person runs it: a process with arguments, an exit status, what it says and what it writes.

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <opencv2/imgcodecs.hpp>

#include "beholder/settings.h"
#include "catch.h"
#include "safetensors_bytes.h"

namespace fs = std::filesystem;

namespace {

struct Result {
  int status = -1;  // 128 + n: signal n
  std::string out, err;
};

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A folder of its own, removed at the end, and the program started in it.
class Place {
 public:
  Place() : folder_(fs::temp_directory_path() / ("beholder_render_" + std::to_string(getpid()))) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~Place() { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  void write(const std::string& name, const std::string& bytes) const { write_file(path(name), bytes); }

  /// `arguments` as in a shell. Address space is limited: a lying file must not make the program ask for more.
  Result run(const std::string& arguments) const {
    std::string limit = "ulimit -v 4000000; ";  // KiB
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    limit.clear();  // their shadow memory alone takes terabytes of address space
#endif
    const std::string program = std::string(BEHOLDER_BINARY_DIR) + "/tools/beholder";
    const std::string line = "cd '" + folder_.string() + "'; " + limit + "OMP_NUM_THREADS=1 '" + program + "' " +
                             arguments + " >out.txt 2>err.txt";
    const int raw = std::system(line.c_str());
    Result result;
    result.status = WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
    result.out = read_file(folder_ / "out.txt");
    result.err = read_file(folder_ / "err.txt");
    return result;
  }

  /// Renders with these options, which must succeed, and returns the picture; each once.
  cv::Mat picture(const std::string& options) const {
    if (pictures_.count(options)) return pictures_.at(options);
    fs::remove(folder_ / "picture.png");
    const Result result = run("render " + options + " -o picture.png");
    CAPTURE(options, result.err);
    REQUIRE(result.status == 0);
    CHECK(result.err.empty());
    const cv::Mat image = cv::imread(path("picture.png"), cv::IMREAD_COLOR);
    REQUIRE(!image.empty());
    pictures_[options] = image;
    return image;
  }

 private:
  fs::path folder_;
  mutable std::map<std::string, cv::Mat> pictures_;
};

bool equal(const cv::Mat& a, const cv::Mat& b) {
  return a.size() == b.size() && std::equal(a.begin<cv::Vec3b>(), a.end<cv::Vec3b>(), b.begin<cv::Vec3b>());
}

std::vector<float> wave(size_t count, double phase) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = static_cast<float>(std::sin(0.37 * static_cast<double>(i) * (1 + 0.1 * phase) + phase));
  }
  return values;
}

/// A small network's tensors, a little different at each step.
std::string network(double phase) {
  auto bias = wave(16, phase);
  for (auto& value : bias) value *= 3;
  return good_file({{"conv1.weight", "[16,1,5,5]", wave(400, phase)},
                    {"conv1.bias", "[16]", bias},
                    {"conv2.weight", "[300,60,3,3]", wave(162'000, phase)},
                    {"embed.weight", "[50,20]", wave(1000, phase)},
                    {"fc.weight", "[10,64]", wave(640, phase)},
                    {"maps", "[4,6,14,14]", wave(4704, phase)},
                    {"image", "[30,40]", wave(1200, phase)}});
}

void write_steps(const Place& place) {
  for (int i = 0; i < 3; ++i) place.write("s" + std::to_string(i) + ".safetensors", network(i));
}

const std::string kOne = "s0.safetensors ", kThree = "s0.safetensors s1.safetensors s2.safetensors ";

}  // namespace

TEST_CASE("help and version") {
  const Place place;
  const Result version = place.run("--version");
  CHECK(version.status == 0);
  CHECK(version.out.rfind("beholder ", 0) == 0);
  CHECK(place.run("--help").status == 0);
  const Result help = place.run("render --help");
  CHECK(help.status == 0);
  CAPTURE(help.out);
  // Every control that means something without a training is there, with its help.
  for (const auto& control : beholder::controls()) {
    if (control.type == beholder::Control::Type::Action) continue;
    std::string option = "--" + control.name;
    std::replace(option.begin(), option.end(), '_', '-');
    if (control.name == "info") option = "--no-info";  // on unless one says so
    const bool live =
        control.name == "values" || control.name == "fps" || control.name == "paused" || control.name == "recording";
    CAPTURE(option);
    CHECK((help.out.find(option) != std::string::npos) == !live);
  }
}

TEST_CASE("the classic layout of the program is the original's picture") {
  const Place place;
  const std::string folder = std::string(BEHOLDER_TEST_DATA) + "/golden/cases/";
  REQUIRE(std::system(
              ("gzip -dc '" + folder + "a01_lenet_current/step0.safetensors.gz' >'" + place.path("g.safetensors") + "'")
                  .c_str()) == 0);
  CHECK(equal(place.picture("g.safetensors --layout classic"), cv::imread(folder + "a01_lenet_current/frame0.png")));
  REQUIRE(std::system(
              ("gzip -dc '" + folder + "a07_activations/step0.safetensors.gz' >'" + place.path("h.safetensors") + "'")
                  .c_str()) == 0);
  CHECK(equal(place.picture("h.safetensors --layout classic --kind '*=activation'"),
              cv::imread(folder + "a07_activations/frame0.png")));
}

TEST_CASE("every option changes the picture as it says") {
  const Place place;
  write_steps(place);
  const cv::Mat fit = place.picture(kOne);
  CHECK(fit.size() == cv::Size(1280, 720));
  CHECK(place.picture(kOne + "--canvas 800x600").size() == cv::Size(800, 600));
  const cv::Mat classic = place.picture(kOne + "--layout classic");
  CHECK(classic.size() == cv::Size(768, 7 * 128 + 6 * 5));

  // Each pair differs in one option.
  const auto differ = [&place](const std::string& a, const std::string& b) {
    CAPTURE(a, b);
    CHECK(!equal(place.picture(a), place.picture(b)));
  };
  const std::string plain = "--no-captions ";
  differ(kOne + plain, kOne + "--captions");
  differ(kOne + "--layout classic", kOne + "--layout classic --captions");
  differ(kOne + "--info", kOne + "--no-info");
  differ(kThree + plain, kThree + plain + "--mode variance");
  differ(kThree + plain + "--mode variance", kThree + plain + "--mode change");
  differ(kThree + plain + "--mode variance --window 2", kThree + plain + "--mode variance --window 3");
  for (const std::string colormap : {"viridis", "diverging"}) {
    differ(kOne + plain, kOne + plain + "--colormap " + colormap);
  }
  differ(kOne + plain, kOne + plain + "--scaling all");
  differ(kOne + plain, kOne + plain + "--scaling zero-centred");
  differ(kOne + "--layout classic", kOne + "--layout classic --show-all");
  differ(kOne + plain, kOne + plain + "--tensors 'conv*,!*.bias'");
  differ(kOne + plain, kOne + plain + "--solo conv2.weight");
  differ(kOne + plain + "--solo conv2.weight", kOne + plain + "--solo conv2.weight --zoom 4");
  differ(kOne + plain + "--solo conv2.weight --zoom 4", kOne + plain + "--solo conv2.weight --zoom 4 --pan-x 1");
  differ(kOne + plain + "--solo conv2.weight --zoom 4", kOne + plain + "--solo conv2.weight --zoom 4 --pan-y 1");
  differ(kOne + "--layout classic", kOne + "--layout classic --kind maps=activation");
  differ(kOne + "--layout classic", kOne + "--layout classic --kind 'embed*=embedding'");
  differ(kOne + plain + "--tensors image", kOne + plain + "--tensors image --kind image=frame");
}

TEST_CASE("options do what they say") {
  const Place place;
  write_steps(place);
  CHECK(place.picture(kOne + "--layout classic --tensors '*.weight'").rows == 4 * 128 + 3 * 5);
  CHECK(equal(place.picture(kOne + "--layout classic --tensors 'fc*'"),
              place.picture(kOne + "--layout classic --filter 'fc*'")));
  CHECK(equal(place.picture(kOne), place.picture(kOne + "--captions --window 15 --colormap magma --canvas 1280x720")));
  // The last --kind that matches counts.
  CHECK(equal(place.picture(kOne + "--layout classic --kind '*=embedding' --kind 'maps=activation' --tensors maps"),
              place.picture(kOne + "--layout classic --kind 'maps=activation' --tensors maps")));
  // Only the last step's picture, where no history is asked for.
  CHECK(equal(place.picture(kThree + "--no-captions"), place.picture("s2.safetensors --no-captions")));
  // A constant tensor has no change.
  const cv::Mat unchanged =
      place.picture("s0.safetensors s0.safetensors --layout classic --mode variance --colormap gray");
  CHECK(cv::countNonZero(unchanged.reshape(1)) == 0);
}

TEST_CASE("more tensors than room make pages") {
  const Place place;
  std::vector<WrittenTensor> tensors;
  for (int i = 0; i < 400; ++i) tensors.push_back({"layer" + std::to_string(i) + ".weight", "[6,9]", wave(54, i)});
  place.write("many.safetensors", good_file(tensors));
  CHECK(!equal(place.picture("many.safetensors --canvas 200x150"),
               place.picture("many.safetensors --canvas 200x150 --page 1")));
}

TEST_CASE("what cannot be shown is named, and the rest is drawn") {
  const Place place;
  place.write(
      "e.safetensors",
      file_bytes("{" + entry("empty", "F32", "[0,5]", 0, 0) + "," + entry("w", "F32", "[2,2]", 0, 16) + "}", 16));
  const Result result = place.run("render e.safetensors -o e.png");
  CHECK(result.status == 0);
  CHECK(result.err.find("'empty' is not shown") != std::string::npos);
  CHECK(fs::exists(place.path("e.png")));
}

TEST_CASE("a tensor of a dtype that is not known is named, and the rest is drawn") {
  const Place place;
  // What the format has and LibTorch has not, what it may have one day, and half bytes.
  std::string header = "{" + entry("matrix", "F32", "[2,2]", 0, 16);
  const std::vector<std::pair<std::string, uint64_t>> odd = {{"U64", 24},    {"F8_E4M3", 3}, {"F8_E5M2", 3},
                                                             {"F8_E8M0", 3}, {"F4", 2},      {"\\u001b[31m", 5}};
  uint64_t end = 16;
  for (const auto& [dtype, bytes] : odd) {
    header += "," + entry("odd " + std::to_string(end), dtype, "[3]", end, end + bytes);
    end += bytes;
  }
  header += "," + entry("vector", "F32", "[3]", end, end + 12) + "}";
  place.write("some.safetensors", file_bytes(header, end + 12));
  place.write(
      "good.safetensors",
      file_bytes("{" + entry("matrix", "F32", "[2,2]", 0, 16) + "," + entry("vector", "F32", "[3]", 16, 28) + "}", 28));
  const Result some = place.run("render some.safetensors -o some.png");
  CAPTURE(some.err);
  CHECK(some.status == 0);
  CHECK(std::count(some.err.begin(), some.err.end(), '\n') == static_cast<int64_t>(odd.size()));
  CHECK(some.err.find("'odd 16' is not shown: dtype 'U64' cannot be shown; expected one of F64, F32") !=
        std::string::npos);
  CHECK(some.err.find("is not shown: dtype 'F8_E4M3' cannot be shown") != std::string::npos);
  CHECK(some.err.find('\x1b') == std::string::npos);
  // The rest stands as if the others were not there.
  CHECK(equal(cv::imread(place.path("some.png")), place.picture("good.safetensors")));
  // Nobody asked for them: nothing to say.
  CHECK(place.run("render some.safetensors -o some.png --tensors '!odd*'").err.empty());

  // Nothing else is asked for: one line, and no picture.
  for (const std::string arguments : {"--tensors 'odd*'", "--solo 'odd 16'"}) {
    const Result none = place.run("render some.safetensors -o none.png " + arguments);
    CAPTURE(arguments, none.err);
    CHECK(none.status == 2);
    CHECK(std::count(none.err.begin(), none.err.end(), '\n') == 1);
    CHECK(none.err.find("some.safetensors: nothing that can be shown among ") != std::string::npos);
    CHECK(none.err.find("'odd 16' (dtype 'U64' cannot be shown") != std::string::npos);
    CHECK(!fs::exists(place.path("none.png")));
  }
  place.write("empty.safetensors",
              file_bytes("{" + entry("e", "F32", "[0]", 0, 0) + "," + entry("odd", "U64", "[1]", 0, 8) + "}", 8));
  const Result empty = place.run("render empty.safetensors -o none.png");
  CAPTURE(empty.err);
  CHECK(empty.status == 2);
  CHECK(std::count(empty.err.begin(), empty.err.end(), '\n') == 1);
  CHECK(empty.err.find("e (empty), nor 'odd' (dtype 'U64'") != std::string::npos);

  // A size that is wrong for a dtype that is known makes the file a bad one, whether or not the tensor can be shown.
  place.write("bad.safetensors",
              file_bytes("{" + entry("w", "F32", "[1]", 0, 4) + "," + entry("odd", "U64", "[2]", 4, 12) + "}", 12));
  CHECK(place.run("render bad.safetensors -o none.png").status == 2);
}

TEST_CASE("a thousand tensors that cannot be shown are a few lines") {
  const Place place;
  std::string header = "{" + entry("w", "F32", "[2,2]", 0, 16);
  for (int k = 0; k < 1000; ++k) header += "," + entry("empty" + std::to_string(k), "F32", "[0]", 16, 16);
  place.write("e.safetensors", file_bytes(header + "}", 16));
  const Result result = place.run("render e.safetensors -o e.png");
  CHECK(result.status == 0);
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 11);
  CHECK(result.err.find("990 more are not shown") != std::string::npos);
}

TEST_CASE("a frame stands alone, and the program says so") {
  const Place place;
  place.write(
      "f.safetensors",
      file_bytes("{" + entry("picture", "F32", "[2,2]", 0, 16) + "," + entry("w", "F32", "[2,2]", 16, 32) + "}", 32));
  const Result result = place.run("render f.safetensors -o f.png --kind picture=frame");
  CHECK(result.status == 0);
  CHECK(result.err.find("tensors not shown: 1, since a frame stands alone") != std::string::npos);
}

TEST_CASE("a tensor that is called a frame and cannot be one hides nothing") {
  const Place place;
  std::vector<WrittenTensor> tensors = {{"attn.0", "[12,8,8]", wave(768, 1)}, {"w", "[2,2]", wave(4, 0)}};
  place.write("some.safetensors", good_file(tensors));
  place.write("good.safetensors", good_file({tensors[1]}));
  const Result some = place.run("render some.safetensors -o some.png --kind 'attn.*=frame'");
  CAPTURE(some.err);
  CHECK(some.status == 0);
  CHECK(some.err ==
        "beholder render: some.safetensors: 'attn.0' is not shown: a frame is (H, W) or (3, H, W); found [12, 8, 8]\n");
  CHECK(equal(cv::imread(place.path("some.png")), place.picture("good.safetensors")));

  // Beside one that can: it stands alone, and both the others are told of.
  tensors.push_back({"attn.1", "[8,8]", wave(64, 2)});
  tensors.push_back({"attn.2", "[0,8]", {}});
  place.write("more.safetensors", good_file(tensors));
  place.write("frame.safetensors", good_file({tensors[2]}));
  const Result more = place.run("render more.safetensors -o more.png --kind 'attn.*=frame'");
  CAPTURE(more.err);
  CHECK(more.status == 0);
  CHECK(more.err.find("'attn.0' is not shown: a frame is") != std::string::npos);
  CHECK(more.err.find("'attn.2' is not shown: empty") != std::string::npos);
  CHECK(more.err.find("tensors not shown: 1, since a frame stands alone") != std::string::npos);
  CHECK(equal(cv::imread(place.path("more.png")), place.picture("frame.safetensors --kind 'attn.*=frame'")));
}

TEST_CASE("what is odd about one tensor of a file leaves the others") {
  const Place place;
  std::string keyed = entry("keyed", "F32", "[1]", 20, 24);
  keyed.insert(keyed.size() - 1, ",\"order\":\"F\"");
  const std::string header = "{" + entry("w", "F32", "[2,2]", 0, 16) + "," +
                             entry("deep", "F32", "[1" + repeated(",1", 64) + "]", 16, 20) + "," + keyed + "," +
                             entry("none", "F32", "[0,4294967296,4294967296]", 24, 24) + "," +
                             entry("as deep as can be", "F32", "[2" + repeated(",1", 63) + "]", 24, 32) + "}";
  place.write("odd.safetensors", file_bytes(header, 32));
  const Result result = place.run("render odd.safetensors -o odd.png --layout classic");
  CAPTURE(result.err);
  CHECK(result.status == 0);
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 3);
  CHECK(result.err.find("'deep' is not shown: more than 64 dimensions") != std::string::npos);
  CHECK(result.err.find("'keyed' is not shown: 'order' in its header is not known here") != std::string::npos);
  CHECK(result.err.find("'none' is not shown: shape [0, 4294967296, 4294967296] has more than") != std::string::npos);
  CHECK(cv::imread(place.path("odd.png")).rows == 2 * 128 + 5);
}

TEST_CASE("a bad file is one clear line and exit status 2") {
  const Place place;
  place.write("good.safetensors", network(0));
  fs::create_directories(place.path("folder"));
  auto bad = bad_files();
  bad.insert(bad.begin(), {"an empty list of tensors", file_bytes("{}"), "holds no tensors"});
  for (size_t i = 0; i < bad.size(); ++i) {
    // Starting a process with all its libraries takes half a second: every third here, all of them in safetensors_test.
    const auto& file = bad[i];
    if (i % 3 != 0 && file.name.find("huge") == std::string::npos) continue;
    CAPTURE(file.name);
    place.write("bad.safetensors", file.bytes);
    const Result result = place.run("render good.safetensors bad.safetensors -o no.png");
    CAPTURE(result.err);
    CHECK(result.status == 2);
    CHECK(result.err.rfind("beholder render: bad.safetensors: ", 0) == 0);
    CHECK(says(result.err, file.said));
    CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
    CHECK(!fs::exists(place.path("no.png")));
  }
  for (const std::string file : {"folder", "missing.safetensors", "/dev/zero"}) {
    const Result result = place.run("render " + file + " -o no.png");
    CAPTURE(result.err);
    CHECK(result.status == 2);
    CHECK(result.err.rfind("beholder render: " + file + ": ", 0) == 0);
    CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
  }
}

TEST_CASE("a sparse file of a terabyte with a lying header is refused at once") {
  const Place place;
  const std::string header = "{" + entry("w", "F32", "[1]", 0, 4) + "}";
  place.write("huge.safetensors", length_bytes(header.size()) + header);
  fs::resize_file(place.path("huge.safetensors"), uint64_t{1} << 40);
  const Result result = place.run("render huge.safetensors -o no.png");
  CAPTURE(result.err);
  CHECK(result.status == 2);
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
}

TEST_CASE("a bad command line is one clear line and exit status 2") {
  const Place place;
  write_steps(place);
  struct Row {
    std::string arguments, said;
  };
  for (const auto& row : {
           Row{"", "subcommand"},
           Row{"draw", "subcommand"},
           Row{"render", "required"},
           Row{"render s0.safetensors", "required"},
           Row{"render -o x.png", "FILE"},
           Row{"render s0.safetensors -o x.jpg", "ends in .png"},
           Row{"render s0.safetensors -o x.png --nonsense", "nonsense"},
           Row{"render s0.safetensors -o x.png --layout round", "expected one of fit, classic"},
           Row{"render s0.safetensors -o x.png --mode past", "expected one of current, variance, change"},
           Row{"render s0.safetensors -o x.png --window 1", "from 2 to 20"},
           Row{"render s0.safetensors -o x.png --window 2.5", "whole number"},
           Row{"render s0.safetensors -o x.png --zoom nan", "from 1 to 64"},
           Row{"render s0.safetensors -o x.png --canvas 10x10", "64 to 8192"},
           Row{"render s0.safetensors -o x.png --canvas 99999999999x10", "64 to 8192"},
           Row{"render s0.safetensors -o x.png --canvas 800", "WIDTHxHEIGHT"},
           Row{"render s0.safetensors -o x.png --kind conv", "GLOB=KIND"},
           Row{"render s0.safetensors -o x.png --kind '*=dense'", "linear, embedding"},
           Row{"render s0.safetensors -o x.png --tensors 'nothing*'", "none of its 7 tensors"},
           Row{"render s0.safetensors -o x.png --solo nothing", "named 'nothing'"},
       }) {
    const Result result = place.run(row.arguments);
    CAPTURE(row.arguments, result.err);
    CHECK(result.status == 2);
    CHECK(says(result.err, row.said));
    CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
    CHECK(!fs::exists(place.path("x.png")));
  }
}

TEST_CASE("an output that cannot be written is one clear line and exit status 1") {
  const Place place;
  write_steps(place);
  fs::create_directories(place.path("folder.png"));
  for (const std::string out : {"missing/x.png", "folder.png", "/dev/full/x.png"}) {
    const Result result = place.run("render s0.safetensors -o " + out);
    CAPTURE(out, result.err);
    CHECK(result.status == 1);
    CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
    CHECK(result.err.find(out) != std::string::npos);
  }
}
