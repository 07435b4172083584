// Catch2 by whichever name this version's header has: 2.13 (Debian 12) or 3.
#pragma once
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
namespace Catch {
using Detail::Approx;  // where Catch2 3 has it
}
#endif
