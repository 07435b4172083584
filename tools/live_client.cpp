#include "tools/live_client.h"

#include <httplib.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <nlohmann/json.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>

#include "beholder/callbacks/live_file.h"
#include "beholder/thread_safety.h"

namespace beholder::viewer {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr size_t kMaxBody = size_t{512} << 20;    // of one answer
constexpr size_t kMaxWaitingActions = 32;         // a key that is held down shall not run on for seconds
constexpr milliseconds kStateInterval(250);       // numbers that change faster cannot be read
constexpr milliseconds kIdleStateInterval(1000);  // counters, while no picture comes
constexpr milliseconds kSearchInterval(250);
constexpr int kLongPollMs = 1000;

/// Where the server of one run is. A value.
struct Endpoint {
  std::string host, token;
  int port = 0;
  std::string nonce;      // empty: not known yet
  std::string directory;  // of its live.json; empty for a URL
  std::string path;       // see LiveTarget
  friend bool operator==(const Endpoint& a, const Endpoint& b) {
    return a.host == b.host && a.port == b.port && a.token == b.token && a.path == b.path;
  }
};

std::unique_ptr<httplib::Client> client_of(const Endpoint& endpoint) {
  auto client = std::make_unique<httplib::Client>(endpoint.host, endpoint.port);
  client->set_keep_alive(true);
  client->set_tcp_nodelay(true);
  client->set_connection_timeout(3, 0);
  client->set_read_timeout(15, 0);
  client->set_write_timeout(10, 0);
  // identity: compressing on loopback would cost the training's machine for nothing.
  client->set_default_headers({{"Authorization", "Bearer " + endpoint.token}, {"Accept-Encoding", "identity"}});
  return client;
}

uint64_t number_in(const httplib::Response& response, const char* header) {
  const std::string text = response.get_header_value(header);
  return text.empty() ? 0 : std::strtoull(text.c_str(), nullptr, 10);
}

/// An answer whose transfer was timed.
struct Reply {
  int status = 0;  // 0: no answer
  uint64_t sequence = 0, revision = 0, layout = 0;
  int64_t step = 0;
  int width = 0, height = 0;
  std::string body;
  double body_seconds = 0;  // from the headers to the end
};

Reply get(httplib::Client& client, const std::string& path) {
  Reply reply;
  auto headers_came = Clock::now();
  const auto read_headers = [&](const httplib::Response& response) {
    reply.status = response.status;
    reply.sequence = number_in(response, "X-Beholder-Sequence");
    reply.revision = number_in(response, "X-Beholder-Revision");
    reply.layout = number_in(response, "X-Beholder-Layout");
    reply.step = static_cast<int64_t>(number_in(response, "X-Beholder-Step"));
    reply.width = static_cast<int>(std::min<uint64_t>(number_in(response, "X-Beholder-Width"), 1 << 20));
    reply.height = static_cast<int>(std::min<uint64_t>(number_in(response, "X-Beholder-Height"), 1 << 20));
  };
  const auto result = client.Get(
      path.c_str(), httplib::Headers{},
      [&](const httplib::Response& response) {
        headers_came = Clock::now();
        read_headers(response);
        const uint64_t length = number_in(response, "Content-Length");
        if (length > kMaxBody) return false;
        reply.body.reserve(length);
        return true;
      },
      [&](const char* data, size_t size) {
        if (reply.body.size() + size > kMaxBody) return false;
        reply.body.append(data, size);
        return true;
      });
  reply.body_seconds = std::chrono::duration<double>(Clock::now() - headers_came).count();
  if (!result) {
    reply.status = 0;
  } else if (reply.status == 0) {
    read_headers(*result);  // 204 has no body, and does not call the first function
  }
  return reply;
}

/// nullptr where the bytes are no picture.
std::shared_ptr<const LivePixels> decode(Reply&& reply, PictureFormat format) {
  auto pixels = std::make_shared<LivePixels>();
  pixels->sequence = reply.sequence;
  pixels->layout = reply.layout;
  pixels->step = reply.step;
  pixels->format = format;
  const auto* bytes = reinterpret_cast<const uint8_t*>(reply.body.data());
  if (format == PictureFormat::Raw) {
    if (reply.width <= 0 || reply.height <= 0 ||
        reply.body.size() != static_cast<size_t>(reply.width) * static_cast<size_t>(reply.height) * 3) {
      return nullptr;
    }
    pixels->width = reply.width;
    pixels->height = reply.height;
    pixels->rgb.assign(bytes, bytes + reply.body.size());
    return pixels;
  }
  try {
    const cv::Mat encoded(1, static_cast<int>(reply.body.size()), CV_8UC1, const_cast<uint8_t*>(bytes));
    cv::Mat decoded = cv::imdecode(encoded, cv::IMREAD_COLOR);
    if (decoded.empty()) return nullptr;
    cv::cvtColor(decoded, decoded, cv::COLOR_BGR2RGB);
    pixels->width = decoded.cols;
    pixels->height = decoded.rows;
    pixels->rgb.assign(decoded.datastart, decoded.dataend);
    return pixels;
  } catch (const cv::Exception&) {
    return nullptr;
  }
}

std::string first_line(const std::string& text) { return text.substr(0, std::min<size_t>(text.find('\n'), 300)); }

}  // namespace

LiveTarget parse_live_target(const std::string& argument) {
  LiveTarget target;
  const std::string scheme = "http://";
  if (argument.compare(0, scheme.size(), scheme) != 0) {
    if (argument.find("://") != std::string::npos) {
      throw std::invalid_argument(
          "expected a log directory or a URL that begins with http://, as the training prints it");
    }
    if (argument.empty()) throw std::invalid_argument("expected a log directory or a URL; found nothing");
    target.folder = argument;
    return target;
  }
  const std::string expected = "expected a URL as the training prints it, http://HOST:PORT/?token=...; found no ";
  const size_t path = std::min(argument.find('/', scheme.size()), argument.find('?', scheme.size()));
  std::string authority = argument.substr(scheme.size(), path == std::string::npos ? path : path - scheme.size());
  const size_t colon = authority.rfind(':');
  const size_t bracket = authority.rfind(']');  // of an IPv6 address
  if (colon == std::string::npos || (bracket != std::string::npos && colon < bracket)) {
    target.port = 80;
  } else {
    const std::string port = authority.substr(colon + 1);
    if (port.empty() || port.size() > 5 || port.find_first_not_of("0123456789") != std::string::npos ||
        std::stoi(port) < 1 || std::stoi(port) > 65535) {
      throw std::invalid_argument(expected + "port from 1 to 65535");
    }
    target.port = std::stoi(port);
    authority.resize(colon);
  }
  if (authority.size() > 2 && authority.front() == '[' && authority.back() == ']') {
    authority = authority.substr(1, authority.size() - 2);
  }
  if (authority.empty()) throw std::invalid_argument(expected + "host");
  target.host = authority;
  const std::string rest = path == std::string::npos ? "" : argument.substr(path, argument.find('#', path) - path);
  const size_t query = std::min(rest.find('?'), rest.size());
  // As a browser takes the page's relative addresses: the folder, without its last '/'.
  const size_t folder_end = rest.substr(0, query).rfind('/');
  if (folder_end != std::string::npos) target.path = rest.substr(0, folder_end);
  for (const char c : target.path) {
    if (c <= ' ' || c == 127) throw std::invalid_argument(expected + "path without spaces");
  }
  for (size_t begin = query + 1; begin < rest.size() && target.token.empty();) {
    const size_t end = std::min(rest.find('&', begin), rest.size());
    if (rest.compare(begin, 6, "token=") == 0) target.token = rest.substr(begin + 6, end - begin - 6);
    begin = end + 1;
  }
  if (target.token.empty() || target.token.find_first_of("\r\n ") != std::string::npos) {
    throw std::invalid_argument(expected + "token");
  }
  return target;
}

/// What the threads share.
struct LiveClient::Shared {
  // Set before the threads begin; the last is used by the thread that owns the client.
  LiveTarget target;
  bool state_of_each_picture = false;
  std::vector<std::thread> threads;

  mutable Mutex mutex;
  Condition changed;  // stopping, endpoint, actions, question
  bool stopping BEHOLDER_GUARDED_BY(mutex) = false;
  RunView view BEHOLDER_GUARDED_BY(mutex);
  std::shared_ptr<const RunView> published BEHOLDER_GUARDED_BY(mutex) = std::make_shared<RunView>();
  std::optional<Endpoint> endpoint BEHOLDER_GUARDED_BY(mutex);  // of the run that answers
  std::deque<std::string> actions BEHOLDER_GUARDED_BY(mutex);   // bodies of POST /action
  std::optional<PointedValue> question BEHOLDER_GUARDED_BY(mutex);
  std::optional<PointedValue> pointed BEHOLDER_GUARDED_BY(mutex);
  std::optional<LiveAnswer> answer BEHOLDER_GUARDED_BY(mutex);
  std::set<httplib::Client*> clients BEHOLDER_GUARDED_BY(mutex);  // to end their requests

  /// A client that stop() can interrupt.
  class Registered {
   public:
    Registered(Shared& shared, const Endpoint& endpoint) : shared_(shared), client_(client_of(endpoint)) {
      MutexLock lock(shared_.mutex);
      shared_.clients.insert(client_.get());
    }
    ~Registered() {
      MutexLock lock(shared_.mutex);
      shared_.clients.erase(client_.get());
    }
    httplib::Client& operator*() { return *client_; }
    httplib::Client* operator->() { return client_.get(); }

   private:
    Shared& shared_;
    std::unique_ptr<httplib::Client> client_;
  };

  template <typename Edit>
  void edit_view(const Edit& edit) {
    MutexLock lock(mutex);
    edit(view);
    published = std::make_shared<RunView>(view);
  }
  bool stopped() const {
    MutexLock lock(mutex);
    return stopping;
  }
  /// False when it is time to stop.
  bool pause(milliseconds time) {
    MutexLock lock(mutex);
    return !changed.wait_for(lock, time, [this]() BEHOLDER_REQUIRES(mutex) { return stopping; });
  }
  void set_endpoint(std::optional<Endpoint> now) {
    MutexLock lock(mutex);
    endpoint = std::move(now);
    if (!endpoint) actions.clear();
    changed.notify_all();
  }

  void enqueue(const nlohmann::json& action) {
    MutexLock lock(mutex);
    if (!endpoint || actions.size() >= kMaxWaitingActions) return;
    actions.push_back(action.dump());
    changed.notify_all();
  }

  std::optional<Endpoint> find() const;
  bool still_there(const Endpoint& endpoint) const;
  std::shared_ptr<const LiveState> fetch_state(httplib::Client& client, const Endpoint& endpoint,
                                               std::string* problem) const;
  void follow();
  void follow(const Endpoint& endpoint);
  void send_actions();
  void ask_values();
};

std::optional<Endpoint> LiveClient::Shared::find() const {
  if (target.folder.empty()) return Endpoint{target.host, target.token, target.port, "", "", target.path};
  std::optional<LiveRun> run;
  if (target.pid != 0) {
    run = read_live_file(target.folder + "/plugins/beholder");
    if (run && (run->pid != target.pid || !process_exists(*run))) return std::nullopt;
    if (run) run->directory = target.folder + "/plugins/beholder";
  } else {
    run = newest_live_run(target.folder, false);  // it is asked for its state anyway
  }
  if (!run) return std::nullopt;
  return Endpoint{run->address, run->token, run->port, run->nonce, run->directory, ""};
}

bool LiveClient::Shared::still_there(const Endpoint& endpoint) const {
  if (endpoint.directory.empty()) return true;  // who knows: it is asked again and again
  const auto run = read_live_file(endpoint.directory);
  return run && run->nonce == endpoint.nonce && process_exists(*run);
}

std::shared_ptr<const LiveState> LiveClient::Shared::fetch_state(httplib::Client& client, const Endpoint& endpoint,
                                                                 std::string* problem) const {
  Reply reply = get(client, endpoint.path + "/state");
  if (reply.status == 200) {
    try {
      return std::make_shared<LiveState>(parse_live_state(reply.body));
    } catch (const LiveStateError& error) {
      *problem = std::string("what answers there is no live server of this version: ") + error.what();
    }
  } else if (reply.status == 403) {
    *problem = first_line(reply.body);  // says by which names the server answers
  } else if (reply.status == 401) {
    *problem = "the server does not know this token: take the URL of the run that is there now";
  } else if (reply.status == 503) {
    *problem = "the server has too many viewers";
  } else if (reply.status != 0) {
    *problem = "the server answered " + std::to_string(reply.status) + ": " + first_line(reply.body);
  }
  return nullptr;
}

void LiveClient::Shared::follow() {
  do {
    const auto endpoint = find();
    if (endpoint) {
      follow(*endpoint);
      set_endpoint(std::nullopt);
    } else {
      edit_view([](RunView& v) {
        if (v.link != Link::Waiting) v.link = Link::Ended;
      });
    }
  } while (pause(kSearchInterval));
}

/// Until the server is gone, or it is time to stop.
void LiveClient::Shared::follow(const Endpoint& endpoint) {
  Registered client(*this, endpoint);
  std::string problem;
  auto state = fetch_state(*client, endpoint, &problem);
  if (state && !endpoint.nonce.empty() && state->nonce != endpoint.nonce) state = nullptr;  // another's: a stale file
  if (!state) {
    const bool alive = still_there(endpoint);
    edit_view([&](RunView& v) {
      if (endpoint.directory.empty() && !problem.empty()) {
        v.link = Link::Refused;
        v.problem = problem;
      } else if (v.link != Link::Waiting && v.link != Link::Ended) {
        v.link = alive ? Link::Reconnecting : Link::Ended;
      }
    });
    return;
  }
  edit_view([&](RunView& v) {
    if (!v.state || v.state->nonce != state->nonce) v.pixels = nullptr;  // the old run's
    v.link = Link::Connected;
    v.problem.clear();
    v.state = state;
    if (endpoint.nonce.empty()) v.where = endpoint.host + ":" + std::to_string(endpoint.port) + endpoint.path;
  });
  set_endpoint(endpoint);

  FormatChoice choice;
  std::shared_ptr<const LivePixels> shown;
  auto state_time = Clock::now();
  size_t raw_bytes =
      state->picture ? static_cast<size_t>(state->picture->width) * static_cast<size_t>(state->picture->height) * 3 : 0;
  bool exact_now = false;  // the same picture again, without loss
  while (!stopped()) {
    const PictureFormat format = exact_now ? PictureFormat::Png : choice.next(raw_bytes);
    const uint64_t after = shown ? shown->sequence - (exact_now ? 1 : 0) : 0;
    Reply reply = get(*client, endpoint.path + "/frame?after=" + std::to_string(after) +
                                   "&revision=" + std::to_string(state->revision) + "&format=" + to_string(format) +
                                   "&timeout_ms=" + std::to_string(kLongPollMs));
    if (reply.status == 503) {
      if (!pause(milliseconds(1000))) return;
      continue;
    }
    if (reply.status != 200 && reply.status != 204) {
      const bool alive = still_there(endpoint);
      edit_view([&](RunView& v) {
        if (v.link != Link::Ended) v.link = alive ? Link::Reconnecting : Link::Ended;
      });
      return;
    }
    const uint64_t revision = reply.revision, layout = reply.layout;
    const bool came = reply.status == 200;
    // A quiet link: what came with losses is fetched once more without them.
    exact_now = !came && !exact_now && revision == state->revision && shown && shown->format == PictureFormat::Jpeg;
    if (came) {
      choice.transferred(format, reply.body.size(), reply.body_seconds);
      auto pixels = decode(std::move(reply), format);
      if (pixels) {
        shown = pixels;
        raw_bytes = pixels->rgb.size();
        // Together with the state that says where things stand in it: at once where that is known.
        if (layout == state->picture_layout) edit_view([&](RunView& v) { v.pixels = pixels; });
      }
    }
    const auto age = Clock::now() - state_time;
    const bool moved = shown && layout != state->picture_layout;
    if (revision == state->revision && !moved && !(came && (age >= kStateInterval || state_of_each_picture)) &&
        age < kIdleStateInterval) {
      continue;
    }
    auto next = fetch_state(*client, endpoint, &problem);
    if (!next) continue;  // the next /frame tells whether the server is there
    state_time = Clock::now();
    state = std::move(next);
    edit_view([&](RunView& v) {
      v.state = state;
      if (shown) v.pixels = shown;
      v.link = state->ended ? Link::Ended : Link::Connected;
    });
  }
}

void LiveClient::Shared::send_actions() {
  std::unique_ptr<Registered> client;
  std::optional<Endpoint> connected;
  for (;;) {
    std::string body;
    Endpoint now;
    {
      MutexLock lock(mutex);
      changed.wait(lock, [this]() BEHOLDER_REQUIRES(mutex) { return stopping || (endpoint && !actions.empty()); });
      if (stopping) break;
      body = std::move(actions.front());
      actions.pop_front();
      now = *endpoint;
    }
    if (!client || !(connected && *connected == now)) {
      client.reset();
      client = std::make_unique<Registered>(*this, now);
      connected = now;
    }
    const auto result = (*client)->Post((now.path + "/action").c_str(), body, "application/json");
    if (!result) continue;  // follow() says that the server is gone
    LiveAnswer said;
    said.time = Clock::now();
    said.failed = result->status != 200;
    const auto json = nlohmann::json::parse(result->body, nullptr, false);
    if (json.is_object() && json.contains("path") && json["path"].is_string()) {
      said.text = "saved " + json["path"].get<std::string>();
    } else if (json.is_object() && json.contains("error") && json["error"].is_string()) {
      said.text = json["error"].get<std::string>();
    } else if (said.failed) {
      said.text = "the server answered " + std::to_string(result->status) + ": " + first_line(result->body);
    }
    if (said.text.empty()) continue;
    MutexLock lock(mutex);
    answer = std::move(said);
  }
  client.reset();
}

void LiveClient::Shared::ask_values() {
  std::unique_ptr<Registered> client;
  std::optional<Endpoint> connected;
  for (;;) {
    PointedValue asked;
    Endpoint now;
    {
      MutexLock lock(mutex);
      changed.wait(lock, [this]() BEHOLDER_REQUIRES(mutex) { return stopping || (endpoint && question); });
      if (stopping) break;
      asked = *question;
      question.reset();
      now = *endpoint;
    }
    if (!client || !(connected && *connected == now)) {
      client.reset();
      client = std::make_unique<Registered>(*this, now);
      connected = now;
    }
    Reply reply = get(**client, now.path + "/value?seq=" + std::to_string(asked.sequence) +
                                    "&x=" + std::to_string(asked.x) + "&y=" + std::to_string(asked.y));
    if (reply.status == 200) {
      const auto json = nlohmann::json::parse(reply.body, nullptr, false);
      if (json.is_object() && json.contains("index") && json["index"].is_array()) {
        ShownValue shown;
        shown.section = json.value("section", size_t{0});
        for (const auto& i : json["index"]) shown.index.push_back(i.is_number_integer() ? i.get<int64_t>() : 0);
        const auto value = json.find("value");
        shown.value = value != json.end() && value->is_number() ? value->get<double>() : NAN;
        const auto exact = json.find("text");
        if (exact != json.end() && exact->is_string()) shown.text = exact->get<std::string>();
        asked.value = std::move(shown);
      }
    }
    MutexLock lock(mutex);
    pointed = std::move(asked);
  }
  client.reset();
}

LiveClient::LiveClient(LiveTarget target, bool state_of_each_picture) : shared_(std::make_unique<Shared>()) {
  shared_->target = std::move(target);
  shared_->state_of_each_picture = state_of_each_picture;
  shared_->view.where = shared_->target.folder.empty()
                            ? shared_->target.host + ":" + std::to_string(shared_->target.port)
                            : shared_->target.folder;
  shared_->published = std::make_shared<RunView>(shared_->view);
  auto* shared = shared_.get();
  shared->threads.emplace_back([shared] { shared->follow(); });
  shared->threads.emplace_back([shared] { shared->send_actions(); });
  shared->threads.emplace_back([shared] { shared->ask_values(); });
}

LiveClient::~LiveClient() {
  {
    MutexLock lock(shared_->mutex);
    shared_->stopping = true;
    for (auto* client : shared_->clients) client->stop();
  }
  shared_->changed.notify_all();
  for (auto& thread : shared_->threads) thread.join();
}

std::shared_ptr<const RunView> LiveClient::view() const {
  MutexLock lock(shared_->mutex);
  return shared_->published;
}

void LiveClient::act(const std::string& control, int direction) {
  shared_->enqueue({{"control", control}, {"direction", direction}});
}

void LiveClient::toggle_solo(const std::string& section) {
  shared_->enqueue({{"control", "solo_toggle"}, {"section", section}});
}

void LiveClient::pan(int dx, int dy) { shared_->enqueue({{"control", "pan"}, {"dx", dx}, {"dy", dy}}); }

std::optional<LiveAnswer> LiveClient::answer() const {
  MutexLock lock(shared_->mutex);
  return shared_->answer;
}

void LiveClient::point_at(uint64_t sequence, int x, int y) {
  MutexLock lock(shared_->mutex);
  shared_->question = PointedValue{sequence, x, y, std::nullopt};
  shared_->changed.notify_all();
}

std::optional<PointedValue> LiveClient::pointed() const {
  MutexLock lock(shared_->mutex);
  return shared_->pointed;
}

}  // namespace beholder::viewer
