// The text of pictures: what is written where, what is left out, and that it never leaves its room.
#include "beholder/callbacks/captions.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "beholder/callbacks/caption_drawing.h"
#include "beholder/callbacks/text.h"
#include "catch.h"
#include "german.h"
#include "synthetic_picture.h"

using namespace beholder;

namespace {

struct Ink {
  int pixels = 0;
  int left = 1 << 20, top = 1 << 20, right = -1, bottom = -1;
  bool red = false, amber = false;
};

/// What differs between the picture and its captioned copy inside a rectangle.
Ink ink_in(const Picture& picture, const CaptionedPicture& copy, const Rect& r) {
  Ink ink;
  for (int y = r.y; y < r.y + r.height; ++y) {
    for (int x = r.x; x < r.x + r.width; ++x) {
      const size_t at = (static_cast<size_t>(y) * picture.width + x) * 3;
      const uint8_t* pixel = &copy.rgb[at];
      if (std::equal(pixel, pixel + 3, &picture.rgb[at])) continue;
      ++ink.pixels;
      ink.left = std::min(ink.left, x);
      ink.right = std::max(ink.right, x);
      ink.top = std::min(ink.top, y);
      ink.bottom = std::max(ink.bottom, y);
      if (pixel[0] > 200 && pixel[1] < 110 && pixel[2] < 110) ink.red = true;
      if (pixel[0] > 200 && pixel[1] > 140 && pixel[1] < 200 && pixel[2] < 110) ink.amber = true;
    }
  }
  return ink;
}

Ink ink_in(const Picture& picture, const Rect& r) { return ink_in(picture, *captioned(picture), r); }
Rect whole(const Picture& picture) { return {0, 0, picture.width, picture.height}; }

std::shared_ptr<Picture> small() {
  return synthetic::network(
      {{"encoder.conv.weight", {32, 1, 5, 5}}, {"encoder.conv.bias", {32}}, {"fc.weight", {10, 20}}}, 640, 360, 1);
}

template <typename Edit>
void edit_layout(Picture& picture, const Edit& edit) {
  auto layout = std::make_shared<Layout>(*picture.layout);
  edit(*layout);
  picture.layout = layout;
}

std::string shorten(const std::string& name, size_t letters, bool keep_index = true) {
  return shortened_name(name, keep_index, [&](const std::string& text) { return text.size() <= letters; });
}

}  // namespace

TEST_CASE("captions have decimal points in every language of the program") {
  const auto all = [] {
    std::string texts;
    for (const double value : {0.36, -0.4, 1.5, 99.4, 128.0, 12345.0, 1234567.0, 1.25e-5, -3.4e8}) {
      texts += short_number(value) + ' ';
    }
    return texts;
  };
  const auto before = synthetic::network({{"fc.weight", {1000, 2000}}, {"fc.bias", {10}}}, 320, 200, 1);
  const auto after = synthetic::network({{"fc.weight", {1000, 2000}}, {"fc.bias", {10}}}, 320, 200, 1);
  const std::string plain = all();
  const auto drawn = captioned(*before);
  std::string german;
  std::shared_ptr<const CaptionedPicture> drawn_german;
  {
    const German language;
    if (!language.c_too()) WARN("the C library has no German locale here and cannot make it");
    german = all();
    drawn_german = captioned(*after);
  }
  CHECK(german == plain);
  CHECK(plain.find("0.36") == 0);
  CHECK(drawn->rgb == drawn_german->rgb);
}

TEST_CASE("numbers are short") {
  CHECK(short_number(0) == "0");
  CHECK(short_number(-0.0) == "0");
  CHECK(short_number(-0.4) == "-0.4");
  CHECK(short_number(0.3612) == "0.36");
  CHECK(short_number(-0.0931) == "-0.093");
  CHECK(short_number(1) == "1");
  CHECK(short_number(12.34) == "12");
  CHECK(short_number(99.7) == "100");
  CHECK(short_number(128) == "128");
  CHECK(short_number(-54321) == "-54321");
  CHECK(short_number(123456) == "1.2e5");
  CHECK(short_number(3e-5) == "3e-5");
  CHECK(short_number(-1.26e-12) == "-1.3e-12");
  CHECK(short_number(3.4e38) == "3.4e38");
  CHECK(short_number(NAN) == "NaN");
  CHECK(short_number(-INFINITY) == "-Inf");
}

TEST_CASE("names lose leading components, never the last two") {
  CHECK(shorten("layer1.0.bn1.weight", 100) == "layer1.0.bn1.weight");
  CHECK(shorten("layer1.0.bn1.weight", 17) == "…0.bn1.weight");
  CHECK(shorten("layer1.0.bn1.weight", 14) == "…bn1.weight");
  CHECK(shorten("layer1.0.bn1.weight", 3) == "…bn1.weight");
  CHECK(shorten("layer2.0.downsample.1.weight", 3) == "…downsample.1.weight");
  CHECK(shorten("layer2.0.downsample.1.weight", 3, false) == "…1.weight");
  CHECK(shorten("blocks.1.weight", 3) == "blocks.1.weight");
  CHECK(shorten("bn1.weight", 3) == "bn1.weight");
  CHECK(shorten("weight", 3) == "weight");
  CHECK(shorten("", 0) == "");
  CHECK(shorten(".weight", 3) == ".weight");
  CHECK(shorten("..weight", 3) == "….weight");
}

TEST_CASE("a captioned copy is made once, and leaves the picture alone") {
  const auto picture = small();
  const auto before = picture->rgb;
  std::shared_ptr<const CaptionedPicture> copies[4];
  std::vector<std::thread> threads;
  for (auto& copy : copies) threads.emplace_back([&copy, &picture] { copy = captioned(*picture); });
  for (auto& thread : threads) thread.join();
  for (const auto& copy : copies) CHECK(copy == copies[0]);
  CHECK(picture->rgb == before);
  CHECK(copies[0]->width == picture->width);
  CHECK(copies[0]->rgb.size() == picture->rgb.size());
}

TEST_CASE("text stands in the captions and the footer, and nowhere else") {
  const int columns = GENERATE(1, 3, 6);
  const auto picture = synthetic::network(synthetic::resnet18(), 1280, 720, columns);
  for (auto& info : picture->sections) info.statistics.nans = 1234567;
  const auto copy = captioned(*picture);
  int inside = 0;
  for (const auto& section : picture->layout->sections) {
    if (section.area.y + section.area.height > 700) continue;  // one column is too small for all
    const Ink ink = ink_in(*picture, *copy, section.caption);
    CHECK(ink.pixels > 20);
    inside += ink.pixels;
    CHECK(ink_in(*picture, *copy, section.picture).pixels == 0);
  }
  CHECK(inside > 0);
}

TEST_CASE("captions: name, shape and range; with less room less of it") {
  const auto picture = small();  // the captioned copy is made once: edit first, then look
  const Rect room = picture->layout->sections[0].caption;

  SECTION("all of it") {
    const Ink full = ink_in(*picture, room);
    CHECK(full.right >= room.x + room.width - 8);  // the range ends at the right
    CHECK(full.left <= room.x + 2);
  }
  SECTION("the name alone") {
    edit_layout(*picture, [](Layout& l) {
      l.captions = CaptionDetail::Name;
      l.sections[0].complete = true;
    });
    const Ink name = ink_in(*picture, room);
    CHECK(name.right < room.x + 130);
    CHECK(name.pixels > 50);
  }
  SECTION("no captions") {
    edit_layout(*picture, [](Layout& l) { l.captions = CaptionDetail::None; });
    CHECK(ink_in(*picture, room).pixels == 0);
    CHECK(ink_in(*picture, picture->layout->footer).pixels > 0);
  }
  SECTION("info switched off leaves the name") {
    picture->settings.info = false;
    CHECK(ink_in(*picture, room).right < room.x + 130);
  }
  SECTION("no room for the range") {
    edit_layout(*picture, [](Layout& l) { l.sections[0].caption.width = 200; });
    const Ink less = ink_in(*picture, room);
    CHECK(less.right > room.x + 130);  // the shape
    CHECK(less.right < room.x + 190);
  }
  SECTION("captions dropped by the layout") {
    edit_layout(*picture, [](Layout& l) {
      for (auto& s : l.sections) s.caption.height = 0;
    });
    CHECK(ink_in(*picture, room).pixels == 0);
  }
}

namespace {

/// A picture whose first caption is `width` pixels wide, and shows of its tensor `part`.
std::shared_ptr<Picture> with_caption(int width, bool part, CaptionDetail details, bool vector = false) {
  auto picture = small();
  picture->sections[0].name = "encoder.layers.3.conv.weight";
  picture->sections[0].statistics.min = part ? -1.25 : -0.25;
  edit_layout(*picture, [&](Layout& l) {
    l.captions = details;
    auto& section = l.sections[0];
    section.caption_inline = vector;
    section.caption.width = width;
    if (vector) section.picture.x = section.caption.x + width + 6;
    section.complete = picture->sections[0].complete = !part;
    section.sampled = false;
    section.grid.row_position.resize(8);
    section.grid.column_position.resize(20);
  });
  return picture;
}

bool different(const CaptionedPicture& a, const CaptionedPicture& b, const Rect& r) {
  for (int y = r.y; y < r.y + r.height; ++y) {
    const auto row = (static_cast<std::ptrdiff_t>(y) * a.width + r.x) * 3;
    if (!std::equal(a.rgb.begin() + row, a.rgb.begin() + row + r.width * 3, b.rgb.begin() + row)) return true;
  }
  return false;
}

/// How many pieces of text stand in the first caption, apart by `least_gap` pixels.
int words_in(const std::shared_ptr<Picture>& picture, int least_gap) {
  const auto copy = captioned(*picture);
  Rect column = picture->layout->sections[0].caption;
  const int end = column.x + column.width;
  column.width = 1;
  int words = 0, empty = least_gap;
  for (; column.x < end; ++column.x) {
    if (ink_in(*picture, *copy, column).pixels == 0) {
      ++empty;
      continue;
    }
    words += empty >= least_gap;
    empty = 0;
  }
  return words;
}

}  // namespace

TEST_CASE("a name of any number of components is shortened in a few steps") {
  std::string name;
  for (int i = 0; i < 100'000; ++i) name += "a.";
  for (const size_t room : {size_t{1}, size_t{100}, name.size() - 1, name.size()}) {
    int steps = 0;
    const std::string text = shortened_name(name, true, [&](const std::string& shorter) {
      ++steps;
      return shorter.size() <= room;
    });
    CHECK(steps < 40);
    CHECK(text.size() <= std::max<size_t>(room, 8));
    CHECK(text.size() + 2 > std::min(room, name.size()));
  }
}

TEST_CASE("a caption says where it is not the tensor's own values that are shown") {
  constexpr int kGap = 7;
  const auto words = [](int width, CaptionDetail details, bool complex) {
    const auto picture = with_caption(width, /*part=*/false, details);
    if (complex) picture->sections[0].shown_as = "magnitude of complex";
    return words_in(picture, kGap);
  };
  CHECK(words(600, CaptionDetail::Full, true) == words(600, CaptionDetail::Full, false) + 1);
  CHECK(words(600, CaptionDetail::Name, true) == 2);
  CHECK(words(600, CaptionDetail::Name, false) == 1);
  // Rather no range than one of values that are not the tensor's own: at no width is there a range without these words.
  for (int width = 600; width > 100; width -= 10) {
    const auto picture = with_caption(width, /*part=*/false, CaptionDetail::Full);
    picture->sections[0].shown_as = "magnitude of complex";
    const int all = words_in(picture, kGap);
    picture->sections[0].statistics.min = picture->sections[0].statistics.max = std::nan("");
    INFO("width " << width);
    const auto again = with_caption(width, /*part=*/false, CaptionDetail::Full);
    again->sections[0] = picture->sections[0];
    const int without_range = words_in(again, kGap);
    if (all > without_range) CHECK(without_range == 3);  // name, shape, and what it is
  }
  // Over the values of a classic picture too.
  const auto plain = small(), complex = small();
  complex->sections[0].shown_as = "magnitude of complex";
  for (const auto& picture : {plain, complex}) edit_layout(*picture, [](Layout& l) { l.separators = true; });
  CHECK(different(*captioned(*plain, ClassicText::Labels), *captioned(*complex, ClassicText::Labels),
                  plain->layout->sections[0].picture));
}

TEST_CASE("how much of a tensor is shown is said at any width, before its shape, its range and the name's beginning") {
  const bool vector = GENERATE(false, true);
  const auto details = GENERATE(CaptionDetail::Full, CaptionDetail::Name);
  const int shown = text_width("shown 8×20", 11), shortest = text_width("…conv.weight", 8), space = 8;
  int words_before = 0;
  for (int width = 10; width <= 600; ++width) {
    INFO("vector " << vector << ", width " << width);
    const auto part = with_caption(width, true, details, vector);
    const auto copy = captioned(*part);
    const Rect room = part->layout->sections[0].caption;
    // Drawn or not: is there another text where a picture of all values has its name alone?
    const auto name_alone = captioned(*with_caption(width, false, CaptionDetail::Name, vector));
    const bool said = different(*copy, *name_alone, room);
    REQUIRE(said == (width >= shortest + space + shown));
    REQUIRE(ink_in(*part, *copy, {room.x + room.width, room.y, 640 - room.x - room.width, 15}).pixels == 0);
    if (details != CaptionDetail::Full || !said) continue;
    // Wider captions never say less: name, shown, shape, range.
    const int words = words_in(part, 7);
    REQUIRE(words >= words_before);
    REQUIRE(words >= 2);
    words_before = words;
  }
  if (details == CaptionDetail::Full) CHECK(words_before == 4);
}

TEST_CASE("NaN and Inf are red") {
  auto picture = small();
  const Rect room = picture->layout->sections[0].caption;
  SECTION("none") { CHECK_FALSE(ink_in(*picture, room).red); }
  SECTION("NaN") {
    picture->sections[0].statistics.nans = 3;
    CHECK(ink_in(*picture, room).red);
  }
  SECTION("Inf") {
    picture->sections[0].statistics.infs = 3;
    CHECK(ink_in(*picture, room).red);
  }
  SECTION("beyond float32") {
    picture->sections[0].statistics.beyond = 3;
    CHECK(ink_in(*picture, room).red);
  }
  SECTION("without room the name is red") {
    picture->sections[0].statistics.nans = 3;
    edit_layout(*picture, [](Layout& l) { l.sections[0].caption.width = 120; });
    CHECK(ink_in(*picture, picture->layout->sections[0].caption).red);
  }
}

TEST_CASE("the footer has a colour scale") {
  const auto picture = small();
  const auto copy = captioned(*picture);
  bool brightest = false;  // of magma: in no text
  for (size_t i = static_cast<size_t>(picture->layout->footer.y) * 640 * 3; i < copy->rgb.size(); i += 3) {
    brightest = brightest || std::equal(&copy->rgb[i], &copy->rgb[i] + 3, &picture->colour_scale[255 * 3]);
  }
  CHECK(brightest);
}

TEST_CASE("one picture is no pictures, one step no steps") {
  const auto picture = small();
  picture->settings.mode = Mode::Variance;
  picture->history_size = 1;
  CHECK(mode_text(*picture) == "variance of 1 picture");
  picture->history_size = 2;
  CHECK(mode_text(*picture) == "variance of 2 pictures");
  picture->settings.mode = Mode::Change;
  picture->change_steps = 1;
  CHECK(mode_text(*picture) == "change over 1 step");
}

TEST_CASE("the footer says what is unusual") {
  const auto picture = small();
  const Rect footer = picture->layout->footer;
  bool unusual = true;
  SECTION("nothing") { unusual = false; }
  SECTION("a notice") { picture->notice = "collecting 1/15"; }
  SECTION("a page") {
    edit_layout(*picture, [](Layout& l) { l.pages = 5; });
  }
  SECTION("fewer values") {
    edit_layout(*picture, [](Layout& l) { l.reduced = "sampled to keep within 256 MiB"; });
  }
  // left of the scale, which has many colours
  CHECK(ink_in(*picture, {0, footer.y, 480, footer.height}).amber == unusual);
}

TEST_CASE("a picture without anything to show says so in its middle") {
  const auto picture = synthetic::blocks(640, 360);
  CHECK(captioned(*picture)->rgb == picture->rgb);  // without a layout nothing else
  const auto empty = synthetic::blocks(640, 360);
  empty->message =
      "no gradients yet: call backward() before update(), and zero_grad() after it, so that there is "
      "something to see when a picture is due";
  const Ink ink = ink_in(*empty, whole(*empty));
  CHECK(std::abs((ink.left + ink.right) / 2 - 320) < 12);
  CHECK(std::abs((ink.top + ink.bottom) / 2 - 180) < 8);
  CHECK(ink.right - ink.left < 500);
  CHECK(ink.bottom - ink.top > 24);  // more than one line
}

TEST_CASE("the classic layout stays pixel for pixel, unless labels are asked for") {
  const auto picture = small();
  edit_layout(*picture, [](Layout& l) {
    l.separators = true;
    l.footer = {};
    for (auto& s : l.sections) s.caption = {};
  });
  CHECK(captioned(*picture)->rgb == picture->rgb);
  const auto labelled = captioned(*picture, ClassicText::Labels);
  for (const auto& section : picture->layout->sections) {
    const Ink ink = ink_in(*picture, *labelled, section.picture);
    CHECK(ink.pixels > 100);
    CHECK(ink.left == section.picture.x);
    CHECK(ink.top == section.picture.y);
    CHECK(ink.bottom < section.picture.y + 15);
  }
}

TEST_CASE("labels of the classic layout say what captions say: how much is shown, what is not finite, what is absent") {
  const auto picture_of = [](int width, const std::function<void(Section&, SectionInfo&)>& edit) {
    const auto picture = small();
    edit_layout(*picture, [&](Layout& l) {
      l.separators = true;
      l.footer = {};
      for (auto& s : l.sections) s.caption = s.picture = {};
      l.sections[0].picture = {10, 10, width, 60};
      l.sections[0].complete = true;
      edit(l.sections[0], picture->sections[0]);
    });
    return picture;
  };
  const auto ink_of = [](const Picture& picture) {
    return ink_in(picture, *captioned(picture, ClassicText::Labels), picture.layout->sections[0].picture);
  };
  const auto part = [](Section& section, SectionInfo& info) {
    info.complete = false;  // of what came: its place may have room for all that it was made for
    section.grid.row_position.resize(64);
    section.grid.column_position.resize(209);
  };
  const auto bad = [](Section&, SectionInfo& info) { info.statistics.nans = 12; };
  const auto absent = [](Section&, SectionInfo& info) { info.absent_since = 1200; };
  const auto all = [&](Section& section, SectionInfo& info) {
    part(section, info);
    bad(section, info);
    absent(section, info);
    info.name = "encoder.layers.conv.weight";
  };
  const Ink plain = ink_of(*picture_of(620, [](Section&, SectionInfo&) {}));
  CHECK_FALSE((plain.red || plain.amber));
  for (const auto& edit : std::vector<std::function<void(Section&, SectionInfo&)>>{part, bad, absent}) {
    CHECK(ink_of(*picture_of(620, edit)).right > plain.right + 40);
  }
  CHECK(ink_of(*picture_of(620, bad)).red);
  CHECK(ink_of(*picture_of(620, absent)).amber);

  // The narrower, the less: the name turns red where the counts have no room, and how much is shown stays for longest.
  const int shown = text_width("shown 64×209", 11), shortest = text_width("…conv.weight", 8), space = 8, padding = 4;
  for (int width = 620; width > 20; width -= 7) {
    INFO("width " << width);
    const auto picture = picture_of(width, all);
    const Ink ink = ink_of(*picture);
    CHECK(ink.red);
    CHECK(ink.right < 10 + width);
    const auto without = picture_of(width, [&](Section& section, SectionInfo& info) {
      all(section, info);
      info.complete = true;
    });
    const bool said = different(*captioned(*picture, ClassicText::Labels), *captioned(*without, ClassicText::Labels),
                                picture->layout->sections[0].picture);
    CHECK(said == (width >= shortest + space + shown + 2 * padding));
  }
  // Without info: a name, and what is wrong with it.
  const auto quiet = picture_of(620, all);
  quiet->settings.info = false;
  CHECK(ink_of(*quiet).red);
  CHECK(ink_of(*quiet).amber);
  CHECK(ink_of(*quiet).right < ink_of(*picture_of(620, all)).right - shown);
}

TEST_CASE("a name without room loses its middle, and never touches the strip beside it") {
  const auto up_to_the_strip = [] {  // as the fit layout makes captions
    auto picture = small();
    edit_layout(*picture,
                [](Layout& l) { l.sections[1].caption.width = l.sections[1].picture.x - l.sections[1].caption.x; });
    return picture;
  };
  const auto picture = up_to_the_strip();
  auto& info = picture->sections[1];
  const Section& section = picture->layout->sections[1];
  REQUIRE(section.caption_inline);
  const auto copy_with = [&](const std::string& name) {
    auto other = up_to_the_strip();
    other->sections[1].name = name;
    return captioned(*other);
  };
  const std::string middle(200, 'm');
  info.name = "begin" + middle + "end";
  const auto copy = captioned(*picture);
  const Ink ink =
      ink_in(*picture, *copy,
             {section.caption.x, section.caption.y, section.picture.x - section.caption.x, section.caption.height});
  CHECK(ink.pixels > 50);
  CHECK(ink.right < section.picture.x - 4);
  // Both ends are seen.
  CHECK(copy->rgb != copy_with("other" + middle + "end")->rgb);
  CHECK(copy->rgb != copy_with("begin" + middle + "und")->rgb);
  CHECK(copy->rgb == copy_with("begin" + middle + middle + "end")->rgb);
}

TEST_CASE("any name and any room are drawn without harm") {
  const auto picture = small();
  picture->sections[0].name =
      std::string("\xff\xfe\xf0\x9f\x98\x80 \xc3", 9) + std::string(5000, 'x') + "\n\t\x01.日本語.weight";
  picture->sections[1].name = "";
  picture->sections[2].name = "...";
  picture->sections[2].shape.assign(40, 1234567);
  picture->sections[2].statistics.min = NAN;
  edit_layout(*picture, [](Layout& l) {
    l.sections[1].caption = {-50, -7, 30, 15};
    l.sections[2].caption = {620, 355, 100, 15};
    l.footer = {0, 350, 3, 18};
  });
  CHECK_NOTHROW(captioned(*picture));
  for (int size : {1, 8, 1, 3}) {
    const auto tiny = synthetic::network({{"a.b", {3, 3}}}, size * 8, size, 1);
    tiny->message = "nothing";
    CHECK_NOTHROW(captioned(*tiny));
    CHECK_NOTHROW(captioned(*tiny, ClassicText::Labels));
  }
}

TEST_CASE("text is clipped, and as wide as it says") {
  std::vector<uint8_t> pixels(200 * 40 * 3, 0);
  const TextCanvas canvas{pixels.data(), 200, 40};
  const int end = draw_text(canvas, 10, 20, "conv1.weight 32×1 …", {255, 255, 255}, 11, {30, 14, 20, 6});
  CHECK(end == 10 + text_width("conv1.weight 32×1 …", 11));
  int outside = 0, inside = 0;
  for (int y = 0; y < 40; ++y) {
    for (int x = 0; x < 200; ++x) {
      const bool in = x >= 30 && x < 50 && y >= 14 && y < 20;
      (in ? inside : outside) += pixels[(static_cast<size_t>(y) * 200 + x) * 3] != 0;
    }
  }
  CHECK(outside == 0);
  CHECK(inside > 20);
  CHECK(text_width("mm", 11) == 2 * text_width("m", 11));
  CHECK(text_width("m", 22) > text_width("m", 11));
  CHECK(std::abs(cap_height(11) - 8) <= 1);
}
