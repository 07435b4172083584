// Who may talk to the live server: the token, and the names under which a browser may know it. Pure functions of a
// request's headers; any thread. Internal.
#pragma once

#include <string>
#include <vector>

namespace beholder {

/// `bytes` random bytes of the system as hex digits. Throws std::system_error where there are none.
std::string random_hex(int bytes);

/// Takes as long for texts that differ late as for those that differ early.
bool equal_in_constant_time(const std::string& a, const std::string& b);

/// "localhost", 127.x.x.x or ::1.
bool is_loopback_name(const std::string& name);

/// The name in a Host header or an Origin's authority: without the port, an IPv6 address's brackets and the dot at the
/// end of a name in full, lower case; empty where it is malformed.
std::string host_name(const std::string& host_and_port);

/// Whether this can be the name or the IP address of a machine, without a port: letters, digits, '-', '_' and '.'; an
/// IPv6 address with its brackets or without.
bool is_host_name(const std::string& name);

/// Under which names a server answers, beside the names of loopback. In lower case, without brackets.
struct OwnNames {
  std::vector<std::string> own;      ///< of this machine
  std::vector<std::string> allowed;  ///< by the user
  bool any_address = false;          ///< plain IP addresses too
};
/// Of a server that listens on `address`. Beyond loopback (only where the user asked for such an address) they are the
/// address itself, the machine's host name and its full name, and all plain IP addresses, which nobody can bend to
/// another machine. Asks the system's resolver for the full name, which may take seconds.
OwnNames own_names(const std::string& address, const std::vector<std::string>& allowed);
/// For people: "localhost, 127.x.x.x, [::1], gpu and plain IP addresses".
std::string to_string(const OwnNames& names);

/// Whether a request with this Host header may be meant for this server. A page of a stranger whose name was bent to
/// this machine (DNS rebinding) comes with the stranger's name.
bool is_own_host(const std::string& host, const OwnNames& names);

/// Whether a page of this Origin may change something: one that came from this server, by the name and port under which
/// it is asked now, or from a name that the user has allowed (a proxy may ask under another name than the browser
/// does). No Origin (not a browser) is right.
bool is_own_origin(const std::string& origin, const std::string& host, const OwnNames& names);

/// The value of a cookie, or an empty text.
std::string cookie_value(const std::string& cookies, const std::string& name);

}  // namespace beholder
