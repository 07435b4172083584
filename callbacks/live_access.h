// Who may talk to the live server: the token, and the names under which a browser may know it. Pure functions of a
// request's headers; any thread. Internal.
#pragma once

#include <string>

namespace beholder {

/// `bytes` random bytes of the system as hex digits. Throws std::system_error where there are none.
std::string random_hex(int bytes);

/// Takes as long for texts that differ late as for those that differ early.
bool equal_in_constant_time(const std::string& a, const std::string& b);

/// "localhost", 127.x.x.x or ::1.
bool is_loopback_name(const std::string& name);

/// The name in a Host header or an Origin's authority: without the port and an IPv6 address's brackets, lower case;
/// empty where it is malformed.
std::string host_name(const std::string& host_and_port);

/// Whether a request with this Host header may be meant for a server that listens on `address`. A page of a stranger
/// whose name was bent to this machine (DNS rebinding) comes with the stranger's name. Beyond loopback (only where the
/// user asked for such an address) the address itself and other plain IP addresses are right as well: they cannot be
/// bent.
bool is_own_host(const std::string& host, const std::string& address);

/// Whether a page of this Origin may change something: only one that came from this server, by the name and port under
/// which it is asked now. No Origin (not a browser) is right.
bool is_own_origin(const std::string& origin, const std::string& host);

/// The value of a cookie, or an empty text.
std::string cookie_value(const std::string& cookies, const std::string& name);

}  // namespace beholder
