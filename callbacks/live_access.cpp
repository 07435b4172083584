#include "beholder/callbacks/live_access.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <system_error>
#include <vector>

namespace beholder {
namespace {

bool is_ip_address(const std::string& name) {
  unsigned char address[sizeof(in6_addr)];
  return ::inet_pton(AF_INET, name.c_str(), address) == 1 || ::inet_pton(AF_INET6, name.c_str(), address) == 1;
}

std::string lower(std::string text) {
  for (auto& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

/// As it is compared: "gpu.example.org." is the same name written in full.
std::string plain(const std::string& name) {
  const bool brackets = name.size() > 2 && name.front() == '[' && name.back() == ']';
  if (brackets) return lower(name.substr(1, name.size() - 2));
  return lower(name.size() > 1 && name.back() == '.' ? name.substr(0, name.size() - 1) : name);
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

void add(std::vector<std::string>& names, const std::string& name) {
  if (is_host_name(name) && !contains(names, plain(name))) names.push_back(plain(name));
}

/// The host name with its domain; empty where the resolver knows none.
std::string full_name(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_CANONNAME;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return {};
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, &::freeaddrinfo);
  return found->ai_canonname ? found->ai_canonname : "";
}

}  // namespace

std::string random_hex(int bytes) {
  std::vector<uint8_t> random(static_cast<size_t>(bytes));
  for (size_t got = 0; got < random.size();) {
    const ssize_t n = ::getrandom(random.data() + got, random.size() - got, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw std::system_error(errno, std::generic_category(), "the system gives no random bytes");
    got += static_cast<size_t>(n);
  }
  std::string hex;
  for (const uint8_t byte : random) {
    hex += "0123456789abcdef"[byte >> 4];
    hex += "0123456789abcdef"[byte & 15];
  }
  return hex;
}

bool equal_in_constant_time(const std::string& a, const std::string& b) {
  if (b.empty()) return a.empty();
  // The time depends on the length of `a`, which is the guess, alone.
  volatile unsigned differs = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < a.size(); ++i) {
    differs = differs | (static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i % b.size()]));
  }
  return differs == 0;
}

bool is_loopback_name(const std::string& name) {
  if (name == "localhost") return true;
  in_addr v4{};
  if (::inet_pton(AF_INET, name.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6{};
  return ::inet_pton(AF_INET6, name.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

std::string host_name(const std::string& host_and_port) {
  std::string name, port;
  if (!host_and_port.empty() && host_and_port[0] == '[') {
    const size_t end = host_and_port.find(']');
    if (end == std::string::npos) return {};
    name = host_and_port.substr(1, end - 1);
    port = host_and_port.substr(end + 1);
  } else {
    const size_t colon = host_and_port.find(':');
    name = host_and_port.substr(0, colon);
    port = colon == std::string::npos ? "" : host_and_port.substr(colon);
  }
  const bool good_port = port.empty() || (port[0] == ':' && port.size() <= 6 &&
                                          port.find_first_not_of("0123456789", 1) == std::string::npos);
  return good_port ? plain(name) : std::string();
}

bool is_host_name(const std::string& name) {
  if (is_ip_address(plain(name))) return true;
  const std::string letters = "abcdefghijklmnopqrstuvwxyz0123456789-_.";
  return !name.empty() && name.size() <= 253 && name.front() != '.' && name.front() != '-' &&
         lower(name).find_first_not_of(letters) == std::string::npos;
}

OwnNames own_names(const std::string& address, const std::vector<std::string>& allowed) {
  OwnNames names;
  for (const auto& name : allowed) add(names.allowed, name);
  if (is_loopback_name(lower(address))) return names;
  names.any_address = true;
  if (!is_ip_address(address)) add(names.own, address);
  char host[256] = "";
  if (::gethostname(host, sizeof host - 1) != 0 || !*host) return names;
  add(names.own, host);
  add(names.own, full_name(host));
  return names;
}

std::string to_string(const OwnNames& names) {
  std::vector<std::string> all = {"localhost", "127.x.x.x", "[::1]"};
  all.insert(all.end(), names.own.begin(), names.own.end());
  all.insert(all.end(), names.allowed.begin(), names.allowed.end());
  if (names.any_address) all.push_back("plain IP addresses");
  std::string text;
  for (size_t i = 0; i < all.size(); ++i) text += (i == 0 ? "" : i + 1 < all.size() ? ", " : " and ") + all[i];
  return text;
}

bool is_own_host(const std::string& host, const OwnNames& names) {
  const std::string name = host_name(host);
  if (name.empty()) return false;
  return is_loopback_name(name) || contains(names.own, name) || contains(names.allowed, name) ||
         (names.any_address && is_ip_address(name));
}

bool is_own_origin(const std::string& origin, const std::string& host, const OwnNames& names) {
  if (origin.empty()) return true;
  const std::string of = lower(origin);
  for (const std::string scheme : {"http://", "https://"}) {
    if (of.compare(0, scheme.size(), scheme) != 0) continue;
    const std::string authority = of.substr(scheme.size());
    return authority == lower(host) || contains(names.allowed, host_name(authority));
  }
  return false;
}

std::string cookie_value(const std::string& cookies, const std::string& name) {
  for (size_t begin = 0; begin < cookies.size();) {
    size_t end = cookies.find(';', begin);
    if (end == std::string::npos) end = cookies.size();
    while (begin < end && cookies[begin] == ' ') ++begin;
    if (cookies.compare(begin, name.size() + 1, name + "=") == 0) {
      return cookies.substr(begin + name.size() + 1, end - begin - name.size() - 1);
    }
    begin = end + 1;
  }
  return {};
}

}  // namespace beholder
