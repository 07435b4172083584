# How tests run in the sanitizer presets. Included last: it looks at all tests of this folder.

get_property(_tests DIRECTORY PROPERTY TESTS)
set(_environment)
if(BEHOLDER_SANITIZE STREQUAL "address")
  set(_environment "LSAN_OPTIONS=suppressions=${CMAKE_CURRENT_SOURCE_DIR}/asan.supp:print_suppressions=0"
                   "UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1")
elseif(BEHOLDER_SANITIZE STREQUAL "thread")
  set(_environment "TSAN_OPTIONS=suppressions=${CMAKE_CURRENT_SOURCE_DIR}/tsan.supp:halt_on_error=1" "OMP_NUM_THREADS=1")
endif()

# The tests that the thread sanitizer can judge: those of threads, without LibTorch's OpenMP, whose barriers it does
# not know.
add_custom_target(tsan_tests)
foreach(_test IN LISTS _tests)
  if(_environment)
    set_property(TEST ${_test} APPEND PROPERTY ENVIRONMENT ${_environment})
  endif()
  get_test_property(${_test} LABELS _labels)
  if("tsan" IN_LIST _labels AND TARGET test_${_test})
    add_dependencies(tsan_tests test_${_test})
  endif()
endforeach()
