#include "beholder/callbacks/live_endpoints.h"

#include <fcntl.h>
#include <httplib.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <functional>
#include <optional>
#include <stdexcept>
#include <utility>

#include "beholder/callbacks/captions.h"
#include "beholder/callbacks/film_index.h"
#include "beholder/callbacks/live_actions.h"
#include "beholder/callbacks/live_encodings.h"
#include "beholder/callbacks/live_json.h"
#include "beholder/callbacks/live_page.h"
#include "beholder/callbacks/png_writer.h"
#include "beholder/log.h"
#include "beholder/thread_safety.h"
#include "beholder/threads.h"

namespace beholder {
namespace {

using httplib::Request;
using httplib::Response;
using Clock = std::chrono::steady_clock;

constexpr int64_t kDefaultWaitMs = 10000, kMaxWaitMs = 20000;
constexpr size_t kFileChunk = 256 * 1024;
constexpr const char* kRetrySeconds = "2";
constexpr const char* kBoundary = "beholder-picture";

/// Pays for the CPU time of this thread as it goes.
class CpuMeter {
 public:
  explicit CpuMeter(CpuShare& share) : share_(share) {}
  ~CpuMeter() { pay(); }
  void pay() {
    const double now = thread_cpu_seconds();
    share_.pay(now - before_);
    before_ = now;
  }

 private:
  CpuShare& share_;
  double before_ = thread_cpu_seconds();
};

/// What this thread is answering: cpp-httplib's handlers are not told.
struct Serving {
  Exchange& exchange;
  CpuMeter cpu;
};
thread_local Serving* serving = nullptr;

/// A request that is complete, and its answer, as cpp-httplib sees a connection. Not marked `override`: which members
/// are virtual differs between its versions.
class ExchangeStream : public httplib::Stream {
 public:
  explicit ExchangeStream(Exchange& exchange) : exchange_(exchange) {}
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsuggest-override"
  bool is_readable() const { return read_ < exchange_.size(); }
  bool wait_readable() const { return is_readable(); }
  bool is_writable() const { return true; }
  bool wait_writable() const { return true; }
  ssize_t read(char* to, size_t size) {
    const size_t n = std::min(size, exchange_.size() - read_);
    std::memcpy(to, exchange_.data() + read_, n);
    read_ += n;
    return static_cast<ssize_t>(n);
  }
  ssize_t write(const char* from, size_t size) { return exchange_.write(from, size) ? static_cast<ssize_t>(size) : -1; }
  void get_remote_ip_and_port(std::string&, int&) const {}
  void get_local_ip_and_port(std::string&, int&) const {}
  socket_t socket() const { return exchange_.descriptor(); }
  time_t duration() const { return 0; }
#pragma GCC diagnostic pop

 private:
  Exchange& exchange_;
  size_t read_ = 0;
};

void set_json(Response& response, const Json& json, int status = 200) {
  response.status = status;
  response.set_content(dump(json), "application/json");
}

void set_error(Response& response, int status, const std::string& error) {
  set_json(response, {{"error", error}}, status);
}

void set_text(Response& response, int status, const std::string& text) {
  response.status = status;
  response.set_content(text + "\n", "text/plain; charset=utf-8");
}

/// A whole number of the query; nothing where it is missing. Throws std::invalid_argument.
std::optional<int64_t> whole_number(const Request& request, const char* name) {
  if (!request.has_param(name)) return std::nullopt;
  const std::string text = request.get_param_value(name);
  if (text.empty() || text.size() > 18 || text.find_first_not_of("0123456789") != std::string::npos) {
    throw std::invalid_argument(std::string(name) + ": expected a whole number from 0; found " + quoted(text));
  }
  return std::stoll(text);
}

std::optional<uint64_t> count(const Request& request, const char* name) {
  const auto number = whole_number(request, name);
  if (!number) return std::nullopt;
  return static_cast<uint64_t>(*number);
}

bool wants_captions(const Request& request) {
  if (!request.has_param("captions")) return false;
  const std::string text = request.get_param_value("captions");
  if (text != "0" && text != "1") {
    throw std::invalid_argument("captions: expected 0 or 1; found " + quoted(text));
  }
  return text == "1";
}

int whole_member(const Json& json, const char* name, int otherwise) {
  if (!json.contains(name)) return otherwise;
  const Json& value = json[name];
  if (!value.is_number_integer() || value < -1000 || value > 1000) {
    throw std::invalid_argument(std::string(name) + ": expected -1, 0 or 1; found " + quoted(value.dump()));
  }
  return value.get<int>();
}

/// The part of `size` bytes that a Range header asks for: first byte and length. Nothing: all of it. Throws
/// std::out_of_range where there are no such bytes.
std::optional<std::pair<int64_t, int64_t>> range_of(const std::string& header, int64_t size) {
  if (header.compare(0, 6, "bytes=") != 0 || header.size() > 100) return std::nullopt;
  const std::string text = header.substr(6);
  const size_t dash = text.find('-');
  const auto digits = [](const std::string& part) {
    return part.size() <= 18 && part.find_first_not_of("0123456789") == std::string::npos;
  };
  // Several ranges at once may be answered with the whole.
  if (dash == std::string::npos || !digits(text.substr(0, dash)) || !digits(text.substr(dash + 1))) return std::nullopt;
  const std::string from = text.substr(0, dash), to = text.substr(dash + 1);
  if (from.empty() && to.empty()) return std::nullopt;
  int64_t first, last;
  if (from.empty()) {
    first = std::max<int64_t>(0, size - std::stoll(to));
    last = std::stoll(to) == 0 ? -1 : size - 1;
  } else {
    first = std::stoll(from);
    last = to.empty() ? size - 1 : std::min<int64_t>(std::stoll(to), size - 1);
    if (!to.empty() && std::stoll(to) < first) return std::nullopt;
  }
  if (first > last) throw std::out_of_range("no such bytes");
  return std::make_pair(first, last - first + 1);
}

std::string time_name() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char text[32];
  std::strftime(text, sizeof text, "%Y%m%d-%H%M%S", &local);
  return text;
}

}  // namespace

// cpp-httplib's server, without its sockets and threads: it reads a request, finds the handler and writes the answer.
class LiveEndpoints::Http : public httplib::Server {
 public:
  Http(LiveView& view, LiveRun run, EndpointOptions options)
      : view_(view),
        run_(std::move(run)),
        options_(std::move(options)),
        cookie_("beholder-" + run_.nonce.substr(0, 16)) {
    svr_sock_ = 0;  // not INVALID_SOCKET, which long answers take for the end
    set_limits();
    set_routes();
  }

  void serve(Exchange& exchange) {
    Serving now{exchange, CpuMeter(view_.cpu())};
    serving = &now;
    ExchangeStream stream(exchange);
    bool ends = false;
    const bool whole = call(&Http::process_request, stream, ends, [](Request& request) { tame(request); });
    serving = nullptr;
    if (!whole || ends) exchange.close_after();
  }

  int viewers() const { return viewers_.load(std::memory_order_relaxed); }

 private:
  using Setup = std::function<void(Request&)>;
  // As the versions of cpp-httplib have it: 0.11, and 0.18.
  bool call(bool (httplib::Server::*process)(httplib::Stream&, bool, bool&, const Setup&), httplib::Stream& stream,
            bool& ends, const Setup& setup) {
    return (this->*process)(stream, false, ends, setup);
  }
  bool call(bool (httplib::Server::*process)(httplib::Stream&, const std::string&, int, const std::string&, int, bool,
                                             bool&, const Setup&),
            httplib::Stream& stream, bool& ends, const Setup& setup) {
    return (this->*process)(stream, "", 0, "", 0, false, ends, setup);
  }

  /// What cpp-httplib would do by itself and shall not: compress (costs the training more than the loopback gains),
  /// unpack bodies (64 KiB may hold 64 MiB), cut ranges out of what grows, and ask for bodies that are there.
  static void tame(Request& request) {
    for (const char* name : {"Accept-Encoding", "Content-Encoding", "Expect"}) request.headers.erase(name);
    request.ranges.clear();
  }

  void set_limits() {
    set_payload_max_length(64 * 1024);
    set_keep_alive_timeout(25);  // said in answers; LiveConnections waits a little longer
    set_keep_alive_max_count(100000);
    set_default_headers({
        {"Cache-Control", "no-store"},
        {"Content-Security-Policy",
         "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
         "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
        {"Referrer-Policy", "no-referrer"},
        {"X-Content-Type-Options", "nosniff"},
        {"X-Frame-Options", "DENY"},
    });
  }

  using Endpoint = void (Http::*)(const Request&, Response&);
  Handler handled(Endpoint endpoint) {
    return [this, endpoint](const Request& request, Response& response) {
      try {
        (this->*endpoint)(request, response);
      } catch (const std::invalid_argument& e) {
        set_error(response, 400, e.what());
      } catch (const std::exception& e) {
        set_error(response, 500, e.what());
      }
    };
  }

  void set_routes() {
    set_pre_routing_handler([this](const Request& request, Response& response) {
      return let_in(request, response) ? HandlerResponse::Unhandled : HandlerResponse::Handled;
    });
    set_error_handler([](const Request&, Response& response) {
      if (response.body.empty() && !response.content_provider_) {
        set_text(response, response.status,
                 std::to_string(response.status) + (response.status == 404 ? ": nothing here by this name" : ""));
      }
    });
    set_exception_handler([](const Request&, Response& response, const std::exception_ptr&) {
      set_error(response, 500, "this went wrong; try again");
    });
    for (const char* name : {"index.html", "page.css", "page.js"}) {
      const std::string file = name;
      const std::string path = file == "index.html" ? "/" : file == "page.css" ? R"(/page\.css)" : R"(/page\.js)";
      const std::string type = file == "index.html" ? "text/html" : file == "page.css" ? "text/css" : "text/javascript";
      Get(path, [name, type](const Request&, Response& response) {
        const auto bytes = page_file(name);
        response.set_content(bytes.data(), bytes.size(), (type + "; charset=utf-8").c_str());
      });
    }
    Get(R"(/favicon\.ico)", [](const Request&, Response& response) { response.status = 204; });
    Get("/frame", handled(&Http::frame));
    Get("/state", handled(&Http::state));
    Get("/value", handled(&Http::value));
    Get(R"(/stream\.mjpg)", handled(&Http::stream));
    Get("/recordings/", handled(&Http::recordings));
    Get("/recordings/([^/]{1,128})", handled(&Http::recording));
    Post("/settings", handled(&Http::post_settings));
    Post("/action", handled(&Http::post_action));
    Post("/snapshot", handled(&Http::post_snapshot));
    Post("/record", handled(&Http::post_record));
  }

  // ---- who may come in

  /// True for a request that may go on; else `response` says why not. Before its body is looked at.
  bool let_in(const Request& request, Response& response) {
    const std::string host = request.get_header_value("Host");
    if (request.get_header_value_count("Host") != 1 || !is_own_host(host, options_.names)) {
      const std::string port = std::to_string(run_.port);
      set_text(response, 403,
               "403: asked as " + (host.empty() ? "nobody (no Host header)" : quoted(host)) +
                   ", which is no name of this server. It answers to " + to_string(options_.names) +
                   ". Add the name to LiveServerOptions::allowed_hosts, or to BEHOLDER_ALLOWED_HOSTS in the training's "
                   "environment, or come through an ssh tunnel: ssh -L " +
                   port + ":localhost:" + port + " USER@HOST");
      return false;
    }
    if (request.method != "GET" && request.method != "HEAD" && request.method != "POST") {
      response.set_header("Allow", "GET, HEAD, POST");
      set_text(response, 405, "405: expected GET, HEAD or POST");
      return false;
    }
    // Of several tokens, one must be right: an old cookie beside a new URL does not matter.
    bool by_query = false, known = false;
    for (size_t i = 0; i < std::min<size_t>(4, request.get_param_value_count("token")); ++i) {
      by_query = equal_in_constant_time(request.get_param_value("token", i), run_.token) || by_query;
    }
    known = by_query;
    const std::string bearer = request.get_header_value("Authorization");
    if (bearer.compare(0, 7, "Bearer ") == 0) known = equal_in_constant_time(bearer.substr(7), run_.token) || known;
    const auto [first_cookies, last_cookies] = request.headers.equal_range("Cookie");
    for (auto cookies = first_cookies; cookies != last_cookies; ++cookies) {
      known = equal_in_constant_time(cookie_value(cookies->second, cookie_), run_.token) || known;
    }
    if (!known) {
      response.set_header("WWW-Authenticate", "Bearer");
      set_text(response, 401,
               "401: the token is missing or wrong. The URL with the token is in the log of the training, "
               "and in plugins/beholder/live.json of its logdir");
      return false;
    }
    // A browser's word (which no page can change) decides where a proxy asks by another name than the browser.
    const bool own_page = request.get_header_value("Sec-Fetch-Site") == "same-origin" ||
                          is_own_origin(request.get_header_value("Origin"), host, options_.names);
    if (request.method == "POST" && !own_page) {
      set_text(response, 403,
               "403: a page of " + quoted(request.get_header_value("Origin")) + " may not change anything at " +
                   quoted(host) +
                   "; where it came through a proxy, add its name to LiveServerOptions::allowed_hosts, " +
                   "or to BEHOLDER_ALLOWED_HOSTS in the training's environment");
      return false;
    }
    if (by_query) {
      // Without a path: a browser takes the folder of the address that it asked for, which a proxy may have put below a
      // path that is not known here. Its other pages get no token.
      response.set_header("Set-Cookie", cookie_ + "=" + run_.token + "; HttpOnly; SameSite=Strict");
      if (request.path == "/") {
        // The address bar, and so a screenshot, is rid of the token.
        response.set_redirect("./");
        return false;
      }
    }
    return true;
  }

  /// One of max_viewers, or nullptr with the answer in `response`. It is given back with the last copy.
  std::shared_ptr<void> viewer(Response& response) {
    if (viewers_.fetch_add(1) >= options_.max_viewers) {
      --viewers_;
      response.set_header("Retry-After", kRetrySeconds);
      set_text(response, 503,
               "503: " + std::to_string(options_.max_viewers) +
                   " viewers are there already (LiveServerOptions::max_viewers)");
      return nullptr;
    }
    return std::shared_ptr<void>(this, [this](void*) { --viewers_; });
  }

  // ---- pictures

  void frame(const Request& request, Response& response) {
    const std::string name = request.has_param("format") ? request.get_param_value("format") : "jpeg";
    const auto format = picture_format(name);
    if (!format) {
      throw std::invalid_argument("format: expected raw, png or jpeg; found " + quoted(name));
    }
    const bool captions = wants_captions(request);
    LiveView::Wish wish;
    wish.after = count(request, "after");
    wish.revision = count(request, "revision");
    int64_t timeout = std::min(whole_number(request, "timeout_ms").value_or(kDefaultWaitMs), kMaxWaitMs);
    // "What is there at once", but not before the budget allows a picture.
    if (!wish.after && !view_.now().picture) timeout = 0;
    wish.deadline = Clock::now() + std::chrono::milliseconds(timeout);
    const auto slot = viewer(response);
    if (!slot) return;

    Exchange& exchange = serving->exchange;
    serving->cpu.pay();
    const auto answer = view_.wait(wish, [&exchange] { return exchange.gone(); });
    const auto& now = answer.now;
    response.set_header("X-Beholder-Sequence", std::to_string(now.sequence));
    response.set_header("X-Beholder-Revision", std::to_string(now.revision));
    response.set_header("X-Beholder-Layout", std::to_string(now.layout));
    if (now.ended) response.set_header("X-Beholder-Ended", "1");
    if (!answer.picture_due) {
      response.status = 204;
      return;
    }
    response.set_header("X-Beholder-Width", std::to_string(now.picture->width));
    response.set_header("X-Beholder-Height", std::to_string(now.picture->height));
    response.set_header("X-Beholder-Step", std::to_string(now.picture->step));
    const SharedBytes bytes = encoded(now.picture, *format, captions, options_.jpeg_quality);
    exchange.send_directly();
    response.set_content_provider(bytes.size, content_type(*format),
                                  [bytes, slot](size_t offset, size_t length, httplib::DataSink& sink) {
                                    return sink.write(bytes.data + offset, length);
                                  });
  }

  void stream(const Request&, Response& response) {
    const auto slot = viewer(response);
    if (!slot) return;
    serving->exchange.send_directly();
    serving->exchange.close_after();
    response.set_header("Connection", "close");
    response.set_header("X-Accel-Buffering", "no");  // nginx would keep back what has no end, picture after picture
    const auto last = std::make_shared<uint64_t>(0);
    const auto begun = std::make_shared<bool>(false);
    response.set_content_provider(
        std::string("multipart/x-mixed-replace; boundary=") + kBoundary,
        [this, slot, last, begun](size_t, httplib::DataSink& sink) {
          Exchange& exchange = serving->exchange;
          serving->cpu.pay();
          LiveView::Wish wish;
          if (*begun) wish.after = *last;
          wish.deadline = Clock::now() + std::chrono::milliseconds(kMaxWaitMs);
          LiveView::Answer answer;
          while (!answer.picture_due) {
            answer = view_.wait(wish, [&exchange] { return exchange.gone(); });
            if (exchange.gone() || answer.now.ended) return false;
            wish.deadline = Clock::now() + std::chrono::milliseconds(kMaxWaitMs);
          }
          *last = answer.now.sequence;
          const auto bytes = encoded(answer.now.picture, PictureFormat::Jpeg, true, options_.jpeg_quality);
          std::string head = *begun ? "" : std::string("--") + kBoundary + "\r\n";
          head += "Content-Type: image/jpeg\r\nContent-Length: " + std::to_string(bytes.size) + "\r\n\r\n";
          // The next part's boundary goes with this one: players show a picture when they have seen its end.
          const std::string tail = std::string("\r\n--") + kBoundary + "\r\n";
          *begun = true;
          return sink.write(head.data(), head.size()) && sink.write(bytes.data, bytes.size) &&
                 sink.write(tail.data(), tail.size());
        });
  }

  void value(const Request& request, Response& response) {
    const auto sequence = count(request, "seq");
    const auto x = whole_number(request, "x"), y = whole_number(request, "y");
    if (!sequence || !x || !y) throw std::invalid_argument("expected seq, x and y, as in /value?seq=42&x=10&y=20");
    const auto now = view_.now();
    const bool inside = now.picture && *x < now.picture->width && *y < now.picture->height;
    std::optional<ShownValue> shown;
    if (inside && now.sequence == *sequence) {
      shown = view_.run().value_at(*sequence, static_cast<int>(*x), static_cast<int>(*y));
    }
    if (!shown || shown->section >= now.picture->sections.size()) {
      response.status = 204;  // no error: between two blocks, or a newer picture has come
      return;
    }
    Json json;
    json["section"] = shown->section;
    json["name"] = now.picture->sections[shown->section].name;
    json["index"] = shown->index;
    // An integer keeps all its digits, also those that no float64 has (-0 is none); what is no real number (true, 1+2i,
    // NaN) stands in the text.
    const Json exact = Json::parse(shown->text, nullptr, /*allow_exceptions=*/false);
    json["value"] = exact.is_number_integer() && shown->text != "-0" ? exact
                    : std::isfinite(shown->value)                    ? Json(shown->value)
                                                                     : Json(nullptr);
    json["text"] = shown->text;
    set_json(response, json);
  }

  // ---- state and settings

  void state(const Request&, Response& response) {
    LiveState live;
    live.now = view_.look();
    live.waiting = view_.waiting_for_update();
    live.settings = view_.run().settings->get();
    live.defaults = view_.run().settings->defaults();
    live.state = view_.run().state();
    live.recordings = view_.recordings();
    live.viewers = viewers();
    live.max_viewers = options_.max_viewers;
    live.server_cpu = view_.cpu().used();
    live.max_server_cpu = view_.cpu().max_share();
    set_json(response, json_of(live, run_, view_.run().logdir, view_.run().directory));
  }

  void answer_revision(Response& response, Json json = Json::object()) {
    Json answer = {{"revision", view_.now().revision}};
    answer.update(json);
    set_json(response, answer);
  }

  void post_settings(const Request& request, Response& response) {
    const std::string wrong = view_.run().settings->set_by_name(changes_of(parse_posted(request.body)));
    if (!wrong.empty()) throw std::invalid_argument(wrong);
    answer_revision(response);
  }

  void post_action(const Request& request, Response& response) {
    const Json posted = parse_posted(request.body);
    if (!posted.is_object() || !posted.contains("control") || !posted["control"].is_string()) {
      throw std::invalid_argument("expected a JSON object with a control, as in {\"control\": \"colormap\"}");
    }
    KeyAction action;
    action.control = posted["control"].get<std::string>();
    if (action.control == "snapshot") {
      post_snapshot(request, response);
      return;
    }
    action.direction = whole_member(posted, "direction", 1);
    action.dx = whole_member(posted, "dx", 0);
    action.dy = whole_member(posted, "dy", 0);
    if (posted.contains("section")) {
      if (!posted["section"].is_string()) throw std::invalid_argument("section: expected a name");
      action.section = posted["section"].get<std::string>();
    }
    ActionContext context;
    const auto now = view_.now();
    if (now.picture) {
      if (now.picture->names) context.names = *now.picture->names;
      if (now.picture->layout) context.pages = now.picture->layout->pages;
    }
    context.last_solo = view_.last_solo();
    context.defaults = view_.run().settings->defaults();
    std::string wrong;
    view_.run().settings->edit([&](Settings& settings) { wrong = apply(action, context, settings); });
    if (!wrong.empty()) throw std::invalid_argument(wrong);
    answer_revision(response);
  }

  void post_snapshot(const Request&, Response& response) {
    const auto picture = view_.now().picture;
    if (!picture) throw std::invalid_argument("snapshot: there is no picture yet");
    MutexLock lock(snapshot_mutex_);
    const std::string stem =
        view_.run().directory + "/picture-" + time_name() + "-step-" + std::to_string(picture->step);
    std::string path = stem + ".png";
    for (int counter = 2; ::access(path.c_str(), F_OK) == 0; ++counter)
      path = stem + "-" + std::to_string(counter) + ".png";
    const auto with_text = captioned(*picture, ClassicText::Labels);
    write_png(path, with_text->rgb.data(), with_text->width, with_text->height);
    answer_revision(response, {{"path", path}});
  }

  void post_record(const Request& request, Response& response) {
    const Json posted = parse_posted(request.body);
    if (!posted.is_object() || (posted.contains("on") && !posted["on"].is_boolean())) {
      throw std::invalid_argument("expected {\"on\": true}, {\"on\": false} or nothing");
    }
    view_.run().settings->edit([&posted](Settings& settings) {
      settings.recording = posted.contains("on") ? posted["on"].get<bool>() : !settings.recording;
    });
    answer_revision(response);
  }

  // ---- films

  void recordings(const Request&, Response& response) {
    view_.look();
    set_json(response, json_of(view_.recordings()));
  }

  /// A film may still be growing: what there is now is served, and a later range finds more.
  void recording(const Request& request, Response& response) {
    const std::string name = request.matches[1];
    const auto no_film = [&] {
      set_error(response, 404, "no film of this run by this name; GET /recordings/ lists them");
    };
    if (!is_recording_name(name)) return no_film();
    // No link, and no FIFO that would hold the thread.
    const int descriptor =
        ::open((view_.run().directory + "/" + name).c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0) return no_film();
    const std::shared_ptr<const int> file(new int(descriptor), [](const int* fd) {
      ::close(*fd);
      delete fd;
    });
    struct stat status {};
    if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) return no_film();
    const bool video = name.back() != 'l';
    // The line that an index ends with may be torn.
    const auto size = video ? static_cast<int64_t>(status.st_size) : whole_lines(descriptor, status.st_size);
    response.set_header("Accept-Ranges", "bytes");
    std::optional<std::pair<int64_t, int64_t>> range;
    try {
      range = range_of(request.get_header_value("Range"), size);
    } catch (const std::out_of_range&) {
      response.set_header("Content-Range", "bytes */" + std::to_string(size));
      set_error(response, 416, "expected a range within " + std::to_string(size) + " bytes");
      return;
    }
    const auto slot = viewer(response);
    if (!slot) return;
    const auto [first, length] = range.value_or(std::make_pair(int64_t{0}, size));
    response.status = range ? 206 : 200;
    if (range) {
      response.set_header("Content-Range", "bytes " + std::to_string(first) + "-" + std::to_string(first + length - 1) +
                                               "/" + std::to_string(size));
    }
    response.set_header("Content-Disposition", "attachment; filename=\"" + name + "\"");
    const std::string type = !video ? "application/x-ndjson" : name.back() == '4' ? "video/mp4" : "video/x-matroska";
    if (length == 0) {
      response.set_content("", type.c_str());
      return;
    }
    serving->exchange.send_directly();
    const auto buffer = std::make_shared<std::vector<char>>(kFileChunk);
    response.set_content_provider(
        static_cast<size_t>(length), type.c_str(),
        [this, file, slot, buffer, begin = first](size_t offset, size_t left, httplib::DataSink& sink) {
          // A download is paced like pictures are: a piece a second at least.
          const auto latest = Clock::now() + std::chrono::seconds(1);
          while (Clock::now() < std::min(view_.cpu().free_from(), latest) && !serving->exchange.gone()) {
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
          }
          const ssize_t n = ::pread(*file, buffer->data(), std::min(left, buffer->size()),
                                    static_cast<off_t>(begin + static_cast<int64_t>(offset)));
          const bool good = n > 0 && sink.write(buffer->data(), static_cast<size_t>(n));
          serving->cpu.pay();
          return good;
        });
  }

  LiveView& view_;
  const LiveRun run_;
  const EndpointOptions options_;
  const std::string cookie_;
  std::atomic<int> viewers_{0};
  Mutex snapshot_mutex_;  // guards no field: one name is chosen, and its file written, at a time
};

LiveEndpoints::LiveEndpoints(LiveView& view, LiveRun run, EndpointOptions options) {
  // cpp-httplib's constructor has SIGPIPE ignored in the whole process, which is not ours.
  struct sigaction before {};
  ::sigaction(SIGPIPE, nullptr, &before);
  http_ = std::make_unique<Http>(view, std::move(run), std::move(options));
  ::sigaction(SIGPIPE, &before, nullptr);
}

LiveEndpoints::~LiveEndpoints() = default;

void LiveEndpoints::serve(Exchange& exchange) { http_->serve(exchange); }

int LiveEndpoints::viewers() const { return http_->viewers(); }

}  // namespace beholder
