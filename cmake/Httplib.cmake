# link_httplib(TARGET): cpp-httplib, as callbacks/ found it (BEHOLDER_HTTPLIB; empty: its header alone). An imported target
# is known only in the folder that found it, so each folder looks again.

function(link_httplib target)
  if(NOT BEHOLDER_HTTPLIB)
    target_include_directories(${target} SYSTEM PRIVATE "${HTTPLIB_INCLUDE_DIR}")
    return()
  endif()
  if(NOT TARGET ${BEHOLDER_HTTPLIB})
    if(BEHOLDER_HTTPLIB STREQUAL "PkgConfig::HTTPLIB")
      find_package(PkgConfig REQUIRED)
      pkg_check_modules(HTTPLIB REQUIRED QUIET IMPORTED_TARGET cpp-httplib>=0.11)
    else()
      find_package(httplib REQUIRED CONFIG)
    endif()
  endif()
  target_link_libraries(${target} PRIVATE ${BEHOLDER_HTTPLIB})
endfunction()
