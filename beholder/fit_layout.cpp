// The fit layout: a canvas of fixed size, several columns of equal width, every section in a cell that shows as many of
// its values as it has blocks. Sections keep their order; those of one module stay in one column. Tensors of one kind
// and shape are shown alike: the same part of each, in blocks of the same size.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <utility>

#include "beholder/layout.h"
#include "beholder/tile_layout.h"

namespace beholder {
namespace {

constexpr int kLargestStrip = 56;           // pixels that a vector's strip may grow to when a column has room left
constexpr int kLargestFilledBlock = 32;     // before vectors get what is left
constexpr double kLargestUsefulBlock = 10;  // what blocks are larger counts half in the score of a layout
constexpr int64_t kPlentyOfValues = 30000;
constexpr double kFairness = 0.25;
constexpr double kLetterWidth = 5.8;     // pixels of a letter of a name, for geometry, which knows no font
constexpr double kCrowdedCaption = 0.5;  // what a caption without room takes from how well its section is shown
constexpr int kOrdinaryName = 104;       // pixels of a name beside a strip
constexpr double kNameShare = 0.55;      // of a vector's line, at the most, for its name
constexpr size_t kRefinedGroups = 120;   // up to so many groups the columns' ends are moved for the better picture

// One step of the degradation.
struct Detail {
  CaptionDetail captions;
  int column_width;  // the narrowest column
  int caption;       // height of a caption line
  int vector;        // height of a vector's line
  int gap;           // above a caption
  int tight_gap;     // above a vector
  int picture;       // the lowest picture
};
constexpr Detail kDetails[] = {
    {CaptionDetail::Full, 200, FitMetrics::kCaptionHeight, FitMetrics::kVectorHeight, FitMetrics::kGap, 3, 24},
    {CaptionDetail::Name, 140, FitMetrics::kCaptionHeight, FitMetrics::kVectorHeight, 6, 2, 12},
    {CaptionDetail::None, 80, 0, 8, 5, 2, 12},
    {CaptionDetail::None, 48, 0, 4, 3, 1, 3},  // smallest blocks
};
constexpr size_t kDetailCount = sizeof(kDetails) / sizeof(kDetails[0]);

// Letters of the shortest form in which a name is shown: its last two components, and one more where the last but one
// is only a number ("downsample.1.weight").
int letters_of(const std::string& name) {
  const auto dot_before = [&](size_t at) {
    return at == std::string::npos || at == 0 ? std::string::npos : name.rfind('.', at - 1);
  };
  const size_t last = dot_before(name.size());
  size_t begin = dot_before(last);
  if (begin != std::string::npos && name.find_first_not_of("0123456789", begin + 1) == last) begin = dot_before(begin);
  const size_t first = begin == std::string::npos ? 0 : begin;  // the dot itself: where "…" will stand
  return static_cast<int>(std::count_if(name.begin() + static_cast<std::ptrdiff_t>(first), name.end(),
                                        [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

// Letters of a caption above a section: name and shape.
int caption_letters(const TensorShape& tensor) {
  size_t letters = tensor.name.size() + 1;
  for (int64_t extent : tensor.shape) letters += std::to_string(extent).size() + 1;
  return static_cast<int>(letters);
}

// What is to be laid out: one tensor, read as tiles.
struct Item {
  size_t tensor;
  const TensorShape* shape;
  Tiles tiles;
  bool joined;  // belongs to the module of the item before it
  int letters;  // of a vector's name, which stands beside it, or of the caption above any other
};

// ---- One column

// Where an item stands in its column.
struct Cell {
  int y = 0;       // of its area
  int height = 0;  // that it was given for its picture
  Arrangement arrangement;
};

struct Column {
  std::vector<Cell> cells;
  int left = 0;      // pixels of its height that nobody uses
  double used = 0;   // pixels of pictures and captions
  double shown = 0;  // sum over sections of how well they are shown, 1 at the best
  int crowded = 0;   // captions without room for name and shape
};

// The room of a column, and how it is used.
struct Room {
  const Detail* detail;
  int width, height;
  int name_width;     // of the captions in a vector's line
  bool tall_vectors;  // nothing but vectors: they stand below their captions and may fill the column
  bool show_all;
};

bool is_strip(const Item& item, const Room& room) { return item.tiles.vector && !room.tall_vectors; }

int caption_above(const Item& item, const Room& room) { return is_strip(item, room) ? 0 : room.detail->caption; }
int gap_above(const Item& item, const Room& room) {
  return is_strip(item, room) ? room.detail->tight_gap : room.detail->gap;
}
int picture_width(const Item& item, const Room& room) {
  return is_strip(item, room) && room.detail->caption > 0 ? std::max(1, room.width - room.name_width) : room.width;
}
int lowest(const Item& item, const Room& room) {
  return std::min(room.height, is_strip(item, room) ? room.detail->vector : room.detail->picture);
}

// Height that the items need at the least.
int needed(const std::vector<Item>& items, size_t begin, size_t end, const Room& room) {
  int height = 0;
  for (size_t k = begin; k < end; ++k)
    height += (k > begin ? gap_above(items[k], room) : 0) + caption_above(items[k], room) + lowest(items[k], room);
  return height;
}

// Raises `heights` towards `caps`, the lowest first, by no more than `total` in all. Returns what is left.
int fill(std::vector<int>& heights, const std::vector<int>& caps, int total) {
  const auto level = [&](size_t k, int water) { return std::max(heights[k], std::min(caps[k], water)); };
  const auto cost = [&](int water) {
    int64_t sum = 0;
    for (size_t k = 0; k < heights.size(); ++k) sum += level(k, water) - heights[k];
    return sum;
  };
  int low = 0, high = 1;
  for (int cap : caps) high = std::max(high, cap);
  while (low < high) {
    const int middle = low + (high - low + 1) / 2;
    if (cost(middle) <= total)
      low = middle;
    else
      high = middle - 1;
  }
  total -= static_cast<int>(cost(low));
  for (size_t k = 0; k < heights.size(); ++k) heights[k] = level(k, low);
  return total;
}

Arrangement arrange_item(const Item& item, const Room& room, int height, bool last_resort = false) {
  ArrangeRules rules;
  if (!last_resort) rules.largest_block = kLargestFilledBlock;
  rules.wrap_matrices = last_resort;
  rules.sample = room.show_all;
  return arrange(item.tiles, item.shape->shape, picture_width(item, room), std::max(1, height), rules);
}

// What an arrangement becomes with `more` pixels of height, where it can use them; else as high as before.
Arrangement enlarged(const Item& item, const Room& room, const Arrangement& now, int more, bool last_resort) {
  Arrangement larger = arrange_item(item, room, static_cast<int>(now.height) + more, last_resort);
  const bool narrow = larger.width < now.width && 5 * larger.width < 4 * room.width;
  const bool worse = larger.shown < now.shown || larger.width * larger.height <= now.width * now.height ||
                     (narrow && larger.wraps > now.wraps);  // bands only where they fill the column
  return worse || larger.height <= now.height ? now : larger;
}

// Gives `left` pixels to whoever can use them: fair shares first, then larger ones, up to all that is left.
void use_rest(const std::vector<Item>& items, size_t begin, const Room& room, bool last_resort, Column& column,
              int& left) {
  if (room.tall_vectors && column.cells.size() > 1) return;  // equals stay equal
  int share = 0;
  for (int round = 0; share < left; ++round) {
    const int fair = std::max(1, left / static_cast<int>(column.cells.size()));
    share = round < 2 ? fair : std::min(left, std::max(fair, 2 * share));
    for (size_t k = 0; k < column.cells.size() && left > 0; ++k) {
      if (is_strip(items[begin + k], room)) continue;
      Arrangement& now = column.cells[k].arrangement;
      Arrangement larger = enlarged(items[begin + k], room, now, std::min(left, share), last_resort);
      left -= static_cast<int>(larger.height - now.height);
      now = std::move(larger);
    }
  }
}

void grow_strips(const std::vector<Item>& items, size_t begin, const Room& room, Column& column, int& left) {
  std::vector<size_t> strips;
  for (size_t k = 0; k < column.cells.size(); ++k)
    if (is_strip(items[begin + k], room)) strips.push_back(k);
  if (strips.empty()) return;
  const int extra = std::min(left / static_cast<int>(strips.size()), kLargestStrip - room.detail->vector);
  for (size_t k : strips) column.cells[k].height += std::max(0, extra);
  left -= std::max(0, extra) * static_cast<int>(strips.size());
}

// A strip is a little lower than its line, so that strips do not touch.
int strip_height(int line) { return line > 8 ? line - 2 : line; }

// The number of values on a logarithmic scale, so that room goes to those that show little. What a large tensor has
// beyond what a large cell could show does not count against it.
double quality(int64_t shown, int64_t numel) {
  const double all = static_cast<double>(std::min(numel, kPlentyOfValues));
  return 1 + kFairness * std::log2(std::min(1.0, static_cast<double>(shown) / all));
}

// Puts the cells below each other, once it is known how they are arranged, and says how good the column is.
void place_cells(const std::vector<Item>& items, size_t begin, const Room& room, Column& column) {
  column.used = column.shown = 0;
  column.crowded = 0;
  int y = 0;
  for (size_t k = begin; k < begin + column.cells.size(); ++k) {
    Cell& cell = column.cells[k - begin];
    if (!is_strip(items[k], room)) cell.height = static_cast<int>(cell.arrangement.height);
    if (k > begin) y += gap_above(items[k], room);
    cell.y = y;
    y += caption_above(items[k], room) + cell.height;
    const double picture = static_cast<double>(cell.arrangement.width) * static_cast<double>(cell.arrangement.height);
    // Names beside strips count no more than ordinary ones: long names are no reason for more columns.
    const double caption = is_strip(items[k], room)
                               ? std::min(kOrdinaryName, room.width - picture_width(items[k], room)) * cell.height
                               : room.width * caption_above(items[k], room);
    column.used += picture * (1 + std::min(1.0, kLargestUsefulBlock / cell.arrangement.block_height)) / 2 + caption;
    if (room.detail->captions == CaptionDetail::Full && !is_strip(items[k], room))
      column.crowded += items[k].letters * kLetterWidth > room.width;
    column.shown += quality(cell.arrangement.shown, items[k].shape->numel());
  }
}

Column lay_column(const std::vector<Item>& items, size_t begin, size_t end, const Room& room) {
  Column column;
  std::vector<int> heights, low, want;
  std::vector<bool> first_layer;
  for (size_t k = begin; k < end; ++k) {
    const int least = lowest(items[k], room);
    heights.push_back(least);
    first_layer.push_back(false);
    if (is_strip(items[k], room)) {
      low.push_back(least);
      want.push_back(least);
      continue;
    }
    const Heights wished = heights_of(items[k].tiles, items[k].shape->shape, room.width);
    first_layer.back() = is_first_layer(items[k].tiles, items[k].shape->shape);
    low.push_back(static_cast<int>(std::clamp<int64_t>(wished.low, least, std::max(least, room.height))));
    want.push_back(static_cast<int>(std::clamp<int64_t>(wished.want, low.back(), std::max(low.back(), room.height))));
  }
  int left = room.height - needed(items, begin, end, room);
  for (size_t k = 0; k < heights.size(); ++k) {
    if (!first_layer[k]) continue;
    const int more = std::min({low[k], room.height / 4, heights[k] + left / 2}) - heights[k];
    heights[k] += std::max(0, more);
    left -= std::max(0, more);
  }
  left = fill(heights, low, left);
  left = fill(heights, want, left);

  column.cells.resize(end - begin);
  for (size_t k = begin; k < end; ++k) {
    Cell& cell = column.cells[k - begin];
    cell.height = heights[k - begin];
    if (is_strip(items[k], room)) continue;
    cell.arrangement = arrange_item(items[k], room, cell.height);
    left += cell.height - static_cast<int>(cell.arrangement.height);
  }
  use_rest(items, begin, room, false, column, left);
  grow_strips(items, begin, room, column, left);
  use_rest(items, begin, room, true, column, left);

  for (size_t k = begin; k < end; ++k) {
    Cell& cell = column.cells[k - begin];
    if (is_strip(items[k], room)) cell.arrangement = arrange_item(items[k], room, strip_height(cell.height));
  }
  column.left = left;
  place_cells(items, begin, room, column);
  return column;
}

// ---- All columns

// Items begin..end, cut into columns: column c holds items cuts[c]..cuts[c + 1].
using Cuts = std::vector<size_t>;

Room room_of(const Canvas& canvas, const Detail& detail, int columns, int letters, bool tall_vectors, bool show_all) {
  Room room;
  room.detail = &detail;
  room.width = std::max(1, (canvas.sections.width - FitMetrics::kGap * (columns - 1)) / columns);
  room.height = std::max(1, canvas.sections.height);
  const int names = static_cast<int>(std::min(letters * kLetterWidth + 2 * FitMetrics::kGap, kNameShare * room.width));
  room.name_width = std::max(std::clamp(room.width * 2 / 5, std::min(kOrdinaryName, room.width / 2), 130), names);
  room.tall_vectors = tall_vectors;
  room.show_all = show_all;
  return room;
}

// First items of the groups that must not be torn: the tensors of one module, as far as one column holds them.
std::vector<size_t> groups_of(const std::vector<Item>& items, size_t begin, size_t end, const Room& room) {
  std::vector<size_t> groups;
  int height = 0;
  for (size_t k = begin; k < end; ++k) {
    const int more = needed(items, k, k + 1, room);
    const bool same = k > begin && items[k].joined && height + gap_above(items[k], room) + more <= room.height;
    height = same ? height + gap_above(items[k], room) + more : more;
    if (!same) groups.push_back(k);
  }
  groups.push_back(end);
  return groups;
}

// Fills column after column: the fewest that hold everything. Exact, so more items never need fewer columns.
Cuts fill_columns(const std::vector<Item>& items, const std::vector<size_t>& groups, const Room& room) {
  Cuts cuts{groups.front()};
  int height = 0;
  for (size_t g = 0; g + 1 < groups.size(); ++g) {
    const int more = needed(items, groups[g], groups[g + 1], room);
    const int joined = height + more + gap_above(items[groups[g]], room);
    if (groups[g] > cuts.back() && joined > room.height) {
      cuts.push_back(groups[g]);
      height = more;
    } else {
      height = groups[g] > cuts.back() ? joined : more;
    }
  }
  cuts.push_back(groups.back());
  return cuts;
}

// Cuts where the running cost is nearest to a column's share of it.
Cuts balance(const std::vector<double>& cost_before, const std::vector<size_t>& groups, int columns) {
  const size_t count = groups.size() - 1;
  Cuts cuts{groups.front()};
  size_t g = 0;
  for (int c = 1; c < columns; ++c) {
    const double share = cost_before.back() * c / columns;
    const size_t last = count - static_cast<size_t>(columns - c);  // one group at least for each column after it
    ++g;
    while (g < last && std::abs(cost_before[g + 1] - share) <= std::abs(cost_before[g] - share)) ++g;
    cuts.push_back(groups[g]);
  }
  cuts.push_back(groups.back());
  return cuts;
}

bool fits(const std::vector<Item>& items, const Cuts& cuts, const Room& room) {
  for (size_t c = 0; c + 1 < cuts.size(); ++c)
    if (needed(items, cuts[c], cuts[c + 1], room) > room.height) return false;
  return true;
}

// A way to lay out a page, and how good it is.
struct Candidate {
  Room room;
  Cuts cuts;
  std::vector<Column> columns;
  double score = 0;
};

// How much of the canvas is used counts as much as how much of the tensors is shown, and captions a little.
double score_of(const Candidate& candidate, const Canvas& canvas) {
  double used = 0, shown = 0;
  size_t count = 0;
  for (const Column& column : candidate.columns) {
    used += column.used;
    shown += column.shown - kCrowdedCaption * column.crowded;
    count += column.cells.size();
  }
  const double area = static_cast<double>(canvas.sections.width) * canvas.sections.height;
  return shown / static_cast<double>(std::max<size_t>(1, count)) + 2 * used / std::max(1.0, area);
}

// Moves the ends of columns by a group as long as the picture becomes better.
void refine(const std::vector<Item>& items, const std::vector<size_t>& groups, const Canvas& canvas, Candidate& best) {
  const auto group_at = [&](size_t item) {
    return static_cast<size_t>(std::lower_bound(groups.begin(), groups.end(), item) - groups.begin());
  };
  bool better = true;
  for (int round = 0; round < 8 && better; ++round) {
    better = false;
    for (size_t c = 1; c + 1 < best.cuts.size(); ++c) {
      for (int step : {-1, 1, -2, 2}) {
        const size_t group = group_at(best.cuts[c]) + static_cast<size_t>(step);
        if (group >= groups.size() || groups[group] <= best.cuts[c - 1] || groups[group] >= best.cuts[c + 1]) continue;
        Candidate moved = best;
        moved.cuts[c] = groups[group];
        if (!fits(items, moved.cuts, moved.room)) continue;
        for (size_t changed : {c - 1, c})
          moved.columns[changed] = lay_column(items, moved.cuts[changed], moved.cuts[changed + 1], moved.room);
        moved.score = score_of(moved, canvas);
        if (moved.score <= best.score + 1e-9) continue;
        best = std::move(moved);
        better = true;
      }
    }
  }
}

// Sections of one kind and shape, in whichever columns.
struct Equals {
  struct Member {
    size_t column, cell;
  };
  size_t item = 0;  // one of them
  std::vector<Member> members;
};

std::vector<Equals> equals_of(const std::vector<Item>& items, const Candidate& page) {
  std::map<std::pair<Kind, std::vector<int64_t>>, size_t> known;
  std::vector<Equals> all;
  for (size_t c = 0; c < page.columns.size(); ++c) {
    for (size_t k = 0; k < page.columns[c].cells.size(); ++k) {
      const size_t item = page.cuts[c] + k;
      const TensorShape& shape = *items[item].shape;
      const auto found = known.emplace(std::make_pair(resolve_kind(shape.kind, shape.shape), shape.shape), all.size());
      if (found.second) all.push_back({item, {}});
      all[found.first->second].members.push_back({c, k});
    }
  }
  return all;
}

// Of equal strips the lowest line, of other equals the smallest arrangement: all columns have room for these.
void arrange_alike(const std::vector<Item>& items, const Equals& equals, Candidate& page) {
  const auto cell_of = [&](const Equals::Member& m) -> Cell& { return page.columns[m.column].cells[m.cell]; };
  const auto smaller = [&](const Equals::Member& a, const Equals::Member& b) {
    const Arrangement &x = cell_of(a).arrangement, &y = cell_of(b).arrangement;
    return x.height != y.height ? x.height < y.height : x.shown > y.shown;
  };
  const bool strip = is_strip(items[equals.item], page.room);
  const Arrangement alike =
      cell_of(*std::min_element(equals.members.begin(), equals.members.end(), smaller)).arrangement;
  for (const auto& member : equals.members) {
    Cell& cell = cell_of(member);
    if (!strip) page.columns[member.column].left += static_cast<int>(cell.arrangement.height - alike.height);
    cell.arrangement = alike;
  }
}

// Gives what columns have left to equals that can all use it.
void enlarge_alike(const std::vector<Item>& items, const std::vector<Equals>& all, Candidate& page) {
  if (page.room.tall_vectors) return;
  std::vector<int> count(page.columns.size());  // of the members of one Equals
  for (int round = 1; round <= 16; round *= 2) {
    for (const Equals& equals : all) {
      if (is_strip(items[equals.item], page.room)) continue;
      std::fill(count.begin(), count.end(), 0);
      for (const auto& member : equals.members) ++count[member.column];
      int more = page.room.height;
      for (size_t c = 0; c < count.size(); ++c) {
        if (count[c] == 0) continue;
        const int fair = page.columns[c].left * round / static_cast<int>(page.columns[c].cells.size());
        more = std::min({more, fair, page.columns[c].left / count[c]});
      }
      if (more < 1) continue;
      const auto& first = equals.members.front();
      const Arrangement now = page.columns[first.column].cells[first.cell].arrangement;
      const Arrangement larger = enlarged(items[equals.item], page.room, now, more, /*last_resort=*/round > 4);
      for (const auto& member : equals.members) {
        page.columns[member.column].cells[member.cell].arrangement = larger;
        page.columns[member.column].left -= static_cast<int>(larger.height - now.height);
      }
    }
  }
}

// Sections of one kind and shape are arranged alike.
void equalize(const std::vector<Item>& items, const Canvas& canvas, Candidate& page) {
  const std::vector<Equals> all = equals_of(items, page);
  if (std::all_of(all.begin(), all.end(), [](const Equals& equals) { return equals.members.size() == 1; })) return;
  for (const Equals& equals : all) arrange_alike(items, equals, page);
  enlarge_alike(items, all, page);
  for (size_t c = 0; c < page.columns.size(); ++c) place_cells(items, page.cuts[c], page.room, page.columns[c]);
  page.score = score_of(page, canvas);
}

std::vector<double> costs_before(const std::vector<Item>& items, const std::vector<size_t>& groups, const Room& room) {
  std::vector<double> before{0};
  for (size_t g = 0; g + 1 < groups.size(); ++g) {
    double cost = 0;
    for (size_t k = groups[g]; k < groups[g + 1]; ++k) {
      cost += gap_above(items[k], room) + caption_above(items[k], room);
      if (is_strip(items[k], room)) {
        cost += room.detail->vector;
      } else {
        const int64_t want = heights_of(items[k].tiles, items[k].shape->shape, room.width).want;
        cost +=
            std::max<double>(lowest(items[k], room), std::min<double>(static_cast<double>(want), 0.7 * room.height));
      }
    }
    before.push_back(before.back() + cost);
  }
  return before;
}

// The best layout of items begin..end at this detail; no columns when they do not fit.
Candidate lay_page(const std::vector<Item>& items, size_t begin, size_t end, const Canvas& canvas, const Detail& detail,
                   bool tall_vectors, bool show_all) {
  Candidate best;
  const int most = std::max(1, (canvas.sections.width + FitMetrics::kGap) / (detail.column_width + FitMetrics::kGap));
  int tried = 0, letters = 0;
  for (size_t k = begin; k < end; ++k)
    if (items[k].tiles.vector) letters = std::max(letters, items[k].letters);
  for (int columns = most; columns >= 1 && tried < 6; --columns) {
    Candidate candidate;
    candidate.room = room_of(canvas, detail, columns, letters, tall_vectors, show_all);
    const std::vector<size_t> groups = groups_of(items, begin, end, candidate.room);
    if (static_cast<size_t>(columns) > groups.size() - 1) continue;
    const Cuts fewest = fill_columns(items, groups, candidate.room);
    if (static_cast<int>(fewest.size()) - 1 > columns || !fits(items, fewest, candidate.room)) break;
    candidate.cuts = balance(costs_before(items, groups, candidate.room), groups, columns);
    if (!fits(items, candidate.cuts, candidate.room)) candidate.cuts = fewest;
    for (size_t c = 0; c + 1 < candidate.cuts.size(); ++c)
      candidate.columns.push_back(lay_column(items, candidate.cuts[c], candidate.cuts[c + 1], candidate.room));
    candidate.score = score_of(candidate, canvas);
    if (groups.size() <= kRefinedGroups) refine(items, groups, canvas, candidate);
    equalize(items, canvas, candidate);
    if (best.columns.empty() || candidate.score > best.score) best = std::move(candidate);
    ++tried;
  }
  return best;
}

// ---- Pages

// First items of the pages, when even the smallest detail does not hold all on one.
Cuts pages_of(const std::vector<Item>& items, const Canvas& canvas, bool show_all) {
  const Detail& detail = kDetails[kDetailCount - 1];
  const int columns =
      std::max(1, (canvas.sections.width + FitMetrics::kGap) / (detail.column_width + FitMetrics::kGap));
  const Room room = room_of(canvas, detail, columns, 0, false, show_all);
  const std::vector<size_t> groups = groups_of(items, 0, items.size(), room);
  const Cuts filled = fill_columns(items, groups, room);
  Cuts pages;
  for (size_t c = 0; c + 1 < filled.size(); c += static_cast<size_t>(columns)) pages.push_back(filled[c]);
  pages.push_back(items.size());
  return pages;
}

Section section_of(const Item& item, const Cell& cell, const Room& room, int x, int top) {
  const bool strip = is_strip(item, room);
  const int caption_height = strip ? 0 : caption_above(item, room);
  const int name = strip ? room.width - picture_width(item, room) : 0;
  Rect picture{x + name, top + cell.y + caption_height, static_cast<int>(cell.arrangement.width),
               static_cast<int>(cell.arrangement.height)};
  if (strip) picture.y += (cell.height - picture.height) / 2;
  Section section = tile_section(item.tiles, *item.shape, cell.arrangement, picture);
  section.tensor = item.tensor;
  section.area = {x, top + cell.y, room.width, caption_height + cell.height};
  section.caption_inline = strip && name > 0;
  section.caption = {x, top + cell.y, room.width, caption_height};
  if (section.caption_inline) {
    const int line = std::min(room.detail->vector, cell.height);
    section.caption = {x, top + cell.y + (cell.height - line) / 2, name, line};
  }
  return section;
}

// Samples the largest sections until all values together keep within the bound.
bool bound_values(const std::vector<Item>& items, int64_t max_values, Candidate& page) {
  bool bounded = false;
  const auto total = [&] {
    int64_t values = 0;
    for (const Column& column : page.columns)
      for (const Cell& cell : column.cells) values += cell.arrangement.shown;
    return values;
  };
  for (int64_t bound = max_values; total() > max_values && bound >= 1; bound /= 2) {
    for (size_t c = 0; c < page.columns.size(); ++c) {
      for (size_t k = 0; k < page.columns[c].cells.size(); ++k) {
        Cell& cell = page.columns[c].cells[k];
        const Item& item = items[page.cuts[c] + k];
        if (cell.arrangement.shown <= bound) continue;
        bounded = true;
        ArrangeRules rules;
        rules.sample = true;
        rules.max_values = bound;
        cell.arrangement = arrange(item.tiles, item.shape->shape, static_cast<int>(cell.arrangement.width),
                                   static_cast<int>(cell.arrangement.height), rules);
      }
    }
  }
  return bounded;
}

std::vector<Item> items_of(const std::vector<TensorShape>& tensors, bool show_all) {
  std::vector<Item> items;
  items.reserve(tensors.size());
  for (size_t k = 0; k < tensors.size(); ++k) {
    const bool joined = k > 0 && !tensors[k].module.empty() && tensors[k].module == tensors[k - 1].module;
    Tiles tiles = read_as_tiles(tensors[k], show_all);
    const int letters = tiles.vector ? letters_of(tensors[k].name) : caption_letters(tensors[k]);
    items.push_back({k, &tensors[k], std::move(tiles), joined, letters});
  }
  return items;
}

}  // namespace

Layout fit_layout(const std::vector<TensorShape>& tensors, int width, int height, bool show_all, int page,
                  int64_t max_values) {
  const Canvas canvas = canvas_of(width, height);
  Layout layout;
  layout.width = canvas.width;
  layout.height = canvas.height;
  layout.footer = canvas.footer;
  layout.total_sections = tensors.size();
  if (tensors.empty()) return layout;

  const std::vector<Item> items = items_of(tensors, show_all);
  const Cuts pages = pages_of(items, canvas, show_all);
  layout.pages = static_cast<int>(pages.size()) - 1;
  layout.page = std::clamp(page, 0, layout.pages - 1);
  const size_t begin = pages[static_cast<size_t>(layout.page)], end = pages[static_cast<size_t>(layout.page) + 1];
  layout.first_section = begin;

  const bool only_vectors =
      std::all_of(items.begin() + static_cast<std::ptrdiff_t>(begin), items.begin() + static_cast<std::ptrdiff_t>(end),
                  [](const Item& item) { return item.tiles.vector; });
  Candidate best;
  if (only_vectors) best = lay_page(items, begin, end, canvas, kDetails[0], true, show_all);
  for (size_t k = 0; k < kDetailCount && best.columns.empty(); ++k) {
    best = lay_page(items, begin, end, canvas, kDetails[k], false, show_all);
    layout.captions = kDetails[k].captions;
  }
  if (max_values > 0 && bound_values(items, max_values, best))
    layout.reduced = "sampled to keep within " + std::to_string(max_values) + " values";
  for (size_t c = 0; c < best.columns.size(); ++c) {
    const int x = canvas.sections.x + static_cast<int>(c) * (best.room.width + FitMetrics::kGap);
    for (size_t k = 0; k < best.columns[c].cells.size(); ++k)
      layout.sections.push_back(
          section_of(items[best.cuts[c] + k], best.columns[c].cells[k], best.room, x, canvas.sections.y));
  }
  return layout;
}

}  // namespace beholder
