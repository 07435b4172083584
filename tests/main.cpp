// Catch2 2.13 wants its main compiled by the user; Catch2 3 brings one in a library (see tests/CMakeLists.txt).
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
