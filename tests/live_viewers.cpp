// Many viewers in a process of their own, for the load test: some read pictures one after the other, as the page does,
// the others ask and never read. Takes only time that nobody else wants, as viewers on other machines take none of this
// one's. Ends when its standard input ends, and prints how many pictures were read, and the fewest of any viewer.
//
//   live_viewers PORT TOKEN READING STALLED FORMAT

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

namespace {

std::atomic<bool> stop{false};

int connected(int port, bool stalls) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int little = 4096;
  if (stalls) ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &little, sizeof little);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || ::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) return -1;
  return fd;
}

std::string request(const std::string& token, const std::string& format, int64_t after) {
  return "GET /frame?timeout_ms=2000&format=" + format + "&after=" + std::to_string(after) +
         " HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + "\r\n\r\n";
}

int64_t number_after(const std::string& head, const std::string& name) {
  const size_t at = head.find(name);
  return at == std::string::npos ? 0 : std::atoll(head.c_str() + at + name.size());
}

/// Reads a reply and forgets its body. False where the server has gone.
bool read_reply(int fd, int& status, int64_t& sequence) {
  std::string head;
  char byte;
  while (head.size() < 4 || head.compare(head.size() - 4, 4, "\r\n\r\n") != 0) {
    if (::recv(fd, &byte, 1, 0) <= 0) return false;
    head += byte;
  }
  status = std::atoi(head.c_str() + 9);
  if (status == 200) sequence = number_after(head, "X-Beholder-Sequence: ");
  for (int64_t left = status == 204 ? 0 : number_after(head, "Content-Length: "); left > 0;) {
    static thread_local std::vector<char> buffer(1 << 20);
    // MSG_TRUNC: TCP forgets the bytes without a copy.
    const ssize_t n = ::recv(fd, buffer.data(), std::min<size_t>(buffer.size(), static_cast<size_t>(left)), MSG_TRUNC);
    if (n <= 0) return false;
    left -= n;
  }
  return true;
}

void view(int port, const std::string& token, const std::string& format, int64_t& pictures) {
  const int fd = connected(port, false);
  int64_t sequence = 0;
  int status = 0;
  while (fd >= 0 && !stop) {
    const std::string text = request(token, format, sequence);
    if (::send(fd, text.data(), text.size(), MSG_NOSIGNAL) < 0 || !read_reply(fd, status, sequence)) break;
    pictures += status == 200;
  }
  ::close(fd);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  const sched_param none{};
  ::sched_setscheduler(0, SCHED_IDLE, &none);
  const int port = std::atoi(argv[1]), reading = std::atoi(argv[3]), stalled = std::atoi(argv[4]);
  const std::string token = argv[2], format = argv[5];
  std::vector<int> stalls;
  for (int i = 0; i < stalled; ++i) {
    stalls.push_back(connected(port, true));
    const std::string text = request(token, "raw", 0);
    if (stalls.back() < 0 || ::send(stalls.back(), text.data(), text.size(), MSG_NOSIGNAL) < 0) return 1;
  }
  std::vector<int64_t> pictures(static_cast<size_t>(reading));
  std::vector<std::thread> threads;
  for (auto& count : pictures) threads.emplace_back([&] { view(port, token, format, count); });
  char ignored;
  while (::read(STDIN_FILENO, &ignored, 1) > 0) {
  }
  stop = true;
  for (auto& thread : threads) thread.join();
  std::printf("%lld %lld\n", static_cast<long long>(std::accumulate(pictures.begin(), pictures.end(), int64_t{0})),
              static_cast<long long>(pictures.empty() ? 0 : *std::min_element(pictures.begin(), pictures.end())));
  return 0;
}
