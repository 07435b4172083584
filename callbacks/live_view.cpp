#include "beholder/callbacks/live_view.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "beholder/state.h"
#include "beholder/threads.h"

namespace beholder {
namespace {

using Clock = std::chrono::steady_clock;

// How soon viewers learn of a new film, which nobody announces.
constexpr auto kLookForFilms = std::chrono::seconds(1);
constexpr auto kLookAtMachine = std::chrono::milliseconds(500);
// How long a viewer is kept from a picture by the budget: what viewers ask besides pictures could use all of it.
constexpr auto kLongestPause = std::chrono::seconds(1);
constexpr size_t kMostRecordings = 1000;

/// Half of the budget of all our threads at most: the other half is for making the pictures.
double share_of(const Run& run, double max_cpu) {
  const double all = run.state ? run.state().max_background : 0;
  return all > 0 ? std::min(max_cpu, all / 2) : max_cpu;
}

bool same_films(const std::vector<RecordingFile>& a, const std::vector<RecordingFile>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const auto& x, const auto& y) { return x.name == y.name; });
}

bool same_places(const Picture& a, const Picture& b) {
  if (a.width != b.width || a.height != b.height || a.sections.size() != b.sections.size()) return false;
  for (size_t i = 0; i < a.sections.size(); ++i) {
    if (a.sections[i].name != b.sections[i].name) return false;
  }
  if (a.layout == b.layout) return true;
  if (!a.layout || !b.layout) return false;
  return a.layout->footer == b.layout->footer &&
         std::equal(a.layout->sections.begin(), a.layout->sections.end(), b.layout->sections.begin(),
                    b.layout->sections.end(), [](const Section& x, const Section& y) {
                      return x.area == y.area && x.caption == y.caption && x.picture == y.picture &&
                             x.caption_inline == y.caption_inline;
                    });
}

/// The settings ask for values that no picture has shown yet.
bool waits_for_update(const std::shared_ptr<const Picture>& picture, const Settings& settings) {
  return !picture || needs_capture(picture->settings, settings);
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() > end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

bool is_recording_name(const std::string& name) {
  if (name.compare(0, 6, "video-") != 0 || name.size() > 128) return false;
  for (const char c : name) {
    const bool plain =
        (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' || c == '.';
    if (!plain) return false;
  }
  return ends_with(name, ".mp4") || ends_with(name, ".mkv") || ends_with(name, ".jsonl");
}

std::vector<RecordingFile> recordings_in(const std::string& directory) {
  std::vector<RecordingFile> films;
  DIR* folder = ::opendir(directory.c_str());
  if (!folder) return films;
  while (const dirent* entry = ::readdir(folder)) {
    const std::string name = entry->d_name;
    if (!is_recording_name(name) || ends_with(name, ".jsonl")) continue;
    struct stat status {};
    if (::fstatat(::dirfd(folder), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(status.st_mode))
      continue;
    films.push_back({name, static_cast<int64_t>(status.st_size),
                     static_cast<double>(status.st_mtim.tv_sec) + 1e-9 * static_cast<double>(status.st_mtim.tv_nsec)});
  }
  ::closedir(folder);
  // Names begin with the time: newest first also where films were copied.
  std::sort(films.begin(), films.end(),
            [](const auto& a, const auto& b) { return a.time != b.time ? a.time > b.time : a.name > b.name; });
  if (films.size() > kMostRecordings) films.resize(kMostRecordings);
  return films;
}

LiveView::LiveView(const Run& run, double max_cpu) : run_(run), cpu_(share_of(run, max_cpu), run.bill) {
  if (auto picture = run_.last_picture ? run_.last_picture() : nullptr) show(std::move(picture));
  recordings_ = recordings_in(run_.directory);
  note_settings();
  listener_ = run_.settings->add_listener([this] {
    note_settings();
    changed();
  });
  try {
    thread_ = std::thread([this] { watch(); });
  } catch (...) {
    run_.settings->remove_listener(listener_);
    throw;
  }
}

LiveView::~LiveView() {
  run_.settings->remove_listener(listener_);
  end();
  thread_.join();
}

void LiveView::show(std::shared_ptr<const Picture> picture) {
  const Settings settings = run_.settings->get();  // who changes them later announces it
  std::shared_ptr<const Picture> before;           // let go after the lock
  {
    MutexLock lock(mutex_);
    // What open() found may come again.
    if (now_.picture && picture->sequence <= now_.sequence) return;
    if (!now_.picture || !same_places(*now_.picture, *picture)) ++now_.layout;
    if (waits_for_update(now_.picture, settings) != waits_for_update(picture, settings)) ++now_.revision;
    before = std::exchange(now_.picture, std::move(picture));
    now_.sequence = now_.picture->sequence;
  }
  changed_.notify_all();
}

void LiveView::changed() {
  {
    MutexLock lock(mutex_);
    ++now_.revision;
  }
  changed_.notify_all();
}

void LiveView::end() {
  {
    MutexLock lock(mutex_);
    if (std::exchange(now_.ended, true)) return;
    ++now_.revision;
  }
  changed_.notify_all();
  watchers_.notify_all();
}

void LiveView::look_up() {
  { MutexLock lock(mutex_); }  // nobody is between looking and waiting
  changed_.notify_all();
}

LiveView::Now LiveView::now() const {
  MutexLock lock(mutex_);
  return now_;
}

void LiveView::note_settings() {
  const std::string solo = run_.settings->get().solo;
  MutexLock lock(mutex_);
  if (!solo.empty()) last_solo_ = solo;
}

std::string LiveView::last_solo() const {
  MutexLock lock(mutex_);
  return last_solo_;
}

bool LiveView::waiting_for_update() const { return waits_for_update(now().picture, run_.settings->get()); }

std::vector<RecordingFile> LiveView::recordings() const {
  MutexLock lock(mutex_);
  return recordings_;
}

LiveView::Now LiveView::look() {
  auto films = recordings_in(run_.directory);
  bool news;
  Now now;
  {
    MutexLock lock(mutex_);
    news = !same_films(films, recordings_);
    recordings_.swap(films);
    if (news) ++now_.revision;
    now = now_;
  }
  if (news) changed_.notify_all();
  return now;
}

void LiveView::watch() {
  begin_own_thread("bh live watch");
  double cpu_before = thread_cpu_seconds();
  auto films_again = Clock::now(), machine_again = films_again;
  MutexLock lock(mutex_);
  while (!now_.ended) {
    if (waiting_ == 0) {
      watchers_.wait(lock, [this]() BEHOLDER_REQUIRES(mutex_) { return now_.ended || waiting_ > 0; });
    } else {
      watchers_.wait_for(lock, kLookAtMachine, [this]() BEHOLDER_REQUIRES(mutex_) { return now_.ended; });
    }
    if (now_.ended) break;
    lock.unlock();
    try {
      if (Clock::now() >= machine_again) {
        machine_again = Clock::now() + kLookAtMachine;
        cpu_.look_at_machine();
      }
      if (Clock::now() >= films_again) {
        films_again = Clock::now() + kLookForFilms;
        look();
      }
    } catch (const std::exception&) {  // no memory: looks again
    }
    const double cpu = thread_cpu_seconds();
    cpu_.pay(cpu - cpu_before);
    cpu_before = cpu;
    lock.lock();
  }
}

LiveView::Answer LiveView::wait(const Wish& wish, const std::function<bool()>& gone) {
  MutexLock lock(mutex_);
  if (++waiting_ == 1) watchers_.notify_one();
  Answer answer;
  auto held_until = Clock::time_point::max();
  for (;;) {
    const bool there = now_.picture && (!wish.after || now_.sequence > *wish.after);
    const bool other_state = wish.revision && *wish.revision != now_.revision;
    const auto now = Clock::now();
    auto until = wish.deadline;
    if (there) {
      held_until = std::min(held_until, now + kLongestPause);
      const auto free = std::min(cpu_.free_from(), held_until);
      if (free <= now) {
        answer.picture_due = true;
        break;
      }
      until = std::min(until, free);
    }
    if (other_state || now_.ended || now >= wish.deadline || gone()) break;
    changed_.wait_until(lock, until);
  }
  --waiting_;
  answer.now = now_;
  return answer;
}

}  // namespace beholder
